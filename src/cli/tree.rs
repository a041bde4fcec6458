//! `orlop tree`: pods, their containers, and what each has mounted from where.

use std::process::ExitCode;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use serde_json::{Value, json};

use super::Machine;
use super::print::{Answer, json_text, printable};
use super::volumes::{self, Output, PodVolumes, Told, VolumesArgs, human};

/// What a tree is drawn with.
struct Pen {
    /// Before an item, and before the last one.
    item: [&'static str; 2],
    /// Before what belongs to an item, and to the last one.
    below: [&'static str; 2],
    arrow: &'static str,
}

const BOXES: Pen = Pen {
    item: ["├── ", "└── "],
    below: ["│   ", "    "],
    arrow: "←",
};
const ASCII: Pen = Pen {
    item: ["|-- ", "`-- "],
    below: ["|   ", "    "],
    arrow: "<-",
};

/// Draws the pods that are asked for.
///
/// # Errors
/// Contradictory arguments, an unreadable store.
pub fn run(args: &VolumesArgs, machine: &Machine) -> Result<ExitCode> {
    let mut answer = Answer::default();
    let pods = volumes::gather(args, machine, &mut answer)?;
    let pen = if knows_boxes() { BOXES } else { ASCII };
    answer.out = match args.output {
        Some(Output::Json) => json_text(&document(&pods))?,
        None => pods
            .iter()
            .map(|one| draw(one, &pen))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    answer.say()
}

/// Whether the user's characters include those for boxes (locale(7)).
fn knows_boxes() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let set = names.into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        (!value.is_empty()).then_some(value)
    });
    let locale = set.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The containers of a pod, with the word for their kind.
fn containers(one: &PodVolumes) -> Vec<(&'static str, &Container)> {
    let Some(spec) = &one.pod.spec else {
        return Vec::new();
    };
    let first = spec.init_containers.iter().flatten();
    let first = first.map(|container| ("init container", container));
    let then = spec
        .containers
        .iter()
        .map(|container| ("container", container));
    first.chain(then).collect()
}

fn mounts(container: &Container) -> &[VolumeMount] {
    container.volume_mounts.as_deref().unwrap_or_default()
}

fn volume<'a>(one: &'a PodVolumes, mount: &VolumeMount) -> Option<&'a Told> {
    one.volumes.iter().find(|volume| volume.name == mount.name)
}

fn draw(one: &PodVolumes, pen: &Pen) -> String {
    let metadata = &one.pod.metadata;
    let status = one.pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let mut text = format!(
        "pod/{} in {} ({})\n",
        metadata.name.as_deref().unwrap_or_default(),
        metadata.namespace.as_deref().unwrap_or_default(),
        phase.unwrap_or("Pending")
    );
    let containers = containers(one);
    let rows = containers
        .iter()
        .flat_map(|(_, container)| mounts(container));
    let rows: Vec<[String; 4]> = rows.map(|mount| cells(one, mount)).collect();
    let widths: [usize; 4] = std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    let mut rows = rows.into_iter();
    for (index, (kind, container)) in containers.iter().enumerate() {
        let last = usize::from(index + 1 == containers.len());
        text += &format!("{}{kind} {}\n", pen.item[last], container.name);
        let all = mounts(container).len();
        for (index, row) in rows.by_ref().take(all).enumerate() {
            let item = pen.item[usize::from(index + 1 == all)];
            let [path, from, size, source] = row;
            let line = format!(
                "{}{item}{path:<1$}  {arrow}  {from:<2$}  {size:>3$}  {source}",
                pen.below[last],
                widths[0],
                widths[1],
                widths[2],
                arrow = pen.arrow,
            );
            text += line.trim_end();
            text.push('\n');
        }
    }
    text
}

/// Where a mount is, which volume it shows, what that takes, and what it is.
fn cells(one: &PodVolumes, mount: &VolumeMount) -> [String; 4] {
    let sub_path = mount.sub_path.as_deref().filter(|path| !path.is_empty());
    let sub_path = sub_path.or(mount
        .sub_path_expr
        .as_deref()
        .filter(|path| !path.is_empty()));
    let mut path = printable(&mount.mount_path);
    if mount.read_only == Some(true) {
        path += " (ro)";
    }
    let mut from = mount.name.clone();
    if let Some(sub_path) = sub_path {
        from = format!("{from}/{}", printable(sub_path));
    }
    let Some(volume) = volume(one, mount) else {
        return [path, from, String::new(), String::new()];
    };
    let used = volume.usage.map(|usage| human(usage.used_bytes));
    let unreachable = volume.unreachable.then(|| "unreachable".to_owned());
    let used = used.or(unreachable);
    let size = match (used, volumes::limit_text(volume, &one.pod)) {
        (Some(used), Some(limit)) => format!("{used} of {limit}"),
        (Some(used), None) => used,
        (None, Some(limit)) => format!("- of {limit}"),
        (None, None) => "-".to_owned(),
    };
    let mut source = printable(&volume.kind);
    if let Some(by) = volume.enforcement {
        source += &format!(" ({})", by.as_str());
    }
    if !volume.source.is_empty() {
        source += &format!("  {}", printable(&volume.source));
    }
    [path, from, size, source]
}

fn document(pods: &[PodVolumes]) -> Value {
    let mount = |one: &PodVolumes, mount: &VolumeMount| {
        let mut object = volume(one, mount).map(Told::json).unwrap_or_default();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("mountPath", json!(mount.mount_path));
        put("volume", json!(mount.name));
        put("readOnly", json!(mount.read_only == Some(true)));
        for (key, value) in [
            ("subPath", &mount.sub_path),
            ("subPathExpr", &mount.sub_path_expr),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                put(key, json!(value));
            }
        }
        Value::Object(object)
    };
    let items = pods.iter().map(|one| {
        let containers = containers(one).into_iter().map(|(kind, container)| {
            let mounts = mounts(container)
                .iter()
                .map(|one_mount| mount(one, one_mount));
            json!({
                "name": container.name,
                "init": kind == "init container",
                "mounts": mounts.collect::<Vec<_>>(),
            })
        });
        let metadata = &one.pod.metadata;
        let phase = one
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.clone());
        json!({
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "phase": phase,
            "containers": containers.collect::<Vec<_>>(),
        })
    });
    json!({"items": items.collect::<Vec<_>>()})
}
