//! From text to untyped values, one a document.
//!
//! YAML is read as Kubernetes reads it: 1.1's booleans (`yes`, `on`) and octal
//! numbers (`0644` is 420), no duplicate keys, no private tags. JSON is read
//! as the YAML that it is; JSON objects one after the other are told apart
//! first. Aliases, nesting, nodes and documents have limits, so that no small
//! file takes much time or memory.

use super::error::{ManifestError, Place, Problem, quote};
use super::source::Text;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::{Error, Options, Spanned};
use std::sync::Arc;

/// The most levels of lists and mappings inside one another.
const DEPTH: usize = 64;
/// The most documents of one source.
const DOCUMENTS: usize = 10_000;
/// The most values of one source.
const NODES: usize = 250_000;
/// The most values that aliases may stand for.
const ALIASED: usize = 100_000;
/// The most bytes of text, aliases expanded.
const BYTES: usize = 16 << 20;

/// One document that has content.
pub(super) struct Parsed {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// All documents of `text` that have content.
pub(super) fn parse(text: &Text) -> Result<Vec<Parsed>, ManifestError> {
    match json_stream(&text.text) {
        Some(objects) => parse_json_stream(text, &objects),
        None => parse_part(&text.file, &text.text, &Numbering::of(&text.text)),
    }
}

fn parse_json_stream(text: &Text, objects: &[&str]) -> Result<Vec<Parsed>, ManifestError> {
    let mut documents = Vec::new();
    let mut line = 1;
    for (i, object) in objects.iter().enumerate() {
        let numbering = Numbering::single(i + 1, line, object);
        if i >= DOCUMENTS {
            return Err(too_many_documents().at(&numbering.place(&text.file, 1)));
        }
        documents.extend(parse_part(&text.file, object, &numbering)?);
        line += newlines(object);
    }
    Ok(documents)
}

fn parse_part(
    file: &Arc<str>,
    text: &str,
    numbering: &Numbering,
) -> Result<Vec<Parsed>, ManifestError> {
    match serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options()) {
        Ok(documents) => Ok(documents
            .into_iter()
            .map(|document| Parsed {
                place: numbering.place(file, line(document.referenced.line())),
                value: document.value,
            })
            .collect()),
        Err(error) => {
            let at = error.location().map_or(1, |at| line(at.line()));
            Err(problem(&error, numbering.before as u64).at(&numbering.place(file, at)))
        }
    }
}

fn options() -> Options {
    let budget = serde_saphyr::budget! {
        max_depth: DEPTH,
        flow_nesting_limit: DEPTH,
        max_documents: DOCUMENTS,
        max_nodes: NODES,
        max_total_scalar_bytes: BYTES,
    };
    serde_saphyr::options! {
        budget: budget,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED },
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// `before`: the lines of the file that come before the parsed text.
fn problem(error: &Error, before: u64) -> Problem {
    let at = error.location();
    let (row, column) = at.map_or((0, 0), |at| (at.line() + before, at.column()));
    // What is wrong at an alias is told with the alias's own line.
    let cause = match error {
        Error::AliasError { error, .. } => error,
        other => other,
    };
    match cause {
        Error::DuplicateMappingKey { key, .. } => Problem::DuplicateKey {
            key: key.clone().unwrap_or_default(),
            line: row,
            column,
        },
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => Problem::Bomb(format!(
            "the aliases up to line {row} stand for more than {ALIASED} values"
        )),
        Error::Budget { breach, .. } => budget(breach, row),
        Error::RecursiveReferencesRequireWeakTypes { .. } => Problem::Syntax(format!(
            "an alias stands inside of the value that it names at line {row}, column {column}"
        )),
        // The scanner, which runs ahead of the budget, has no variant of its
        // own for this.
        Error::ExternalMessage { msg, .. } if msg.starts_with("recursion limit") => too_deep(row),
        Error::NonFiniteFloat { value, .. } => Problem::Syntax(format!(
            "the number {} at line {row}, column {column} is not finite (a text like this needs quotation marks)",
            one_line(value)
        )),
        Error::NullIntoString { .. } => {
            Problem::Syntax(format!("a key is missing at line {row}, column {column}"))
        }
        _ => {
            let options = serde_saphyr::render_options! { line_offset: before };
            Problem::Syntax(one_line(&error.render_with_options(options)))
        }
    }
}

fn budget(breach: &serde_saphyr::budget::BudgetBreach, line: u64) -> Problem {
    use serde_saphyr::budget::BudgetBreach;
    match breach {
        BudgetBreach::Depth { .. } => too_deep(line),
        BudgetBreach::Documents { .. } => too_many_documents(),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => Problem::Bomb(format!(
            "more than {NODES} values up to line {line}; split the file into several"
        )),
        BudgetBreach::ScalarBytes { .. } => Problem::Bomb(format!(
            "the aliases up to line {line} stand for more than {} MiB of text",
            BYTES >> 20
        )),
        other => Problem::Bomb(format!(
            "{} at line {line}",
            one_line(&format!("{other:?}"))
        )),
    }
}

fn too_deep(line: u64) -> Problem {
    Problem::Bomb(format!(
        "more than {DEPTH} lists and mappings inside one another at line {line}"
    ))
}

fn too_many_documents() -> Problem {
    Problem::Bomb(format!(
        "more than {DOCUMENTS} documents; split the file into several"
    ))
}

/// The parser quotes the user's text as it stands: here it loses line breaks,
/// control characters and excess length.
fn one_line(text: &str) -> String {
    let quoted = quote(text);
    quoted[1..quoted.len() - 1]
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}

fn line(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX).max(1)
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The objects of a text that is several JSON objects one after the other.
fn json_stream(text: &str) -> Option<Vec<&str>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut objects = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut start = 0;
    while let Some(object) = stream.next() {
        object.ok()?;
        let end = stream.byte_offset();
        objects.push(&text[start..end]);
        start = end;
    }
    (objects.len() > 1).then_some(objects)
}

