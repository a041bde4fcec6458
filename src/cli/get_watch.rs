//! `orlop get --watch`: what changes, as it changes.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::get::{GetArgs, objects, table};
use super::output;
use super::print::{self, Answer, Resource, Selection};
use crate::kube::manifest::Object;
use crate::storage::store::{self, Store};

/// What was last shown of each object, by uid.
type Shown = BTreeMap<String, Object>;

/// Prints what there is, then every object that has changed, for ever.
///
/// # Errors
/// As `get`; a name that is not there ends it.
pub fn run(args: &GetArgs, store: &Store) -> Result<ExitCode> {
    if args.sort_by.is_some() {
        bail!("--watch and --sort-by cannot be used together");
    }
    let mut selections = Selection::parse_all("get", &args.resources)?;
    let (Some(selection), []) = (selections.pop(), selections.as_slice()) else {
        bail!("you may only specify a single resource type");
    };
    let boot = store::boot_id()?;
    let changes = store.changes()?;
    let mut version = store.latest_version()?;
    let mut answer = Answer::default();
    let mut present = objects(args, store, &boot, &selection, &mut answer)?;
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
        let now = by_uid(objects(
            args,
            store,
            &boot,
            &selection,
            &mut Answer::default(),
        )?);
        let mut changed: Vec<Object> = Vec::new();
        for (uid, object) in &now {
            if shown.get(uid) != Some(object) {
                changed.push(object.clone());
            }
        }
        let gone = shown.into_iter().filter(|(uid, _)| !now.contains_key(uid));
        changed.extend(gone.map(|(_, object)| object));
        if !changed.is_empty() && !display.show(changed)? {
            return Ok(ExitCode::SUCCESS);
        }
        shown = now;
    }
}

fn by_uid(objects: Vec<Object>) -> Shown {
    let uid = |object: &Object| object.metadata().uid.clone().unwrap_or_default();
    let keyed = objects.into_iter().map(|object| (uid(&object), object));
    keyed.collect()
}

struct Display<'a> {
    args: &'a GetArgs,
    selection: &'a Selection,
    /// All objects that had a line, by whose widths the next lines are laid out.
    seen: Vec<Object>,
    headed: bool,
}

impl Display<'_> {
    /// Prints objects; false when nobody reads any more.
    fn show(&mut self, objects: Vec<Object>) -> Result<bool> {
        if objects.is_empty() {
            return Ok(true);
        }
        let mut text = String::new();
        let mut rendered = true;
        if let Some(form) = &self.args.output {
            for object in &objects {
                let value = [object.to_value()?];
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
            let count = objects.len() + usize::from(!self.headed);
            let uid = |object: &Object| object.metadata().uid.clone();
            let uids: Vec<_> = objects.iter().map(uid).collect();
            self.seen.retain(|object| !uids.contains(&uid(object)));
            self.seen.extend(objects);
            let resource = self.selection.resource;
            let all = table(
                self.args,
                resource.kind(),
                resource == Resource::All,
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
