//! The kinds of object that orlop keeps, and what people call them.

use std::fmt;

/// A kind of object that a manifest can declare and a command can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` `Pod`.
    Pod,
    /// `v1` `ConfigMap`.
    ConfigMap,
    /// `v1` `Secret`.
    Secret,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Pod, Self::ConfigMap, Self::Secret];

    /// The kind as manifests have it: `ConfigMap`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// The plural of command lines and of the API's paths: `configmaps`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
        }
    }

    /// The singular that stands before an object's name: `configmap`.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    /// The short form of command lines, where the API has one: `cm`.
    #[must_use]
    pub fn short(self) -> Option<&'static str> {
        match self {
            Self::Pod => Some("po"),
            Self::ConfigMap => Some("cm"),
            Self::Secret => None,
        }
    }

    /// The kind that somebody means by a plural, singular or short form,
    /// capitalised or not, with or without its version (`pods.v1.`).
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let typed = typed.to_ascii_lowercase();
        let typed = typed.strip_suffix(".v1.").unwrap_or(&typed);
        let called = |kind: &&Self| {
            [Some(kind.plural()), Some(kind.singular()), kind.short()].contains(&Some(typed))
        };
        Self::ALL.iter().find(called).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_each_of_its_forms() {
        for (typed, kind) in [
            ("pods", Some(Kind::Pod)),
            ("Pod", Some(Kind::Pod)),
            ("po", Some(Kind::Pod)),
            ("pods.v1.", Some(Kind::Pod)),
            ("cm", Some(Kind::ConfigMap)),
            ("configMaps", Some(Kind::ConfigMap)),
            ("secret", Some(Kind::Secret)),
            ("all", None),
            ("", None),
        ] {
            assert_eq!(Kind::parse(typed), kind, "{typed}");
        }
    }
}
