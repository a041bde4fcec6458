//! Names of directories with variables in them: `${pvc.metadata.namespace}/data`.
//!
//! What a variable stands for is checked before it is put in, as one component of a
//! path; what comes out is checked again, component by component.

use super::component::{Component, UnsafeName, component, components};

/// A template that makes no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A variable without an end.
    #[error("{0:?} has a variable without {1:?} at its end")]
    Open(String, &'static str),
    /// A variable that there is not.
    #[error("{0:?} has an unknown variable {1:?} in it")]
    Unknown(String, String),
    /// What came out is no safe path.
    #[error(transparent)]
    Unsafe(#[from] UnsafeName),
}

/// What a variable stands for.
pub enum Value {
    /// This text, which must be one component of a path, or a part of one.
    Text(String),
    /// Nothing, where that is allowed.
    Absent,
    /// There is no such variable.
    Unknown,
}

/// Puts values in the place of the variables of `template`, which stand between
/// `marks`. None when nothing is left in the end.
///
/// # Errors
/// [`TemplateError`], with the template or the value that is wrong.
pub fn expand(
    template: &str,
    marks: (&'static str, &'static str),
    value: impl Fn(&str) -> Value,
) -> Result<Option<Vec<Component>>, TemplateError> {
    let (begin, end) = marks;
    let mut path = String::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once(begin) {
        path.push_str(text);
        let (variable, after) = after
            .split_once(end)
            .ok_or_else(|| TemplateError::Open(template.to_owned(), end))?;
        let variable = variable.trim();
        match value(variable) {
            Value::Text(text) => {
                let what = format!("the value of {variable:?}");
                path.push_str(component(&what, &text)?.as_str());
            }
            Value::Absent => {}
            Value::Unknown => {
                return Err(TemplateError::Unknown(
                    template.to_owned(),
                    format!("{begin}{variable}{end}"),
                ));
            }
        }
        rest = after;
    }
    path.push_str(rest);
    match path.is_empty() {
        true => Ok(None),
        false => Ok(Some(components("the directory", &path)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::component::joined;
    use super::*;

    fn expanded(template: &str, name: &str) -> Result<Option<String>, String> {
        let value = |variable: &str| match variable {
            "name" => Value::Text(name.to_owned()),
            "label" => Value::Absent,
            _ => Value::Unknown,
        };
        expand(template, ("${", "}"), value)
            .map(|path| path.as_deref().map(joined))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn variables_are_put_in_and_nothing_climbs_out_of_them() {
        let good = |template| expanded(template, "n").expect(template);
        assert_eq!(good("a/${name}-${ name }").as_deref(), Some("a/n-n"));
        assert_eq!(good("${label}${name}").as_deref(), Some("n"));
        assert_eq!(good("${label}"), None);
        for bad in [
            "../${name}",
            "/${name}",
            "${name}/",
            "a//b",
            "${label}/a",
            "a\\b",
            "..",
        ] {
            let error = expanded(bad, "n").expect_err(bad);
            assert!(error.contains("cannot be part of a path"), "{error}");
        }
        for value in ["", "..", ".", "a/b", "/", "a\\..", "\0", "a\0"] {
            let error = expanded("x-${name}", value).expect_err(value);
            assert!(error.starts_with("the value of \"name\""), "{error}");
        }
        // Two halves make no whole that leads out.
        assert!(expanded(".${name}", ".").is_err() && expanded("${name}.", ".").is_err());
        let error = expanded("${other}", "n").expect_err("unknown");
        assert_eq!(
            error,
            r#""${other}" has an unknown variable "${other}" in it"#
        );
        let error = expanded("a${name", "n").expect_err("open");
        assert_eq!(error, r#""a${name" has a variable without "}" at its end"#);
    }
}
