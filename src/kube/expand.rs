//! `$(VAR)` in `command`, `args` and `env` values.
//!
//! The rules are those of the Kubernetes API (`Container.command` in the v1
//! reference): `$(VAR)` becomes the variable's value, `$$` becomes `$` (so that
//! `$$(VAR)` gives a literal `$(VAR)`), a reference to an unknown variable
//! stays as it is written, and so does a `$(` that is never closed.

/// Replaces the references in `text` by what `lookup` knows of them. Values
/// are put in as they are: a `$(…)` inside a value is not expanded again.
///
/// ```
/// # use orlop::kube::expand::expand;
/// let lookup = |name: &str| (name == "NAME").then_some("orlop");
/// assert_eq!(expand("$(NAME) $$(NAME) $(OTHER)", lookup), "orlop $(NAME) $(OTHER)");
/// ```
pub fn expand<'v>(text: &str, lookup: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // One search that finds no `)` settles the question for all that follows.
    let mut may_close = true;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            tail
        } else if let Some(inner) = after.strip_prefix('(') {
            match may_close.then(|| inner.find(')')).flatten() {
                Some(end) => {
                    match lookup(&inner[..end]) {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&rest[at..at + 2 + end + 1]),
                    }
                    &inner[end + 1..]
                }
                None => {
                    may_close = false;
                    out.push_str("$(");
                    inner
                }
            }
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> String {
        expand(text, |name| match name {
            "VAR" => Some("value"),
            "EMPTY" => Some(""),
            "NESTED" => Some("$(VAR)"),
            "odd name" => Some("odd"),
            _ => None,
        })
    }

    #[test]
    fn references_are_replaced_and_the_rest_is_left_alone() {
        for (text, want) in [
            ("", ""),
            ("plain", "plain"),
            ("$(VAR)", "value"),
            ("a$(VAR)b$(VAR)c", "avaluebvaluec"),
            ("$(EMPTY)", ""),
            ("$(odd name)", "odd"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$()", "$()"),
            ("$(VAR", "$(VAR"),
            ("$(VAR$(VAR)", "$(VAR$(VAR)"),
            ("$(UNKNOWN$$", "$(UNKNOWN$"),
            ("$VAR ${VAR}", "$VAR ${VAR}"),
            ("$", "$"),
            ("cost: 5$", "cost: 5$"),
            ("ünï$(VAR)çödé", "ünïvalueçödé"),
        ] {
            assert_eq!(expanded(text), want, "{text}");
        }
    }

    #[test]
    fn a_doubled_dollar_escapes() {
        for (text, want) in [
            ("$$", "$"),
            ("$$(VAR)", "$(VAR)"),
            ("$$$(VAR)", "$value"),
            ("$$$$(VAR)", "$$(VAR)"),
            ("$$VAR", "$VAR"),
        ] {
            assert_eq!(expanded(text), want, "{text}");
        }
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        assert_eq!(expanded("$(NESTED)"), "$(VAR)");
    }

    #[test]
    fn many_unclosed_references_take_no_time() {
        let text = "$(".repeat(200_000);
        let start = std::time::Instant::now();
        assert_eq!(expanded(&text), text);
        assert!(start.elapsed().as_secs() < 2);
    }
}
