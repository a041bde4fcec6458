//! How a text from a manifest is shown in an error.

/// Characters of a text that are shown.
const QUOTED: usize = 80;

pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
    }
}
