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
    /// `v1` `PersistentVolume`.
    PersistentVolume,
    /// `v1` `PersistentVolumeClaim`.
    PersistentVolumeClaim,
    /// `storage.k8s.io/v1` `StorageClass`.
    StorageClass,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Pod,
        Self::ConfigMap,
        Self::Secret,
        Self::PersistentVolume,
        Self::PersistentVolumeClaim,
        Self::StorageClass,
    ];

    /// Whether objects of this kind live in namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::PersistentVolume | Self::StorageClass)
    }

    /// The group of the API that has the kind, with a dot before it; empty for the
    /// first one.
    fn group(self) -> &'static str {
        match self {
            Self::StorageClass => ".storage.k8s.io",
            _ => "",
        }
    }

    /// The kind as manifests have it: `ConfigMap`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::PersistentVolume => "PersistentVolume",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::StorageClass => "StorageClass",
        }
    }

    /// The plural of command lines and of the API's paths: `configmaps`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::ConfigMap => "configmaps",
            Self::Secret => "secrets",
            Self::PersistentVolume => "persistentvolumes",
            Self::PersistentVolumeClaim => "persistentvolumeclaims",
            Self::StorageClass => "storageclasses",
        }
    }

    /// The singular that stands before an object's name: `configmap`.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
            Self::PersistentVolume => "persistentvolume",
            Self::PersistentVolumeClaim => "persistentvolumeclaim",
            Self::StorageClass => "storageclass",
        }
    }

    /// The short form of command lines, where the API has one: `cm`.
    #[must_use]
    pub fn short(self) -> Option<&'static str> {
        match self {
            Self::Pod => Some("po"),
            Self::ConfigMap => Some("cm"),
            Self::Secret => None,
            Self::PersistentVolume => Some("pv"),
            Self::PersistentVolumeClaim => Some("pvc"),
            Self::StorageClass => Some("sc"),
        }
    }

    /// What stands before an object's name in what a command says: the singular
    /// with the kind's group, as in `storageclass.storage.k8s.io`.
    #[must_use]
    pub fn qualified(self) -> String {
        format!("{}{}", self.singular(), self.group())
    }

    /// The plural with the kind's group, as in `storageclasses.storage.k8s.io`: how
    /// the API server's errors name it.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::StorageClass => "storageclasses.storage.k8s.io",
            kind => kind.plural(),
        }
    }

    /// The kind that somebody means by a plural, singular or short form,
    /// capitalised or not, with or without its version (`pods.v1.`).
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let typed = typed.to_ascii_lowercase();
        let typed = typed.strip_suffix(".v1.").unwrap_or(&typed);
        let called = |kind: &&Self| {
            let bare = match kind.group() {
                "" => typed,
                group => {
                    let typed = typed.strip_suffix(group).unwrap_or(typed);
                    typed.strip_suffix(".v1").unwrap_or(typed)
                }
            };
            [Some(kind.plural()), Some(kind.singular()), kind.short()].contains(&Some(bare))
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
            ("pv", Some(Kind::PersistentVolume)),
            ("pvc", Some(Kind::PersistentVolumeClaim)),
            ("PersistentVolumeClaims", Some(Kind::PersistentVolumeClaim)),
            ("storageclasses.storage.k8s.io", Some(Kind::StorageClass)),
            ("sc.v1.storage.k8s.io", Some(Kind::StorageClass)),
            ("pods.storage.k8s.io", None),
            ("all", None),
            ("", None),
        ] {
            assert_eq!(Kind::parse(typed), kind, "{typed}");
        }
    }
}
