//! Volumes that are about to be made: a file for each, written before and removed
//! after it is on record. So nothing that was made is ever forgotten.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::PersistentVolume;

use crate::storage::binder::facts::name;
use crate::storage::roots::Roots;

/// The directory of the files.
pub(super) struct Plans(PathBuf);

impl Plans {
    pub(super) fn new(roots: &Roots) -> Self {
        Self(roots.data.join("provisioning"))
    }

    /// All volumes that were about to be made. What cannot be read was being written
    /// when its writer ended: nothing had been made yet.
    ///
    /// # Errors
    /// What read(2) or unlink(2) say.
    pub(super) fn all(&self) -> io::Result<Vec<PersistentVolume>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            match serde_json::from_slice(&std::fs::read(&path)?) {
                Ok(volume) => all.push(volume),
                Err(_) => std::fs::remove_file(&path)?,
            }
        }
        Ok(all)
    }

    /// Notes that a volume, whose name is `pvc-<uid>`, is about to be made.
    ///
    /// # Errors
    /// What mkdir(2) or write(2) say.
    pub(super) fn note(&self, volume: &PersistentVolume) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        std::fs::write(self.file(volume), serde_json::to_vec(volume)?)
    }

    /// Forgets a volume.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub(super) fn forget(&self, volume: &PersistentVolume) -> io::Result<()> {
        match std::fs::remove_file(self.file(volume)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, volume: &PersistentVolume) -> PathBuf {
        self.0.join(name(volume))
    }
}
