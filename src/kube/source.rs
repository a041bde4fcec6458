//! From what the user named to text: files, directories, standard input.

use super::error::{ManifestError, quote};
use super::manifest::Source;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes one source may have. No object of Kubernetes is larger than
/// 1.5 MiB (etcd refuses those), so this is room for many.
pub const LARGEST: u64 = 4 << 20;

const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// The text of one file.
pub(super) struct Text {
    /// The file's name as sentences show it: quoted, or `standard input`.
    pub(super) file: Arc<str>,
    /// Valid UTF-8 without a byte order mark and without NUL bytes.
    pub(super) text: String,
    /// Whether the user named this very file, or only the directory it is in.
    pub(super) named: bool,
}

/// One file to read, not opened yet.
pub(super) enum Input {
    Stdin,
    File { path: PathBuf, named: bool },
}

/// The files that `source` stands for: itself, or what a directory holds.
pub(super) fn inputs(source: &Source) -> Result<Vec<Input>, ManifestError> {
    let path = match source {
        Source::Stdin => return Ok(vec![Input::Stdin]),
        Source::Path(path) => path,
    };
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => missing(path),
        _ => unreadable(path, source),
    })?;
    if !metadata.is_dir() {
        return Ok(vec![Input::File {
            path: path.clone(),
            named: true,
        }]);
    }
    let files = manifests_in(path).map_err(|source| unreadable(path, source))?;
    if files.is_empty() {
        return Err(ManifestError::NoManifests { file: shown(path) });
    }
    let unnamed = |path| Input::File { path, named: false };
    Ok(files.into_iter().map(unnamed).collect())
}

/// Reads one file, at most [`LARGEST`] bytes of it.
pub(super) fn read(input: Input, stdin: &mut dyn Read) -> Result<Text, ManifestError> {
    let (file, named, bytes) = match input {
        Input::Stdin => (
            Arc::from("standard input"),
            true,
            bounded(stdin, 0).map_err(|source| ManifestError::Read {
                file: Arc::from("standard input"),
                source,
            })?,
        ),
        Input::File { path, named } => {
            let bytes = read_file(&path).map_err(|source| unreadable(&path, source))?;
            (shown(&path), named, bytes)
        }
    };
    let Some(bytes) = bytes else {
        let limit = LARGEST;
        return Err(ManifestError::TooLarge { file, limit });
    };
    let text = match text(bytes) {
        Ok(text) => text,
        Err(reason) => return Err(ManifestError::NotText { file, reason }),
    };
    Ok(Text { file, text, named })
}

fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let known = path.extension().is_some_and(|extension| {
            EXTENSIONS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        });
        // A link that leads nowhere is kept, so that reading it names it.
        if known && std::fs::metadata(&path).map_or(true, |file| file.is_file()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > LARGEST {
        return Ok(None);
    }
    bounded(&mut file, length)
}

/// All bytes of `input`, or nothing when there are too many.
fn bounded(input: &mut dyn Read, expected: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    input.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= LARGEST).then_some(bytes))
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("its text is UTF-16; save it as UTF-8".to_owned());
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let line = line_of(&bytes, at);
        return Err(format!("it has a NUL byte on line {line}"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        format!("line {line} is not UTF-8 text")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(marked) => marked.to_owned(),
        None => text,
    })
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count()
}

fn missing(path: &Path) -> ManifestError {
    let path = path.to_string_lossy().into_owned();
    let remote = path.starts_with("http://") || path.starts_with("https://");
    let hint = if remote {
        " (addresses are not fetched: download the file first)"
    } else {
        ""
    };
    ManifestError::Missing { path, hint }
}

fn unreadable(path: &Path, source: io::Error) -> ManifestError {
    let file = shown(path);
    ManifestError::Read { file, source }
}

fn shown(path: &Path) -> Arc<str> {
    Arc::from(quote(&path.to_string_lossy()))
}
