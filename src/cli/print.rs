//! What kubectl's users know by heart: tables, pages, YAML, JSON, and the
//! words of its errors.

use std::fmt;
use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

use crate::kube::error::Problem;
use crate::kube::kind::Kind;
use crate::storage::store::StoreError;

/// Spaces between the columns of a table, and its narrowest column.
const TABLE: Layout = Layout {
    gap: 3,
    narrowest: 6,
};
/// Spaces between the columns of a page that describes an object.
const PAGE: Layout = Layout {
    gap: 2,
    narrowest: 0,
};

/// A kind of object, as a command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `pods`, `pod`, `po`.
    Pods,
    /// A kind that is only declared: `configmaps`, `configmap`, `cm`.
    Of(Kind),
    /// `all`: every kind that users work with daily.
    All,
}

impl Resource {
    /// The kind that a user means, in kubectl's plural, singular or short form,
    /// capitalised or not, with or without its version (`pods.v1.`).
    ///
    /// # Errors
    /// kubectl's sentence, naming what was typed.
    pub fn parse(typed: &str) -> anyhow::Result<Self> {
        match Kind::parse(typed) {
            Some(Kind::Pod) => Ok(Self::Pods),
            Some(kind) => Ok(Self::Of(kind)),
            None if typed.eq_ignore_ascii_case("all") => Ok(Self::All),
            None => anyhow::bail!("the server doesn't have a resource type {typed:?}"),
        }
    }

    /// The kind; `all` is pods.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Pods | Self::All => Kind::Pod,
            Self::Of(kind) => kind,
        }
    }

    /// For commands that work on pods alone.
    ///
    /// # Errors
    /// One sentence, naming what was typed, for any other kind.
    pub fn only_pods(self, typed: &str) -> anyhow::Result<()> {
        match self {
            Self::Pods | Self::All => Ok(()),
            Self::Of(_) => anyhow::bail!("{typed:?} are not pods: this works on pods only"),
        }
    }
}

/// The objects that a command line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Their kind.
    pub resource: Resource,
    /// Their names; none: all of the kind.
    pub names: Vec<String>,
}

impl Selection {
    /// Takes `TYPE [NAME…]` or `TYPE/NAME…` apart, for a command that works on pods
    /// alone. `verb` is for the error texts.
    ///
    /// # Errors
    /// One sentence for no type, an unknown one, both forms at once, or other kinds
    /// than pods.
    pub fn parse(verb: &str, words: &[String]) -> anyhow::Result<Self> {
        let mut pods = Self {
            resource: Resource::Pods,
            names: Vec::new(),
        };
        for selection in Self::parse_all(verb, words)? {
            let typed = selection.resource.kind().plural();
            selection.resource.only_pods(typed)?;
            pods.resource = selection.resource;
            pods.names.extend(selection.names);
        }
        Ok(pods)
    }

    /// Takes `TYPE[,TYPE…] [NAME…]` or `TYPE/NAME…` apart: one selection for each
    /// type, in the order in which they were typed. `verb` is for the error texts.
    ///
    /// # Errors
    /// One sentence for no type, an unknown one, or both forms at once.
    pub fn parse_all(verb: &str, words: &[String]) -> anyhow::Result<Vec<Self>> {
        let Some(first) = words.first() else {
            anyhow::bail!("say which kind of object: orlop {verb} pods");
        };
        let mut selections: Vec<Self> = Vec::new();
        if !words.iter().any(|word| word.contains('/')) {
            for typed in first.split(',') {
                let resource = Resource::parse(typed)?;
                if selections.iter().all(|known| known.resource != resource) {
                    let names = words[1..].to_vec();
                    selections.push(Self { resource, names });
                }
            }
            return Ok(selections);
        }
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                anyhow::bail!(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'orlop {verb} pod/NAME' instead of 'orlop {verb} pod pod/NAME')"
                );
            };
            let resource = Resource::parse(kind)?;
            if resource == Resource::All || name.is_empty() || name.contains('/') {
                anyhow::bail!(
                    "arguments in resource/name form must have a single resource and name: {word:?}"
                );
            }
            match selections.last_mut() {
                Some(last) if last.resource == resource => last.names.push(name.to_owned()),
                _ => selections.push(Self {
                    resource,
                    names: vec![name.to_owned()],
                }),
            }
        }
        Ok(selections)
    }
}

