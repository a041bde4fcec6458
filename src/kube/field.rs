//! What is wrong with a field, in the words of the Kubernetes API server.

use super::error::quote;
use std::fmt;

/// One finding of validation: `spec.containers[0].image: Required value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's path from the object's root, as in
    /// `spec.containers[0].volumeMounts[1].name`.
    pub field: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// The kinds of fault that an API server tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The field must be set; the text may say to what.
    Required(&'static str),
    /// The value, ready to be shown, and why it won't do.
    Invalid(String, String),
    /// The value, ready to be shown, names something that isn't there.
    NotFound(String),
    /// The value, ready to be shown, stands here for the second time.
    Duplicate(String),
    /// The value, ready to be shown, is none of those that are possible.
    Unsupported(String, &'static [&'static str]),
    /// The field may not be set, and why.
    Forbidden(&'static str),
    /// The value is longer than so many bytes.
    TooLong(usize),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.field)?;
        match &self.fault {
            Fault::Required("") => f.write_str("Required value"),
            Fault::Required(why) => write!(f, "Required value: {why}"),
            Fault::Invalid(value, why) => write!(f, "Invalid value: {value}: {why}"),
            Fault::NotFound(value) => write!(f, "Not found: {value}"),
            Fault::Duplicate(value) => write!(f, "Duplicate value: {value}"),
            Fault::Unsupported(value, possible) => {
                write!(f, "Unsupported value: {value}: supported values: ")?;
                for (i, value) in possible.iter().enumerate() {
                    write!(f, "{}{value:?}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Fault::Forbidden(why) => write!(f, "Forbidden: {why}"),
            Fault::TooLong(bytes) => {
                write!(f, "Too long: may not be more than {bytes} bytes")
            }
        }
    }
}

/// The findings on one object, in the order of its fields.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<FieldError>);

impl Findings {
    pub(super) fn required(&mut self, field: impl Into<String>, why: &'static str) {
        self.add(field, Fault::Required(why));
    }

    pub(super) fn invalid(
        &mut self,
        field: impl Into<String>,
        value: &str,
        why: impl Into<String>,
    ) {
        self.add(field, Fault::Invalid(quote(value), why.into()));
    }

    /// For numbers and booleans, which are shown without quotation marks.
    pub(super) fn invalid_plain(
        &mut self,
        field: impl Into<String>,
        value: impl fmt::Display,
        why: impl Into<String>,
    ) {
        self.add(field, Fault::Invalid(value.to_string(), why.into()));
    }

    pub(super) fn not_found(&mut self, field: impl Into<String>, value: &str) {
        self.add(field, Fault::NotFound(quote(value)));
    }

    pub(super) fn duplicate(&mut self, field: impl Into<String>, value: &str) {
        self.add(field, Fault::Duplicate(quote(value)));
    }

    pub(super) fn forbidden(&mut self, field: impl Into<String>, why: &'static str) {
        self.add(field, Fault::Forbidden(why));
    }

    pub(super) fn too_long(&mut self, field: impl Into<String>, bytes: usize) {
        self.add(field, Fault::TooLong(bytes));
    }

    /// Finds fault with a value that is set and is none of the possible ones.
    pub(super) fn one_of(
        &mut self,
        field: impl Into<String>,
        value: Option<&str>,
        possible: &'static [&'static str],
    ) {
        if let Some(value) = value.filter(|value| !possible.contains(value)) {
            self.add(field, Fault::Unsupported(quote(value), possible));
        }
    }

    /// Finds fault with a number outside of `range`.
    pub(super) fn between(
        &mut self,
        field: impl Into<String>,
        value: i64,
        range: std::ops::RangeInclusive<i64>,
    ) {
        if !range.contains(&value) {
            let (low, high) = range.into_inner();
            let why = format!("must be between {low} and {high}, inclusive");
            self.invalid_plain(field, value, why);
        }
    }

    fn add(&mut self, field: impl Into<String>, fault: Fault) {
        let field = field.into();
        self.0.push(FieldError { field, fault });
    }
}

/// `parent[key]`, as the API server writes the path to an entry of a map.
pub(super) fn entry(parent: &str, key: &str) -> String {
    let shown = quote(key);
    format!("{parent}[{}]", &shown[1..shown.len() - 1])
}
