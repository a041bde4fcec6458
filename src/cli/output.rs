//! `-o`: the forms in which objects can be printed, and what kubectl calls
//! them.

use std::cmp::Ordering;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::print::{self, Format};
use crate::kube::jsonpath::{self, Template};
use crate::kube::kind::Kind;
use crate::kube::quantity::Quantity;

/// What to print of objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// More columns.
    Wide,
    /// The objects in full, as YAML.
    Yaml,
    /// The objects in full, as JSON.
    Json,
    /// TYPE/NAME, one a line.
    Name,
    /// A template that is filled in.
    JsonPath(Template),
    /// Columns of the user's own.
    Columns(Vec<(String, Template)>),
}

impl FromStr for Output {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (form, argument) = match text.split_once('=') {
            Some((form, argument)) => (form, Some(argument)),
            None => (text, None),
        };
        match (form, argument) {
            ("wide", None) => Ok(Self::Wide),
            ("yaml", None) => Ok(Self::Yaml),
            ("json", None) => Ok(Self::Json),
            ("name", None) => Ok(Self::Name),
            ("jsonpath", Some(template)) => Ok(Self::JsonPath(Template::new(template)?)),
            ("jsonpath-file", Some(file)) => {
                Ok(Self::JsonPath(Template::new(&read(Path::new(file))?)?))
            }
            ("custom-columns", Some(columns)) => Ok(Self::Columns(custom_columns(columns)?)),
            ("custom-columns-file", Some(file)) => {
                Ok(Self::Columns(columns_of_file(&read(Path::new(file))?)?))
            }
            ("jsonpath" | "jsonpath-file", None) => {
                bail!(
                    "template format specified but no template given: -o {form}='{{.metadata.name}}'"
                )
            }
            ("custom-columns" | "custom-columns-file", None) => {
                bail!(
                    "custom-columns format specified but no custom columns given: -o custom-columns=NAME:.metadata.name"
                )
            }
            _ => bail!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
            ),
        }
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {file:?}"))
}

fn custom_columns(text: &str) -> Result<Vec<(String, Template)>> {
    if text.trim().is_empty() {
        bail!("custom-columns format specified but no custom columns given");
    }
    let column = |part: &str| {
        let (header, path) = part.split_once(':').with_context(|| {
            format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>")
        })?;
        Ok((header.to_owned(), Template::path(path)?))
    };
    split_columns(text).into_iter().map(column).collect()
}

/// At commas, but not at those in brackets or quotation marks.
fn split_columns(text: &str) -> Vec<&str> {
    let (mut depth, mut quote) = (0_u32, None);
    text.split(|c| {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0 && quote.is_none()
    })
    .collect()
}

/// One line of headers, one of paths, as kubectl has it.
fn columns_of_file(text: &str) -> Result<Vec<(String, Template)>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (Some(headers), Some(paths)) = (lines.next(), lines.next()) else {
        bail!("a file of custom columns has one line of headers and one of paths");
    };
    let (headers, paths): (Vec<_>, Vec<_>) = (
        headers.split_whitespace().collect(),
        paths.split_whitespace().collect(),
    );
    if headers.len() != paths.len() {
        bail!(
            "number of headers ({}) and field specifications ({}) don't match",
            headers.len(),
            paths.len()
        );
    }
    let column = |(header, path): (&str, &str)| Ok((header.to_owned(), Template::path(path)?));
    headers.into_iter().zip(paths).map(column).collect()
}

/// Objects in a form that shows them as they are, one or as a list. `None` for
/// the forms that are tables of a kind's own.
///
/// `list`: whether to make a list even of one.
///
/// # Errors
/// What the form does not fit.
pub fn render(
    output: &Output,
    objects: &[Value],
    list: bool,
    headers: bool,
) -> Result<Option<String>> {
    let format = match output {
        Output::Wide => return Ok(None),
        Output::Yaml => Format::Yaml,
        Output::Json => Format::Json,
        Output::Name => return Ok(Some(objects.iter().map(name_line).collect())),
        Output::JsonPath(template) => {
            let text = match (objects, list) {
                ([only], false) => template.render(only)?,
                _ => template.render(&list_of(objects))?,
            };
            return Ok(Some(text));
        }
        Output::Columns(columns) => return Ok(Some(table(columns, objects, headers)?)),
    };
    Ok(Some(print::objects(objects, list, format)?))
}