/// What a command has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub out: String,
    /// For standard error, a line each.
    pub errors: Vec<String>,
    /// Whether the command failed.
    pub failed: bool,
}

impl Answer {
    /// Says that there is nothing, which is no failure.
    pub fn nothing(namespace: Option<&str>) -> Self {
        let where_ = namespace
            .map(|name| format!(" in {name} namespace."))
            .unwrap_or_default();
        Self {
            errors: vec![format!("No resources found{where_}")],
            ..Self::default()
        }
    }

    /// Adds that an object of that name is not there, which is a failure.
    pub fn missing(&mut self, resource: &'static str, name: &str) {
        let name = name.to_owned();
        self.errors
            .push(error_line(&StoreError::NotFound { resource, name }.into()));
        self.failed = true;
    }

    /// Writes everything out and tells how the command ends. A reader that has
    /// gone away (`orlop get pods | head -1`) is no error.
    ///
    /// # Errors
    /// Those of writing to standard output.
    pub fn say(&self) -> anyhow::Result<std::process::ExitCode> {
        say(format_args!("{}", self.out))?;
        for line in &self.errors {
            note(format_args!("{line}"));
        }
        Ok(u8::from(self.failed).into())
    }
}

/// Writes to standard output. A reader that has gone away
/// (`orlop get pods | head -1`) is no error, and stops nothing.
///
/// # Errors
/// Any other reason why it cannot be written.
pub fn say(text: fmt::Arguments) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// [`say`], which also tells whether somebody still reads.
///
/// # Errors
/// The same.
pub fn say_on(text: fmt::Arguments) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => {
            result.map_err(|error| {
                anyhow::Error::new(error).context("cannot write to standard output")
            })?;
            Ok(true)
        }
    }
}

/// Writes a line to standard error, as far as somebody reads it: there is no
/// other place to tell about it.
pub fn note(line: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The last line of a command that failed: kubectl's words where kubectl
/// has some, `error: …` with all causes otherwise.
pub fn error_line(error: &anyhow::Error) -> String {
    if let Some(Problem::Invalid { .. }) = error.downcast_ref() {
        return format!("{error:#}");
    }
    let reason = match error.downcast_ref::<StoreError>() {
        Some(StoreError::NotFound { .. }) => "NotFound",
        Some(StoreError::AlreadyExists { .. }) => "AlreadyExists",
        Some(StoreError::Conflict { .. }) => "Conflict",
        Some(StoreError::BadRequest { .. }) => "BadRequest",
        Some(StoreError::NotAllowed { .. }) => "Forbidden",
        Some(StoreError::Forbidden { .. } | StoreError::Refused { .. }) => {
            return format!("The {error:#}");
        }
        _ => return format!("error: {error:#}"),
    };
    format!("Error from server ({reason}): {error:#}")
}

/// A table as kubectl lays it out: columns of at least six characters, three
/// spaces between them, none at the end of a line.
///
/// `header`: in capitals; none for no header line. A cell with several lines
/// shows the first and `...`.
pub fn table(header: Option<&[&str]>, rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    if let Some(header) = header {
        text += &header.join("\t");
        text.push('\n');
    }
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| first_line(cell)).collect();
        text += &cells.join("\t");
        text.push('\n');
    }
    TABLE.align(&text)
}

fn first_line(cell: &str) -> String {
    match cell.split_once(['\n', '\r', '\u{c}']) {
        Some((line, _)) => printable(line) + "...",
        None => printable(cell),
    }
}

/// A text that comes from a manifest or a container, made harmless to a
/// terminal and to the columns around it: tabs become spaces, other control
/// characters than line ends become visible.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => clean.push_str("    "),
            '\n' => clean.push('\n'),
            '\u{1b}' => clean.push_str("^["),
            other if other.is_control() => clean.extend(other.escape_default()),
            other => clean.push(other),
        }
    }
    clean
}

