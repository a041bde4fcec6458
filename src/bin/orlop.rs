//! The command line that people use.

fn main() -> std::process::ExitCode {
    orlop::cli::main()
}
