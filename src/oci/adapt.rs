//! What a configuration says, in the words that the steps behind it understand.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Process, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

use super::cgroup::Cgroup;

/// Rewrites a checked configuration: propagation types in their short form, cgroup
/// mounts as what they have to become on this machine, and a home directory.
pub(crate) fn adapt(spec: &Spec, cgroup: &Cgroup, rootfs: &Path) -> Spec {
    let mut spec = spec.clone();
    if let Some(process) = spec.process_mut() {
        add_home(process, rootfs);
    }
    let mut own_cgroup_view = false;
    if let Some(linux) = spec.linux_mut() {
        if let Some(propagation) = linux.rootfs_propagation() {
            // The root's propagation is always set for the whole tree.
            let short = propagation.strip_prefix('r').unwrap_or(propagation);
            let short = Some(short.to_owned()).filter(|name| !name.is_empty());
            linux.set_rootfs_propagation(short);
        }
        let mut namespaces = linux.namespaces().iter().flatten();
        own_cgroup_view = namespaces.any(|ns| ns.typ() == LinuxNamespaceType::Cgroup);
    }
    if let Some(mounts) = spec.mounts_mut() {
        *mounts = mounts
            .drain(..)
            .flat_map(|mount| match mount.typ().as_deref() {
                Some("cgroup" | "cgroup2") => cgroup_mounts(mount, cgroup, own_cgroup_view),
                _ => vec![mount],
            })
            .collect();
    }
    spec
}

/// A container sees its own group and the ones below it, nothing else.
fn cgroup_mounts(mount: Mount, cgroup: &Cgroup, own_view: bool) -> Vec<Mount> {
    let destination = mount.destination().clone();
    match cgroup {
        Cgroup::Unified(directory) if own_view => {
            let mut mount = mount;
            // The source is what to bind where the file system cannot be made.
            mount
                .set_typ(Some("cgroup".into()))
                .set_source(Some(directory.clone()));
            vec![mount]
        }
        Cgroup::Unified(directory) => vec![bind(directory, destination, &mount)],
        Cgroup::Legacy(hierarchies) => {
            let mut base = Mount::default();
            // It holds mount points alone: there is no use for more room.
            let options = ["nosuid", "noexec", "nodev", "mode=755", "size=64k"];
            base.set_destination(destination.clone())
                .set_typ(Some("tmpfs".into()))
                .set_source(Some("tmpfs".into()))
                .set_options(Some(options.map(String::from).to_vec()));
            let mut mounts = vec![base];
            for hierarchy in hierarchies {
                let names = [hierarchy.name.as_str()].into_iter().chain(
                    hierarchy
                        .name
                        .split(',')
                        .filter(|&name| name != hierarchy.name),
                );
                for name in names {
                    mounts.push(bind(&hierarchy.directory, destination.join(name), &mount));
                }
            }
            mounts
        }
    }
}

fn bind(source: &Path, destination: PathBuf, like: &Mount) -> Mount {
    let mut options = like.options().clone().unwrap_or_default();
    options.push("bind".into());
    let mut mount = Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some("bind".into()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

/// Whether a mount binds an existing file or directory.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options.any(|option| option == "bind" || option == "rbind")
}

/// Adds `HOME` to an environment that lacks it: what the container's own
/// `/etc/passwd` says for the user, or `/`.
///
/// The file is read before anything of the container runs, as the text it is:
/// asking the C library for it inside the container would load the container's
/// code into the runtime.
pub(crate) fn add_home(process: &mut Process, rootfs: &Path) {
    let uid = process.user().uid();
    let environment = process.env_mut().get_or_insert_default();
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = home(rootfs, uid).unwrap_or_else(|| "/".into());
        environment.push(format!("HOME={home}"));
    }
}

fn home(rootfs: &Path, uid: u32) -> Option<String> {
    const ENOUGH: u64 = 1 << 20;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let passwd = openat2(&root, "etc/passwd", flags, Mode::empty(), within).ok()?;
    let passwd = File::from(passwd);
    if !passwd.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    passwd.take(ENOUGH).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (id, home) = (fields.get(2)?.parse::<u32>().ok()?, *fields.get(5)?);
        (id == uid && home.starts_with('/')).then(|| home.to_owned())
    })
}