/// A page that describes an object: `Key:`, a tab, and a value on each line;
/// keys of neighbouring lines are padded to one width.
#[derive(Debug)]
pub struct Page {
    done: String,
    text: String,
    zone: TimeZone,
}

impl Page {
    /// An empty page, whose dates are those of a time zone.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            done: String::new(),
            text: String::new(),
            zone,
        }
    }

    /// A line at a depth of two spaces a level. Tabs separate columns; `text`
    /// must have gone through [`printable`] where it comes from elsewhere.
    pub fn line(&mut self, level: usize, text: impl AsRef<str>) {
        self.text += &"  ".repeat(level);
        self.text += text.as_ref();
        self.text.push('\n');
    }

    /// `Key:` and a value, which is made printable; further lines of the
    /// value go below its first.
    pub fn entry(&mut self, level: usize, key: &str, value: impl AsRef<str>) {
        let value = printable(value.as_ref());
        let mut lines = value.split('\n');
        self.line(
            level,
            format!("{key}:\t{}", lines.next().unwrap_or_default()),
        );
        for line in lines {
            self.line(level, format!("\t{line}"));
        }
    }

    /// `Key:` and a moment, as kubectl writes it: RFC 1123 with a numeric zone.
    pub fn date(&mut self, level: usize, key: &str, time: Timestamp) {
        let zoned = time.to_zoned(self.zone.clone());
        let text = zoned.strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
        self.entry(level, key, text);
    }

    /// Ends the columns here: those below get widths of their own.
    pub fn break_columns(&mut self) {
        self.done += &PAGE.align(&std::mem::take(&mut self.text));
    }

    /// The page as text.
    pub fn finish(mut self) -> String {
        self.break_columns();
        self.done
    }
}

#[derive(Clone, Copy)]
struct Layout {
    gap: usize,
    narrowest: usize,
}

impl Layout {
    /// Replaces tabs by spaces such that what stands before the n-th tab of
    /// neighbouring lines is equally wide. Lines without an n-th tab keep those
    /// above and below apart.
    fn align(self, text: &str) -> String {
        let mut lines: Vec<Vec<String>> = text
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect();
        let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns {
            for block in lines.chunk_by_mut(|a, b| (a.len() > column + 1) == (b.len() > column + 1))
            {
                if block[0].len() <= column + 1 {
                    continue;
                }
                let widest = block.iter().map(|line| line[column].chars().count()).max();
                let width = (widest.unwrap_or(0) + self.gap).max(self.narrowest);
                for line in block {
                    let cell = &mut line[column];
                    cell.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
                }
            }
        }
        lines.into_iter().map(|line| line.concat() + "\n").collect()
    }
}

/// How an object is written out in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `-o yaml`.
    Yaml,
    /// `-o json`.
    Json,
}

/// One object, or several as a `List`, written out in full with sorted keys.
///
/// `list`: whether to write a list even of one.
///
/// # Errors
/// When an object cannot be written in that format.
pub fn objects(objects: &[impl Serialize], list: bool, format: Format) -> anyhow::Result<String> {
    let mut items = objects
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<Value>, _>>()?;
    let object = match items.pop() {
        Some(only) if items.is_empty() && !list => only,
        last => {
            items.extend(last);
            json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
        }
    };
    match format {
        Format::Yaml => yaml(&object),
        Format::Json => json_text(&object),
    }
}

/// YAML in kubectl's style: blocks, list items not indented. Long texts are not
/// folded, and IPv4 addresses are quoted: readers of YAML 1.1 may take them for numbers.
///
/// # Errors
/// The serializer's.
pub fn yaml(object: &Value) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! {
        folded_wrap_chars: usize::MAX,
    };
    Ok(serde_saphyr::to_string_with_options(object, options)?)
}

/// JSON in kubectl's style: four spaces a level, with a line end.
///
/// # Errors
/// The serializer's.
pub fn json_text(object: &Value) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    object.serialize(&mut serializer)?;
    text.push(b'\n');
    Ok(String::from_utf8(text)?)
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;
