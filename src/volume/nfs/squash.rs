//! What the server lets root do in a volume. A server that takes root for nobody
//! (`root_squash`, the default of exports(5)) refuses much that images' entry
//! points do, `chown` above all: it is better said at once than guessed from a
//! container's last words.

use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, Uid, accessat, chownat, fstat};
use rustix::io::Errno;

use super::NfsSource;

/// Looks at the root of a mounted volume that may be written to. Returns a sentence
/// when root is not root there.
///
/// A directory of root's is given to root once more, which a server that takes the
/// caller for somebody else refuses; what changes if it does not is the time of the
/// directory's last change of attributes.
#[must_use]
pub fn look(root: BorrowedFd, source: &NfsSource) -> Option<String> {
    let export = source.export();
    let owner = fstat(root).ok()?.st_uid;
    if owner == 0 {
        let given = chownat(root, ".", Some(Uid::ROOT), None, AtFlags::empty());
        return matches!(given, Err(Errno::PERM | Errno::ACCESS)).then(|| {
            format!(
                "the server of {export} squashes root (root_squash): root in a container is an ordinary user there, \
                 and chown ends with \"Operation not permitted\"; give the directory on the server to the user that \
                 writes, or export it with no_root_squash"
            )
        });
    }
    let write = accessat(root, ".", Access::WRITE_OK, AtFlags::empty());
    (write == Err(Errno::ACCESS)).then(|| {
        format!(
            "root may not write to {export}: the server squashes root (root_squash) or exports it read-only; user \
             {owner} owns the directory"
        )
    })
}
