//! The last step of a container's start: finding the user's program inside the
//! container and executing it.
//!
//! Whoever created the container holds the other end of a pipe. It closes when
//! the program has been executed; if that fails, one sentence comes out first.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::State;
use libcontainer::hooks::run_hooks;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::{Hook, Process, Spec};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::ioctl_tiocsctty;

use super::confinement::Confinement;
use super::error::sentence;
use crate::sys::exec::execve;

/// Executes the program of a container's process description.
#[derive(Clone)]
pub(crate) struct Execute {
    failure: Rc<OwnedFd>,
    program: Rc<OnceCell<PathBuf>>,
    /// What the container needs in its environment besides its own strings.
    additions: Rc<RefCell<Vec<(String, String)>>>,
    first: Rc<OnceCell<First>>,
    confinement: Rc<OnceCell<Confinement>>,
}

/// What only a container's first process does.
struct First {
    hooks: Option<Vec<Hook>>,
    state: State,
    environment: HashMap<String, String>,
}

impl Execute {
    /// `failure` is the writing end of the pipe; it must be closed on exec.
    pub(crate) fn new(failure: OwnedFd) -> Self {
        Self {
            failure: Rc::new(failure),
            program: Rc::default(),
            additions: Rc::default(),
            first: Rc::default(),
            confinement: Rc::default(),
        }
    }

    /// The process shall be confined before it executes its program.
    pub(crate) fn confine(&self, confinement: Confinement) {
        self.confinement.get_or_init(|| confinement);
    }

    /// The process will be the first of a container: it takes its terminal, and
    /// runs the `startContainer` hooks of `spec` with `state` before its program.
    pub(crate) fn first_of(&self, spec: &Spec, state: &State) {
        let environment = process(spec)
            .and_then(|(process, _)| process.env().as_ref())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let hooks = spec.hooks().as_ref();
        self.first.get_or_init(|| First {
            hooks: hooks.and_then(|hooks| hooks.start_container().clone()),
            state: state.clone(),
            environment,
        });
    }

    /// Tells the creator why there will be no program.
    pub(crate) fn report(&self, reason: &str) {
        // Nobody is left to tell when this fails: the creator has gone.
        let _ = rustix::io::write(&*self.failure, reason.as_bytes());
    }
}

fn process(spec: &Spec) -> Option<(&Process, &[String])> {
    let process = spec.process().as_ref()?;
    Some((process, process.args().as_deref()?))
}

impl Executor for Execute {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (process, arguments) = process(spec).unwrap_or_else(|| unreachable!("checked config"));
        if self.first.get().is_some() && process.terminal().unwrap_or(false) {
            // It was made before there was a session to belong to.
            ioctl_tiocsctty(io::stdin()).map_err(|error| {
                ExecutorValidationError::ArgValidationError(format!(
                    "cannot make the terminal the controlling one: {}",
                    sentence(&error)
                ))
            })?;
        }
        let name = &arguments[0];
        let path = find_program(name, search_path(process)).map_err(|reason| {
            ExecutorValidationError::ArgValidationError(format!("exec: {name:?}: {reason}"))
        })?;
        self.program.get_or_init(|| path);
        Ok(())
    }

    fn setup_envs(&self, environment: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The process's own environment stays untouched: execve gets the
        // configuration's strings, in their order.
        self.additions.borrow_mut().extend(environment);
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (process, arguments) = process(spec).unwrap_or_else(|| unreachable!("checked config"));
        if let Some(first) = self.first.get() {
            run_hooks(
                first.hooks.as_ref(),
                Some(&first.state),
                None,
                None,
                Some(&first.environment),
            )
            .map_err(|error| {
                ExecutorError::Other(format!("startContainer hook failed: {}", sentence(&error)))
            })?;
        }
        let name = &arguments[0];
        let environment = merge(
            process.env().as_deref().unwrap_or_default(),
            &self.additions.borrow(),
        );
        let program = self.program.get().map_or(Path::new(name), PathBuf::as_path);
        let error = match (
            c_strings(arguments),
            c_strings(&environment),
            CString::new(program.as_os_str().as_encoded_bytes()),
        ) {
            (Ok(arguments), Ok(environment), Ok(program)) => {
                let confinement = self.confinement.get();
                execve(&program, &arguments, &environment, || {
                    confinement.map_or(Ok(()), Confinement::apply)
                })
            }
            _ => io::ErrorKind::InvalidInput.into(),
        };
        Err(ExecutorError::Other(format!(
            "exec: {name:?}: {}",
            sentence(&error)
        )))
    }
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    strings
        .iter()
        .map(|string| CString::new(string.as_bytes()))
        .collect()
}

/// The configuration's environment plus what it does not mention.
fn merge(own: &[String], additions: &[(String, String)]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let known: Vec<String> = own.iter().map(|entry| name(entry)).collect();
    let added = additions
        .iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, value)| format!("{name}={value}"));
    own.iter().cloned().chain(added).collect()
}

fn search_path(process: &Process) -> &str {
    // The last one counts, as it does for a shell.
    let mut strings = process.env().iter().flatten().rev();
    strings
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default()
}

/// The file that `name` means, looked up as a shell would: as a path when it
/// has a slash, else in each directory of `search_path`.
fn find_program(name: &str, search_path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(error) => Err(sentence(&error)),
        };
    }
    search_path
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(name))
        .find(|path| !name.is_empty() && executable(path).is_ok())
        .ok_or_else(|| "executable file not found in $PATH".to_owned())
}

fn executable(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_up_in_path_and_a_path_is_taken_as_it_is() {
        assert_eq!(
            find_program("sh", "/nowhere:/bin").expect("found"),
            Path::new("/bin/sh")
        );
        assert_eq!(
            find_program("/bin/sh", "").expect("found"),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn the_reasons_are_the_ones_that_callers_look_for() {
        let dir = tempfile::tempdir().expect("tempdir");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").expect("write");
        let reason = |name: &str| find_program(name, "/bin").expect_err(name);
        assert_eq!(reason("nope"), "executable file not found in $PATH");
        assert_eq!(reason(""), "executable file not found in $PATH");
        assert_eq!(reason("/no/such"), "no such file or directory");
        assert_eq!(reason(plain.to_str().expect("utf-8")), "permission denied");
        assert_eq!(reason("/bin/"), "is a directory");
    }

    #[test]
    fn the_containers_own_strings_win_and_keep_their_order() {
        let own = ["B=1".to_owned(), "HOME=/x".to_owned(), "A=2".to_owned()];
        let added = [
            ("HOME".to_owned(), "/root".to_owned()),
            ("C".to_owned(), "3".to_owned()),
        ];
        assert_eq!(merge(&own, &added), ["B=1", "HOME=/x", "A=2", "C=3"]);
    }
}
