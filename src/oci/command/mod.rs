//! The command line of `orlop-oci`: runc's commands, options, files and exit
//! codes, so that programs that call runc can call this instead.

mod exec;
mod log;
mod run;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::log::Log;
use super::error::OciError;
use super::{container, signal};

/// Runs one container from an OCI bundle, as runc would.
#[derive(Debug, Parser)]
#[command(name = "orlop-oci", disable_version_flag = true)]
struct CommandLine {
    /// Where records of containers are kept
    #[arg(long, value_name = "DIR", default_value = "/run/orlop-oci")]
    root: PathBuf,
    /// Append messages to this file as well as to standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The form of messages in the log file
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Log what is being done, too
    #[arg(long)]
    debug: bool,
    /// Have systemd make the control group: cgroupsPath is SLICE:PREFIX:NAME
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for callers of runc: whether a user namespace is used is decided
    /// by the configuration
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    rootless: Option<Option<String>>,
    /// Print the version
    #[arg(long, short)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a container and start it
    Run {
        /// Return when it has started instead of when it has ended
        #[arg(long, short)]
        detach: bool,
        #[command(flatten)]
        bundle: BundleOptions,
    },
    /// Create a container whose program waits for `start`
    Create {
        #[command(flatten)]
        bundle: BundleOptions,
    },
    /// Execute the program of a created container
    Start {
        /// The container's id
        id: String,
    },
    /// Run one more process in a container
    Exec(exec::ExecOptions),
    /// Print a container's state as JSON
    State {
        /// The container's id
        id: String,
    },
    /// Send a signal to a container
    Kill {
        /// Send it to every process of the container
        #[arg(long, short)]
        all: bool,
        /// The container's id
        id: String,
        /// The signal: a number, or a name with or without SIG
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Delete a container that has ended
    Delete {
        /// Kill it first if it runs; an unknown container is no error
        #[arg(long, short)]
        force: bool,
        /// The container's id
        id: String,
    },
}

/// The options that `run` and `create` share.
#[derive(Debug, Args)]
struct BundleOptions {
    /// The directory with config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Let the program inherit this many descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Move the root instead of pivoting to it: for roots on a ramfs
    #[arg(long)]
    no_pivot: bool,
    /// The container's id
    id: String,
}

/// Runs `orlop-oci` with the arguments of this process and returns its exit
/// status: the container's own for a `run` that waits, else 0 or 1.
pub fn main() -> u8 {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help goes to standard output and is no failure.
            let _ = error.print();
            return u8::from(error.use_stderr());
        }
    };
    if line.version {
        println!("orlop-oci version {}", env!("CARGO_PKG_VERSION"));
        println!("spec: {}", oci_spec::runtime::VERSION);
        return 0;
    }
    let log = Log::new(line.log.clone(), line.log_format, line.debug);
    log.debug(&format!("{:?}", line.command));
    match execute(line) {
        Ok(status) => status,
        Err(error) => {
            log.error(&error.to_string());
            1
        }
    }
}

fn execute(line: CommandLine) -> Result<u8, OciError> {
    let root = line.root.as_path();
    let systemd = line.systemd_cgroup;
    match line.command {
        None => Err(OciError::Unsupported(
            "which command? --help lists them".into(),
        )),
        Some(Command::Run { detach, bundle }) => run::run(root, bundle, systemd, detach),
        Some(Command::Create { bundle }) => run::create(root, bundle, systemd).map(|_| 0),
        Some(Command::Start { id }) => container::start(root, &id).map(|()| 0),
        Some(Command::Exec(options)) => exec::exec(root, options),
        Some(Command::State { id }) => print_state(root, &id).map(|()| 0),
        Some(Command::Kill { all, id, signal }) => {
            let signal = signal::parse(&signal).ok_or_else(|| {
                OciError::Unsupported(format!(
                    "{signal:?} is not a signal: use a name (TERM) or a number (15)"
                ))
            })?;
            container::kill(root, &id, signal, all).map(|()| 0)
        }
        Some(Command::Delete { force, id }) => match container::delete(root, &id, force) {
            Err(OciError::NotFound { .. }) if force => Ok(0),
            other => other.map(|()| 0),
        },
    }
}

fn print_state(root: &Path, id: &str) -> Result<(), OciError> {
    let (record, status) = container::state(root, id)?;
    let text = format!("{:#}\n", record.to_json(status));
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(OciError::step::<io::Error>("write to standard output"))
}

/// Writes a process id where another program waits for it: all or nothing.
fn write_pid_file(path: &Path, pid: i32) -> Result<(), OciError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, pid.to_string())
        .and_then(|()| fs::rename(&new, path))
        .map_err(OciError::step::<io::Error>(format!(
            "write the pid file {path:?}"
        )))
}