/// Makes the working directory of a container's process where it is missing, as
/// people expect who write `workingDir` for an image without that directory.
///
/// It is made in the root file system, or in the source of the bind mount that
/// it lies in, by descriptors that cannot leave either. What cannot be made is
/// left alone: changing to it will fail with the reason.
pub(crate) fn make_working_directory(spec: &Spec, rootfs: &Path) {
    let Some(directory) = spec.process().as_ref().map(|process| process.cwd()) else {
        return;
    };
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let around = mounts
        .iter()
        .filter(|mount| directory.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count());
    let (root, below) = match around {
        Some(mount) if is_bind(mount) => match mount.source() {
            Some(source) => (
                source.as_path(),
                directory.strip_prefix(mount.destination()),
            ),
            None => return,
        },
        Some(mount) if mount.destination() != Path::new("/") => return,
        _ => (rootfs, directory.strip_prefix("/")),
    };
    if let Ok(below) = below {
        // A failure shows when the process changes to the directory.
        let _ = make_below(root, below);
    }
}

fn make_below(root: &Path, below: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let open = |path: &Path| openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    if below.as_os_str().is_empty() || open(below).is_ok() {
        return Ok(());
    }
    let mut path = PathBuf::from(".");
    for part in below.components() {
        let parent = open(&path)?;
        path.push(part);
        match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Err(error) if error != rustix::io::Errno::EXIST => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::cgroup::Hierarchy;
    use super::*;

    fn with_cwd(cwd: &str, mounts: serde_json::Value) -> Spec {
        serde_json::from_value(serde_json::json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"cwd": cwd, "user": {"uid": 0, "gid": 0}, "args": ["x"]},
            "mounts": mounts,
            "linux": {"rootfsPropagation": "rslave", "namespaces": [{"type": "mount"}]},
        }))
        .expect("spec")
    }

    #[test]
    fn home_is_what_the_containers_own_passwd_says() {
        let dir = tempfile::tempdir().expect("tempdir");
        let home_of = |uid| home(dir.path(), uid);
        assert_eq!(home_of(0), None);
        fs::create_dir(dir.path().join("etc")).expect("etc");
        let passwd = dir.path().join("etc/passwd");
        fs::write(
            &passwd,
            "root:x:0:0::/root:/bin/sh\nbad\nu:x:7:7::/home/u:/bin/sh\n",
        )
        .expect("passwd");
        assert_eq!(home_of(7).as_deref(), Some("/home/u"));
        assert_eq!(home_of(8), None);
        fs::remove_file(&passwd).expect("remove");
        symlink("/etc/passwd", &passwd).expect("symlink");
        assert_eq!(home_of(0), None, "the host's file was read");
    }

    #[test]
    fn a_missing_working_directory_is_made_inside_the_root_and_never_outside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(&root).expect("root");
        fs::create_dir_all(&outside).expect("outside");
        symlink(&outside, root.join("away")).expect("symlink");
        symlink("/srv", root.join("inner")).expect("symlink");
        fs::create_dir(root.join("srv")).expect("srv");

        let none = serde_json::json!([]);
        make_working_directory(&with_cwd("/a/b/c", none.clone()), &root);
        assert!(root.join("a/b/c").is_dir());
        make_working_directory(&with_cwd("/inner/x", none.clone()), &root);
        assert!(root.join("srv/x").is_dir());
        make_working_directory(&with_cwd("/away/x", none), &root);
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
    }

    #[test]
    fn a_working_directory_in_a_volume_is_made_in_the_volume() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir_all(&root).expect("root");
        fs::create_dir_all(&volume).expect("volume");
        let mounts = serde_json::json!([
            {"destination": "/data", "type": "bind", "source": volume, "options": ["rbind"]},
        ]);
        make_working_directory(&with_cwd("/data/work", mounts), &root);
        assert!(volume.join("work").is_dir() && !root.join("data").exists());
    }

    #[test]
    fn version_1_hierarchies_are_bound_one_by_one_as_read_only_as_asked() {
        let hierarchy = |name: &str| Hierarchy {
            name: name.into(),
            directory: Path::new("/sys/fs/cgroup").join(name).join("g"),
        };
        let cgroup = Cgroup::Legacy(vec![hierarchy("memory"), hierarchy("cpu,cpuacct")]);
        let mounts = serde_json::json!([
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        ]);
        let spec = adapt(&with_cwd("/", mounts), &cgroup, Path::new("/"));
        let mounts = spec.mounts().as_ref().expect("mounts");
        let places: Vec<_> = mounts
            .iter()
            .map(|m| m.destination().display().to_string())
            .collect();
        assert_eq!(
            places,
            [
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/cpu",
                "/sys/fs/cgroup/cpuacct",
            ]
        );
        for mount in &mounts[1..] {
            let options = mount.options().as_ref().expect("options");
            assert_eq!(options, &["ro", "bind"]);
        }
    }

    #[test]
    fn recursive_propagation_names_are_understood() {
        let cgroup = Cgroup::Unified("/sys/fs/cgroup/g".into());
        let spec = adapt(
            &with_cwd("/", serde_json::json!([])),
            &cgroup,
            Path::new("/"),
        );
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!(linux.rootfs_propagation().as_deref(), Some("slave"));
    }
}
