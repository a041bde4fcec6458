//! The shim: one process per pod.

fn main() -> std::process::ExitCode {
    orlop::shim::main(std::env::args_os().skip(1))
}
