//! Names that may become part of a path.
//!
//! Names, labels and annotations of claims are the words of whoever may create a
//! claim, and the parts of a path that is made, and later deleted, as root. So none
//! becomes part of a path before it has passed [`component`]: `..`, slashes of both
//! kinds, emptiness and control characters are refused, never repaired
//! (CVE-2025-62878 and CVE-2026-3864 are what comes of repairing).

use std::ffi::OsStr;

/// The most bytes of one component of a path (`NAME_MAX`).
const LONGEST: usize = 255;
/// The most components of the path of one volume.
const DEEPEST: usize = 16;

/// One component of a path: no way out of the directory that it is looked up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component(String);

impl Component {
    /// As the kernel takes it.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::new(&self.0)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that may not become part of a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} cannot be part of a path: {why}")]
pub struct UnsafeName {
    /// What the text is, as in `the name of the claim`.
    what: String,
    text: String,
    why: &'static str,
}

/// `text` as one component of a path.
///
/// # Errors
/// What is wrong with it; `what` says what it is.
pub fn component(what: &str, text: &str) -> Result<Component, UnsafeName> {
    let why = match text {
        "" => Some("it is empty"),
        "." | ".." => Some("it stands for another directory"),
        _ if text.contains(['/', '\\']) => Some("it has a slash in it"),
        _ if text.contains('\0') => Some("it has a NUL in it"),
        _ if text.chars().any(char::is_control) => Some("it has a control character in it"),
        _ if text.len() > LONGEST => Some("it is longer than 255 bytes"),
        _ => None,
    };
    match why {
        None => Ok(Component(text.to_owned())),
        Some(why) => Err(refused(what, text, why)),
    }
}

/// A relative path as its components, of which there is one at the least.
///
/// # Errors
/// As [`component`], for the first that is wrong.
pub fn components(what: &str, path: &str) -> Result<Vec<Component>, UnsafeName> {
    let all: Result<Vec<_>, _> = path.split('/').map(|part| component(what, part)).collect();
    let all = all.map_err(|error| refused(what, path, error.why))?;
    match all.len() > DEEPEST {
        true => Err(refused(what, path, "it has more than 16 components")),
        false => Ok(all),
    }
}

/// Components with slashes between them.
#[must_use]
pub fn joined(components: &[Component]) -> String {
    let parts: Vec<&str> = components.iter().map(Component::as_str).collect();
    parts.join("/")
}

fn refused(what: &str, text: &str, why: &'static str) -> UnsafeName {
    UnsafeName {
        what: what.to_owned(),
        text: text.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_leads_elsewhere_becomes_a_component() {
        let bad = [
            "", ".", "..", "/", "a/b", "../x", "a\\b", "..\\x", "a\0b", "\0", "a\nb", "\u{7f}",
        ];
        for text in bad {
            let error = component("the name", text).expect_err(text).to_string();
            assert!(error.starts_with("the name "), "{error}");
            let inside = format!("a/{text}/b");
            // What is a path of two good components by itself is one inside, too.
            let is_path = matches!(text, "a/b");
            assert_eq!(
                components("the path", &inside).is_ok(),
                is_path,
                "{inside:?}"
            );
        }
        assert!(component("the name", &"x".repeat(256)).is_err());
        for good in [
            "a",
            "...",
            "..a",
            ".hidden",
            "a b",
            "ünicode",
            &"x".repeat(255),
        ] {
            assert_eq!(component("the name", good).expect(good).as_str(), good);
        }
        assert!(components("the path", "/a").is_err() && components("the path", "a/").is_err());
        assert!(components("the path", &["a"; 17].join("/")).is_err());
        let path = components("the path", "a/b/..c").expect("a path");
        assert_eq!(joined(&path), "a/b/..c");
    }
}
