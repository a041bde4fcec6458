//! Mount options (OCI runtime specification, config.md, "Linux mount options"):
//! what becomes an attribute of the mount, and what the file system is told.

use oci_spec::runtime::Mount;
use rustix::mount::{MountAttrFlags as Attr, MountPropagationFlags as Propagation};

use crate::sys::mount::Change;

/// The options of one mount, sorted by who has to know them.
#[derive(Debug, Default)]
pub(super) struct Options<'a> {
    /// For the mount itself.
    pub here: Change,
    /// For it and all mounts below it.
    pub tree: Change,
    /// Include the mounts below the source of a bind.
    pub recursive: bool,
    /// Change the mount that is there instead of making one.
    pub remount: bool,
    /// For the file system: key, and value where it has one.
    pub data: Vec<(&'a str, Option<&'a str>)>,
    /// What only an identity mapped mount can do, which is not supported.
    pub mapped: bool,
}

/// Sorts the options of `mount`; later ones win over earlier ones.
pub(super) fn parse(mount: &Mount) -> Options<'_> {
    let mut options = Options::default();
    for option in mount.options().iter().flatten() {
        options.add(option);
    }
    options
}

impl<'a> Options<'a> {
    /// Whether what is mounted here is to show elsewhere.
    pub(super) fn shares(&self) -> bool {
        let kinds = self.here.propagation | self.tree.propagation;
        kinds.contains(Propagation::SHARED)
    }

    fn add(&mut self, option: &'a str) {
        if let Some((propagation, tree)) = propagation(option) {
            let change = if tree { &mut self.tree } else { &mut self.here };
            change.propagation = propagation;
            return;
        }
        if let Some((flag, set)) = attribute(option) {
            // An attribute that is merely not asked for stays as the source has
            // it: a bind must not undo a restriction of the host.
            self.here.set.remove(covered(flag));
            if set {
                self.here.set.insert(flag);
                self.here
                    .clear
                    .insert(covered(flag) & Attr::MOUNT_ATTR__ATIME);
            }
            return;
        }
        if let Some((flag, set)) = option.strip_prefix('r').and_then(attribute) {
            // These say so explicitly for a whole tree.
            self.tree.set.remove(covered(flag));
            self.tree.clear.remove(covered(flag));
            if set {
                self.tree.set.insert(flag);
                self.tree
                    .clear
                    .insert(covered(flag) & Attr::MOUNT_ATTR__ATIME);
            } else {
                self.tree.clear.insert(covered(flag));
            }
            return;
        }
        match option {
            "bind" | "defaults" | "async" | "nomand" | "" => {}
            "rbind" => self.recursive = true,
            "remount" => self.remount = true,
            "idmap" | "ridmap" => self.mapped = true,
            _ => self.data.push(match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            }),
        }
    }
}

fn propagation(option: &str) -> Option<(Propagation, bool)> {
    Some(match option {
        "private" => (Propagation::PRIVATE, false),
        "rprivate" => (Propagation::PRIVATE, true),
        "slave" => (Propagation::DOWNSTREAM, false),
        "rslave" => (Propagation::DOWNSTREAM, true),
        "shared" => (Propagation::SHARED, false),
        "rshared" => (Propagation::SHARED, true),
        "unbindable" => (Propagation::UNBINDABLE, false),
        "runbindable" => (Propagation::UNBINDABLE, true),
        _ => return None,
    })
}

fn attribute(option: &str) -> Option<(Attr, bool)> {
    Some(match option {
        "ro" => (Attr::MOUNT_ATTR_RDONLY, true),
        "rw" => (Attr::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (Attr::MOUNT_ATTR_NOSUID, true),
        "suid" => (Attr::MOUNT_ATTR_NOSUID, false),
        "nodev" => (Attr::MOUNT_ATTR_NODEV, true),
        "dev" => (Attr::MOUNT_ATTR_NODEV, false),
        "noexec" => (Attr::MOUNT_ATTR_NOEXEC, true),
        "exec" => (Attr::MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (Attr::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (Attr::MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (Attr::MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (Attr::MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => (Attr::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (Attr::MOUNT_ATTR_STRICTATIME, true),
        // Relative times are the absence of the other two.
        "relatime" => (Attr::MOUNT_ATTR_RELATIME, true),
        "atime" => (Attr::MOUNT_ATTR_NOATIME, false),
        "nostrictatime" => (Attr::MOUNT_ATTR_STRICTATIME, false),
        "norelatime" => (Attr::MOUNT_ATTR_RELATIME, false),
        _ => return None,
    })
}

/// The kinds of access time exclude each other: they are one field.
fn covered(flag: Attr) -> Attr {
    if Attr::MOUNT_ATTR__ATIME.contains(flag) {
        Attr::MOUNT_ATTR__ATIME
    } else {
        flag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(options: &[&str]) -> Mount {
        let mut mount = Mount::default();
        mount.set_options(Some(options.iter().map(|&o| o.to_owned()).collect()));
        mount
    }

    #[test]
    fn options_go_to_the_mount_the_tree_or_the_file_system() {
        let mount = mount(&[
            "rbind", "nosuid", "rro", "rslave", "noatime", "size=64k", "x",
        ]);
        let options = parse(&mount);
        assert!(options.recursive);
        assert_eq!(
            options.here.set,
            Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOATIME
        );
        assert_eq!(options.here.clear, Attr::MOUNT_ATTR__ATIME);
        assert_eq!(options.tree.set, Attr::MOUNT_ATTR_RDONLY);
        assert_eq!(options.tree.propagation, Propagation::DOWNSTREAM);
        assert_eq!(options.data, [("size", Some("64k")), ("x", None)]);
    }

    #[test]
    fn the_last_word_counts_and_rw_undoes_no_restriction_of_the_source() {
        let mount = mount(&["ro", "rw"]);
        let options = parse(&mount);
        assert_eq!(options.here, Change::default());
    }
}
