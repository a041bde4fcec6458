//! The forms that names take in Kubernetes
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).
//!
//! Each function says why a text does not have the form, in the API server's
//! words.

/// The most bytes of a DNS label.
pub const LABEL: usize = 63;
/// The most bytes of a DNS subdomain.
pub const SUBDOMAIN: usize = 253;
/// The most bytes of a port's name (RFC 6335, section 5.1).
const SERVICE: usize = 15;

type Checked = Result<(), String>;

/// A DNS label (RFC 1123): names of containers, volumes, namespaces, hosts.
///
/// # Errors
/// What such a label must consist of.
pub fn label(text: &str) -> Checked {
    no_longer_than(LABEL, text)?;
    if is_label(text) {
        return Ok(());
    }
    Err(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
         end with an alphanumeric character (e.g. 'my-name' or '123-abc')"
            .to_owned(),
    )
}

/// A DNS subdomain (RFC 1123): names of most objects.
///
/// # Errors
/// What such a name must consist of.
pub fn subdomain(text: &str) -> Checked {
    no_longer_than(SUBDOMAIN, text)?;
    if text.split('.').all(is_label) {
        return Ok(());
    }
    Err(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
         start and end with an alphanumeric character (e.g. 'example.com')"
            .to_owned(),
    )
}

/// A search domain of a resolver: a subdomain in which `_` is allowed, or the
/// empty domain.
pub(super) fn search_domain(text: &str) -> Checked {
    match text.is_empty() {
        true => Ok(()),
        false => subdomain(&text.replace('_', "x")),
    }
}

/// The key of a label or annotation: `name` or `domain/name`.
pub(in crate::kube) fn qualified(text: &str) -> Checked {
    let name = match text.split_once('/') {
        None => text,
        Some(("", _)) => return Err("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
    };
    if name.is_empty() {
        return Err("name part must be non-empty".to_owned());
    }
    no_longer_than(LABEL, name).map_err(|why| format!("name part {why}"))?;
    if is_bounded_by_alphanumerics(name) {
        return Ok(());
    }
    Err(
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName', 'my.name' or 'example.com/MyName')"
            .to_owned(),
    )
}

/// The value of a label.
pub(in crate::kube) fn label_value(text: &str) -> Checked {
    no_longer_than(LABEL, text)?;
    if text.is_empty() || is_bounded_by_alphanumerics(text) {
        return Ok(());
    }
    Err(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
         start and end with an alphanumeric character (e.g. 'MyValue' or '12345')"
            .to_owned(),
    )
}

/// The key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Checked {
    no_longer_than(SUBDOMAIN, text)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name', or \
             'KEY_NAME', or 'key-name')"
                .to_owned(),
        );
    }
    match text {
        "." => Err("must not be '.'".to_owned()),
        ".." => Err("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Err("must not start with '..'".to_owned()),
        _ => Ok(()),
    }
}

/// The name of an environment variable.
pub(super) fn variable(text: &str) -> Checked {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=') {
        return Ok(());
    }
    Err(
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    )
}

/// The name of a port (RFC 6335, section 5.1).
pub(super) fn service(text: &str) -> Checked {
    no_longer_than(SERVICE, text)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.bytes().all(plain) {
        return Err(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        return Err("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("must not begin or end with a hyphen".to_owned());
    }
    Ok(())
}

fn no_longer_than(most: usize, text: &str) -> Checked {
    match text.len() > most {
        true => Err(format!("must be no more than {most} bytes")),
        false => Ok(()),
    }
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bounded(text, alphanumeric, b"-")
}

fn is_bounded_by_alphanumerics(text: &str) -> bool {
    bounded(text, u8::is_ascii_alphanumeric, b"-_.")
}

/// Not empty, `ends` at both ends, `ends` or one of `between` in between.
fn bounded(text: &str, ends: impl Fn(&u8) -> bool, between: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(&ends)
        && bytes.last().is_some_and(&ends)
        && bytes.iter().all(|b| ends(b) || between.contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(check: fn(&str) -> Checked, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_have_the_forms_of_the_documentation() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        all(
            label,
            &["a", "0", "my-name", "123-abc", "a--b", &long],
            &[
                "", "-", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", "../x", &longer,
            ],
        );
        let (deep, deeper) = ("a.".repeat(126) + "a", "a.".repeat(127) + "a");
        all(
            subdomain,
            &["a", "a.b", "example.com", "a-b.c-d", &longer, &deep],
            &["", ".", "a.", ".a", "a..b", "a.-b", "A.b", "a/b", &deeper],
        );
        all(
            qualified,
            &["a", "MyName", "my.name_x-1", "example.com/MyName", &long],
            &["", "/a", "a/", "a/b/c", "Ex.com/a", "-a", "a b", &longer],
        );
        all(
            label_value,
            &["", "a", "A_b.c-d", "1"],
            &["-", "a-", "a b", "ä", &longer],
        );
        all(
            variable,
            &["A", "a.b-c", "1A", "A B", "/"],
            &["A=B", "A\n", "Ä"],
        );
        all(
            service,
            &["http", "h2", "a-b", "web-8080"],
            &[
                "",
                "80",
                "-a",
                "a-",
                "a--b",
                "HTTP",
                "a_b",
                "sixteen-letters1",
            ],
        );
        all(search_domain, &["", "a.b", "_tcp.a"], &["a b", "a\nb"]);
    }
}
