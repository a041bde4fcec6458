//! Links the two programs that are started again and again without a dynamic
//! loader and at a fixed address.
//!
//! Nothing of them has to be found or relocated at a start then, and what would
//! have been relocated stays shared by all of their processes. The compiler's
//! own switch for it (`crt-static`) holds for a whole build, `orlop` itself and
//! the compiler's plug-ins included.
//!
//! Where the C library is not there as an archive (some distributions have a
//! package of its own for it) the programs are linked as any other.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the compiler asks for as a shared library, and what it gets.
const LIBRARIES: [(&str, &str); 3] = [
    ("libc.so", "libc.a"),
    ("libm.so", "libm.a"),
    ("libgcc_s.so", "libgcc_eh.a"),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let set = |name| env::var(name).unwrap_or_default();
    if set("CARGO_CFG_TARGET_ENV") != "gnu" || set("HOST") != set("TARGET") {
        return;
    }
    if !LIBRARIES.iter().all(|(_, archive)| is_there(archive)) {
        println!("cargo:warning=no archive of the C library (glibc-static?): linked dynamically");
        return;
    }
    // Found before the system's directories: scripts under the shared
    // libraries' names that lead to the archives.
    let out = PathBuf::from(set("OUT_DIR"));
    for (shared, archive) in LIBRARIES {
        fs::write(out.join(shared), format!("INPUT(-l:{archive})\n")).expect("OUT_DIR is writable");
    }
    for program in ["orlop-oci", "containerd-shim-orlop-v2"] {
        for argument in ["-no-pie", "-static", &format!("-L{}", out.display())] {
            println!("cargo:rustc-link-arg-bin={program}={argument}");
        }
    }
}

/// Whether the C compiler, which links, has this file: it answers with a path
/// then, and with the bare name if not.
fn is_there(archive: &str) -> bool {
    let answer = Command::new("cc")
        .arg(format!("-print-file-name={archive}"))
        .output();
    answer
        .is_ok_and(|answer| Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_absolute())
}
