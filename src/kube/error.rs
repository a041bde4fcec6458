//! What can be wrong with a manifest: one sentence each, naming file,
//! document, field and reason.

use super::field::FieldError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Findings that one sentence lists before it says how many more there are.
const LISTED: usize = 10;
/// Characters of a user's text that a sentence quotes.
const QUOTED: usize = 96;

/// Why no object of the sources was returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A path that names nothing.
    #[error("the path {} does not exist{hint}", quote(path))]
    Missing {
        /// The path as the user wrote it.
        path: String,
        /// What to do instead, with a space before it, or nothing.
        hint: &'static str,
    },
    /// A file or directory that can't be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file's name, quoted.
        file: Arc<str>,
        /// What the system said.
        source: io::Error,
    },
    /// A file of more bytes than any object may have.
    #[error(
        "{file} is larger than the {} MiB that a manifest may have; split it into several files",
        limit >> 20
    )]
    TooLarge {
        /// The file's name, quoted.
        file: Arc<str>,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A file that holds no text.
    #[error("{file} is not a manifest: {reason}")]
    NotText {
        /// The file's name, quoted.
        file: Arc<str>,
        /// What was found in it, and where.
        reason: String,
    },
    /// A directory without a single manifest.
    #[error(
        "no manifest in the directory {file}: recognized file extensions are .json, .yaml and .yml"
    )]
    NoManifests {
        /// The directory's name, quoted.
        file: Arc<str>,
    },
    /// Nothing but comments and empty documents.
    #[error("no objects passed to apply ({file} has no object in it)")]
    Empty {
        /// The file's name, quoted.
        file: Arc<str>,
    },
    /// A document that is wrong.
    #[error("{place}: {problem}")]
    Document {
        /// Where it stands.
        place: Place,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// Where an object stands: `"pod.yaml", document 2 (line 14), items[3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name, quoted, or `standard input`.
    pub file: Arc<str>,
    /// The document's number, from 1; documents without content don't count.
    pub document: usize,
    /// The line of the file, from 1, on which the document begins.
    pub line: usize,
    /// For an object of a `List`: the path to it, as in `items[3]`.
    pub item: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            document,
            line,
            item,
        } = self;
        write!(f, "{file}, document {document} (line {line})")?;
        if !item.is_empty() {
            write!(f, ", {item}")?;
        }
        Ok(())
    }
}

/// What is wrong with a document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Neither YAML nor JSON.
    #[error("not valid YAML or JSON: {0}")]
    Syntax(String),
    /// The same key twice in one mapping.
    #[error(
        "duplicate key {} at line {line}, column {column}: remove one of the two",
        quote(key)
    )]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of the second, from 1.
        line: u64,
        /// The column of the second, from 1.
        column: u64,
    },
    /// Legal YAML that would take too much time or memory.
    #[error("refused as harmful: {0}")]
    Bomb(String),
    /// Something else where an object should be.
    #[error("expected an object with apiVersion, kind and metadata, found {0}")]
    NotAnObject(String),
    /// An object that doesn't say what it is.
    #[error("{0} not set (a pod begins with \"apiVersion: v1\" and \"kind: Pod\")")]
    NotSet(&'static str),
    /// A kind that Kubernetes doesn't have in this version of its API.
    #[error(
        "no matches for kind {} in version {}{hint}",
        quote(kind),
        quote(version)
    )]
    NoMatch {
        /// The object's kind.
        kind: String,
        /// The object's apiVersion.
        version: String,
        /// What was probably meant, with a space before it, or nothing.
        hint: String,
    },
    /// A kind of Kubernetes that this program doesn't have.
    #[error("kind {kind:?} is not supported by this version of orlop")]
    KindNotSupported {
        /// The object's kind.
        kind: String,
    },
    /// A value of the wrong type.
    #[error("{field}: expected {expected}, found {found}")]
    Type {
        /// The field's path.
        field: String,
        /// What the field takes.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A value that its type can't take in, in the words of the type.
    #[error("{field}: {reason}")]
    Value {
        /// The field's path.
        field: String,
        /// Why it can't be taken.
        reason: String,
    },
    /// Fields that Kubernetes doesn't have.
    #[error("strict decoding error: {}", list(.0))]
    Strict(Vec<String>),
    /// Fields of Kubernetes that this program doesn't have; ignoring them
    /// would change what the object means.
    #[error(
        "{} {} not supported by this version of orlop",
        list(.0),
        if .0.len() == 1 { "is" } else { "are" }
    )]
    NotSupported(Vec<String>),
    /// Values that make no sense.
    #[error("The {kind} {} is invalid: {}", quote(name), findings_line(.findings))]
    Invalid {
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// What is wrong, field by field.
        findings: Vec<FieldError>,
    },
    /// The namespace of the object is not the one that was asked for.
    #[error(
        "the namespace from the provided object {} does not match the namespace {}; you must pass '--namespace={}' to perform this operation",
        quote(found),
        quote(asked),
        found
    )]
    Namespace {
        /// The object's own namespace.
        found: String,
        /// The namespace that was asked for.
        asked: String,
    },
    /// The same object twice.
    #[error("{object} was already defined in {first}; remove or rename one of the two")]
    Duplicate {
        /// Kind, namespace and name, as in `Pod "default/web"`.
        object: String,
        /// Where it stands first.
        first: Place,
    },
}

impl Problem {
    pub(super) fn at(self, place: &Place) -> ManifestError {
        ManifestError::Document {
            place: place.clone(),
            problem: Box::new(self),
        }
    }
}

/// A user's text as a sentence shows it: in quotation marks, on one line,
/// without control characters, and cut when it is long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let mut text = items
        .iter()
        .take(LISTED)
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > LISTED {
        text.push_str(&format!(" and {} more", items.len() - LISTED));
    }
    text
}

/// Findings on one object as the end of a sentence.
pub fn findings_line(findings: &[FieldError]) -> String {
    match findings {
        [one] => one.to_string(),
        several => format!("[{}]", list(several)),
    }
}