fn list_of(objects: &[Value]) -> Value {
    json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// `pod/web`, as scripts read it.
fn name_line(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("pod");
    let kind = Kind::parse(kind).map_or_else(|| kind.to_lowercase(), Kind::qualified);
    format!(
        "{kind}/{}\n",
        object["metadata"]["name"].as_str().unwrap_or_default()
    )
}

fn table(columns: &[(String, Template)], objects: &[Value], headers: bool) -> Result<String> {
    let header: Vec<&str> = columns.iter().map(|(header, _)| header.as_str()).collect();
    let mut rows = Vec::with_capacity(objects.len());
    for object in objects {
        let mut row = Vec::with_capacity(columns.len());
        for (_, path) in columns {
            let values = path.values(object);
            let texts: Vec<String> = values.into_iter().map(jsonpath::text_of).collect();
            row.push(match texts.is_empty() {
                true => "<none>".to_owned(),
                false => texts.join(","),
            });
        }
        rows.push(row);
    }
    Ok(print::table(headers.then_some(&header[..]), &rows))
}

/// Sorts objects by what stands at a path; those that have nothing there come first.
///
/// # Errors
/// A path that cannot be read.
pub fn sort_by<T>(path: &str, objects: &mut Vec<(Value, T)>) -> Result<()> {
    let path = Template::path(path)?;
    let mut keyed = Vec::with_capacity(objects.len());
    for (object, of) in objects.drain(..) {
        let key = path.values(&object).first().map(|value| (*value).clone());
        keyed.push((key, object, of));
    }
    keyed.sort_by(|(left, ..), (right, ..)| match (left, right) {
        (Some(left), Some(right)) => order(left, right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    });
    objects.extend(keyed.into_iter().map(|(_, object, of)| (object, of)));
    Ok(())
}

/// Texts that are quantities (`100m`, `1Gi`) are ordered as such.
fn order(left: &Value, right: &Value) -> Ordering {
    if let (Value::String(left), Value::String(right)) = (left, right)
        && let (Ok(left), Ok(right)) = (left.parse::<Quantity>(), right.parse::<Quantity>())
    {
        return left.cmp(&right);
    }
    jsonpath::compare(left, right).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Vec<Value> {
        vec![
            json!({"kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": [{"image": "x"}, {"image": "y"}]}, "n": "2Ki"}),
            json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}, "n": "1Mi"}),
        ]
    }

    fn rendered(form: &str) -> String {
        let output: Output = form.parse().expect(form);
        render(&output, &pods(), true, true)
            .expect(form)
            .expect("no table of a kind")
    }

    #[test]
    fn columns_and_templates_are_filled_in() {
        assert_eq!(
            rendered("custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[*].image"),
            "NAME   IMAGES\nb      x,y\na      <none>\n"
        );
        assert_eq!(
            rendered("custom-columns=N:metadata.name,I:.spec.containers[0,1].image")
                .lines()
                .count(),
            3
        );
        assert_eq!(rendered("jsonpath={.items[*].metadata.name}"), "b a");
        assert_eq!(rendered("name"), "pod/b\npod/a\n");
        assert!(rendered("json").starts_with("{\n    \"apiVersion\": \"v1\",\n    \"items\": ["));
    }

    #[test]
    fn quantities_texts_and_numbers_are_sorted_as_what_they_are() {
        for (path, first) in [(".n", "b"), ("{.metadata.name}", "a"), (".missing", "b")] {
            let mut objects: Vec<(Value, ())> = pods().into_iter().map(|pod| (pod, ())).collect();
            sort_by(path, &mut objects).expect(path);
            assert_eq!(objects[0].0["metadata"]["name"], first, "{path}");
        }
    }

    #[test]
    fn what_is_no_form_is_explained() {
        for (form, why) in [
            ("table", "allowed formats are: custom-columns"),
            ("jsonpath", "no template given"),
            ("jsonpath={.x", "unclosed action"),
            (
                "custom-columns=NAME",
                "unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>",
            ),
        ] {
            let error = form.parse::<Output>().expect_err(form);
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }
}
