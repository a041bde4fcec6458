//! `orlop-oci`: an OCI runtime with runc's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    orlop::oci::command::main().into()
}
