//! `orlop edit`: an object in the user's editor.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::{Machine, change, print};
use crate::kube::kind::Kind;

const INTRODUCTION: &str = "\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// `orlop edit` on the command line.
#[derive(Args, Debug)]
pub struct EditArgs {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE NAME", required = true)]
    resources: Vec<String>,
    /// Namespace of the objects
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// Opens the objects in `KUBE_EDITOR`, `EDITOR` or vi, one after the other, and
/// stores what was changed.
///
/// # Errors
/// An object that is not there, an editor that fails, or that nothing valid was
/// saved: what was written is kept in a file then.
pub fn run(args: &EditArgs, machine: &Machine) -> Result<ExitCode> {
    let targets = change::targets(
        machine,
        "edit",
        &args.resources,
        &args.namespace,
        None,
        false,
    )?;
    for (kind, name) in targets {
        edit(machine, kind, &args.namespace, &name)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn edit(machine: &Machine, kind: Kind, namespace: &str, name: &str) -> Result<()> {
    let mut original = machine.object(kind, namespace, name)?.to_value()?;
    // Nothing that is changed of the status would be stored.
    let status = original
        .as_object_mut()
        .and_then(|object| object.remove("status"));
    let mut shown = original.clone();
    if let Some(status) = status {
        shown["status"] = status;
    }
    let mut text = print::yaml(&shown)?;
    let mut reason: Option<String> = None;
    let file = Draft::new()?;
    loop {
        let notes = reason.iter().flat_map(|reason| reason.lines());
        let notes: String = notes.map(|line| format!("# * {line}\n")).collect();
        let title = match &reason {
            Some(_) => format!("# {} {name:?} was not valid:\n{notes}#\n", kind.plural()),
            None => String::new(),
        };
        fs::write(&file.path, format!("{INTRODUCTION}{title}{text}"))
            .with_context(|| format!("cannot write {:?}", file.path))?;
        open_editor(&file.path)?;
        let edited = fs::read_to_string(&file.path)
            .with_context(|| format!("cannot read {:?} again", file.path))?;
        let edited: String = edited
            .split_inclusive('\n')
            .filter(|line| !line.starts_with('#'))
            .collect();
        let unchanged = edited.trim_end() == text.trim_end();
        if edited.trim().is_empty() || unchanged {
            if reason.is_some() {
                let kept = file.keep();
                print::note(format_args!(
                    "A copy of your changes has been stored to {kept:?}"
                ));
                bail!("Edit cancelled, no valid changes were saved.");
            }
            let why = if unchanged {
                "no changes made."
            } else {
                "saved file was empty."
            };
            print::note(format_args!("Edit cancelled, {why}"));
            return Ok(());
        }
        match store(machine, kind, namespace, name, &original, &edited) {
            Ok(true) => return print::say(format_args!("{}/{name} edited\n", kind.qualified())),
            Ok(false) => {
                print::note(format_args!("Edit cancelled, no changes made."));
                return Ok(());
            }
            Err(error) => reason = Some(print::error_line(&error)),
        }
        text = edited;
    }
}

/// Makes the same changes that the user made to what the object is now.
fn store(
    machine: &Machine,
    kind: Kind,
    namespace: &str,
    name: &str,
    original: &Value,
    edited: &str,
) -> Result<bool> {
    let mut edited: Value = serde_saphyr::from_str(edited)
        .map_err(|error| anyhow!("the edited file is no YAML: {error}"))?;
    let Some(fields) = edited.as_object_mut() else {
        bail!("the edited file holds no object");
    };
    fields.remove("status");
    let difference = json_patch::diff(original, &edited);
    let changed = change::change(machine, kind, namespace, name, |object| {
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        json_patch::patch(object, &difference).map_err(|error| {
            anyhow!("the object was changed meanwhile, and the edit does not fit any more: {error}")
        })
    })?;
    Ok(changed.changed)
}

fn open_editor(file: &Path) -> Result<()> {
    let chosen = ["KUBE_EDITOR", "EDITOR"].into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        (!value.trim().is_empty()).then_some(value)
    });
    let editor = chosen.unwrap_or_else(|| "vi".to_owned());
    // An editor may come with arguments of its own.
    let status = Command::new("/bin/sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file)
        .status()
        .with_context(|| format!("unable to launch the editor {editor:?}"))?;
    if !status.success() {
        bail!("there was a problem with the editor {editor:?}");
    }
    Ok(())
}

/// The file that is edited; gone when the edit is over.
struct Draft {
    path: PathBuf,
    kept: std::cell::Cell<bool>,
}

impl Draft {
    fn new() -> Result<Self> {
        let name = format!("orlop-edit-{}.yaml", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        let made = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let mut file = made.with_context(|| format!("cannot make {path:?}"))?;
        file.flush()?;
        Ok(Self {
            path,
            kept: std::cell::Cell::new(false),
        })
    }

    fn keep(&self) -> &Path {
        self.kept.set(true);
        &self.path
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept.get() {
            // An editor may have moved it away; then there is nothing to remove.
            let _ = fs::remove_file(&self.path);
        }
    }
}
