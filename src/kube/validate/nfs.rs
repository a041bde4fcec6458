//! Directories of NFS servers, of pods' volumes and of PersistentVolumes.

use k8s_openapi::api::core::v1::NFSVolumeSource;

use crate::kube::field::Findings;

/// The most bytes of a path that a client can ask for (RFC 1813, MNTPATHLEN).
const LONGEST: usize = 1024;

/// Checks the source at `at`.
pub(super) fn check(source: &NFSVolumeSource, at: &str, findings: &mut Findings) {
    let server = source.server.as_str();
    let odd = |letter: char| letter.is_control() || letter.is_whitespace() || letter == '/';
    if server.is_empty() {
        findings.required(format!("{at}.server"), "");
    } else if server.contains(odd) {
        let why = "must be the name or the address of a server";
        findings.invalid(format!("{at}.server"), server, why);
    }
    let (field, path) = (format!("{at}.path"), source.path.as_str());
    if path.is_empty() {
        findings.required(field, "");
    } else if !path.starts_with('/') {
        findings.invalid(field, path, "must be an absolute path");
    } else if path.contains('\0') {
        findings.invalid(field, path, "must not contain the NUL character");
    } else if path.len() > LONGEST {
        findings.too_long(field, LONGEST);
    }
}
