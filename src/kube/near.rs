//! "Did you mean": the known name that a mistyped one most likely stands for.

/// Names longer than this are no typing mistakes, and comparing them costs.
const LONGEST: usize = 64;

/// The candidate that differs from `word` in letter case alone or by at most
/// two (one, for words under five letters) inserted, dropped or changed
/// characters.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let allowed = if word.len() < 5 { 1 } else { 2 };
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| match candidate.eq_ignore_ascii_case(word) {
            true => (0, candidate),
            false => (distance(word, candidate), candidate),
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `(did you mean "…"?)` with a space before it, or nothing.
pub(super) fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}

/// Levenshtein's distance, row by row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_find_the_name_that_was_meant() {
        let names = ["image", "imagePullPolicy", "volumeMounts", "env", "args"];
        for (word, want) in [
            ("imagee", Some("image")),
            ("iamge", Some("image")),
            ("volumemounts", Some("volumeMounts")),
            ("volumMounts", Some("volumeMounts")),
            ("arg", Some("args")),
            ("x", None),
            ("command", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), want, "{word}");
        }
        assert_eq!(nearest(&"image".repeat(1000), names), None);
    }
}
