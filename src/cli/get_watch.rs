//! `orlop get --watch`: what changes, as it changes.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::get::{GetArgs, pods, table};
use super::output;
use super::print::{self, Answer, Selection};
use super::select::to_value;
use crate::storage::store::{self, Store};

/// What was last shown of each pod, by uid.
type Shown = BTreeMap<String, Pod>;

/// Prints what there is, then every pod that has changed, for ever.
///
/// # Errors
/// As `get`; a name that is not there ends it.
pub fn run(args: &GetArgs, store: &Store) -> Result<ExitCode> {
    if args.sort_by.is_some() {
        bail!("--watch and --sort-by cannot be used together");
    }
    let selection = Selection::parse("get", &args.resources)?;
    let boot = store::boot_id()?;
    let changes = store.changes()?;
    let mut version = store.latest_version()?;
    let mut answer = Answer::default();
    let mut present = pods(args, store, &boot, &selection, &mut answer)?;
    if answer.failed {
        return answer.say();
    }
    let mut display = Display {
        args,
        selection: &selection,
        seen: Vec::new(),
        headed: args.no_headers,
    };
    if !args.watch_only && !display.show(present.clone())? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown = by_uid(std::mem::take(&mut present));
    loop {
        changes.wait(None)?;
        let latest = store.latest_version()?;
        if latest == version {
            continue;
        }
        version = latest;
        // One that is not there any more was told when it went.
        let now = by_uid(pods(
            args,
            store,
            &boot,
            &selection,
            &mut Answer::default(),
        )?);
        let mut changed: Vec<Pod> = Vec::new();
        for (uid, pod) in &now {
            if shown.get(uid) != Some(pod) {
                changed.push(pod.clone());
            }
        }
        let gone = shown.into_iter().filter(|(uid, _)| !now.contains_key(uid));
        changed.extend(gone.map(|(_, pod)| pod));
        if !changed.is_empty() && !display.show(changed)? {
            return Ok(ExitCode::SUCCESS);
        }
        shown = now;
    }
}

fn by_uid(pods: Vec<Pod>) -> Shown {
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    pods.into_iter().map(|pod| (uid(&pod), pod)).collect()
}

struct Display<'a> {
    args: &'a GetArgs,
    selection: &'a Selection,
    /// All pods that had a line, by whose widths the next lines are laid out.
    seen: Vec<Pod>,
    headed: bool,
}

impl Display<'_> {
    /// Prints pods; false when nobody reads any more.
    fn show(&mut self, pods: Vec<Pod>) -> Result<bool> {
        if pods.is_empty() {
            return Ok(true);
        }
        let mut text = String::new();
        let mut rendered = true;
        if let Some(form) = &self.args.output {
            for pod in &pods {
                let value = [to_value(pod)?];
                match output::render(form, &value, false, !self.headed)? {
                    Some(one) => text.push_str(&one),
                    None => rendered = false,
                }
                self.headed |= rendered;
            }
        } else {
            rendered = false;
        }
        if !rendered {
            let count = pods.len() + usize::from(!self.headed);
            let names: Vec<_> = pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
            self.seen.retain(|pod| !names.contains(&pod.metadata.uid));
            self.seen.extend(pods);
            let all = table(
                self.args,
                self.selection.resource,
                &self.seen,
                Timestamp::now(),
            );
            let mut lines: Vec<&str> = all.lines().collect();
            let last = lines.split_off(lines.len().saturating_sub(count));
            text = last.join("\n") + "\n";
            self.headed = true;
        }
        print::say_on(format_args!("{text}"))
    }
}