/// Which document a line belongs to.
struct Numbering {
    /// The number of the first document.
    first: usize,
    /// Lines that come before the text that is numbered.
    before: usize,
    /// The documents with content, in order.
    documents: Vec<Begin>,
}

/// The lines, from 1, on which a document begins.
struct Begin {
    /// That of its `---`, or the first.
    marker: usize,
    /// That of its first content.
    content: usize,
}

impl Numbering {
    /// A line that begins with `---` begins a document wherever it stands,
    /// even inside a block of text (YAML 1.2, section 9.1.2).
    fn of(text: &str) -> Self {
        let mut documents = Vec::new();
        let mut open = Some(1);
        for (i, line) in text.lines().enumerate() {
            let marker = line
                .strip_prefix("---")
                .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
            if marker.is_some() {
                open = Some(i + 1);
            }
            let content = marker.unwrap_or(line).trim();
            let empty = content.is_empty()
                || content.starts_with(['#', '%'])
                || matches!(content, "..." | "null" | "~");
            if !empty && let Some(marker) = open.take() {
                let content = i + 1;
                documents.push(Begin { marker, content });
            }
        }
        Self {
            first: 1,
            before: 0,
            documents,
        }
    }

    /// One document, of this number, whose text begins on this line of its
    /// file, perhaps with empty lines.
    fn single(number: usize, line: usize, text: &str) -> Self {
        let empty = text.len() - text.trim_start().len();
        let content = newlines(&text[..empty]) + 1;
        Self {
            first: number,
            before: line - 1,
            documents: vec![Begin { marker: 1, content }],
        }
    }

    /// The place of the document that has this line of the text in it.
    fn place(&self, file: &Arc<str>, line: usize) -> Place {
        let begun = self.documents.partition_point(|begin| begin.marker <= line);
        let index = begun.saturating_sub(1);
        let content = self.documents.get(index).map_or(1, |begin| begin.content);
        Place {
            file: Arc::clone(file),
            document: self.first + index,
            line: self.before + content,
            item: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Parsed>, String> {
        let text = Text {
            file: Arc::from("\"t.yaml\""),
            text: text.to_owned(),
            named: true,
        };
        parse(&text).map_err(|error| error.to_string())
    }

    fn values(text: &str) -> Vec<Value> {
        let documents = parsed(text).expect("valid text");
        documents.into_iter().map(|d| d.value).collect()
    }

    #[test]
    fn numbers_and_booleans_are_read_as_kubernetes_reads_them() {
        let text =
            "octal: 0644\nyes: yes\non: \"on\"\nquoted: '0644'\ntime: 12:30\nnone: ~\n1: x\n";
        let want = serde_json::json!({
            "octal": 420, "yes": true, "on": "on", "quoted": "0644", "time": "12:30", "none": null, "1": "x"
        });
        assert_eq!(values(text), [want]);
    }

    #[test]
    fn json_is_read_with_its_escapes_and_tabs() {
        let want = serde_json::json!({"a": "x/y😀", "b": [1, 2]});
        let text = "{\n\t\"a\": \"x\\/y\\ud83d\\ude00\",\n\t\"b\": [1,\t2]\n}\n";
        assert_eq!(values(text)[0], want);
        let both = parsed(&format!("{text}\n{text}")).expect("two objects");
        assert_eq!(both.len(), 2);
        assert_eq!(both[1].value, want);
        assert_eq!((both[1].place.document, both[1].place.line), (2, 6));
    }

    #[test]
    fn documents_are_numbered_by_those_that_have_content() {
        let text = "# head\n---\n---\na: |\n  text\n---\n# nothing\n---\nnull\n--- {b: 1}\n...\n---\n\nc: 1\n";
        let places: Vec<_> = parsed(text)
            .expect("valid")
            .iter()
            .map(|d| (d.place.document, d.place.line))
            .collect();
        assert_eq!(places, [(1, 4), (2, 10), (3, 14)]);
    }

    #[test]
    fn an_error_names_the_document_it_stands_in() {
        for (text, want) in [
            (
                "a: 1\n---\na: 1\na: 2\n",
                "\"t.yaml\", document 2 (line 3): duplicate key \"a\" at line 4, column 1: remove one of the two",
            ),
            (
                "a: 1\n---\nb: 2\n c: 3\n",
                "\"t.yaml\", document 2 (line 3): not valid YAML or JSON: mapping values are not allowed in this context at line 4, column 3",
            ),
            (
                "{\"a\": 1}\n{\"a\": 1, \"a\": 2}\n",
                "\"t.yaml\", document 2 (line 2): duplicate key \"a\" at line 2, column 10: remove one of the two",
            ),
        ] {
            assert_eq!(parsed(text).err().as_deref(), Some(want));
        }
    }
}
