//! `orlop df`: what volumes take, and what they may take.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::Machine;
use super::print::{Answer, json_text, printable};
use super::volumes::{self, Output, PodVolumes, Told, VolumesArgs, human};

/// A column, and whether it is of numbers, which end at one edge.
type Column = (&'static str, bool);

const COLUMNS: [Column; 9] = [
    ("POD", false),
    ("VOLUME", false),
    ("TYPE", false),
    ("LIMIT", true),
    ("SIZE", true),
    ("USED", true),
    ("AVAILABLE", true),
    ("USE%", true),
    ("INODES", true),
];
const ENFORCED: Column = ("ENFORCED BY", false);
const GAP: usize = 3;

/// Prints a line for each volume of the pods that are asked for.
///
/// # Errors
/// Contradictory arguments, an unreadable store.
pub fn run(args: &VolumesArgs, machine: &Machine) -> Result<ExitCode> {
    let mut answer = Answer::default();
    let pods = volumes::gather(args, machine, &mut answer)?;
    answer.out = match args.output {
        Some(Output::Json) => json_text(&document(&pods))?,
        None => table(&pods, args.all_namespaces),
    };
    answer.say()
}

fn document(pods: &[PodVolumes]) -> Value {
    let items = pods.iter().flat_map(|one| {
        let metadata = &one.pod.metadata;
        one.volumes.iter().map(|volume| {
            let mut item = volume.json();
            item.insert("namespace".to_owned(), json!(metadata.namespace));
            item.insert("pod".to_owned(), json!(metadata.name));
            Value::Object(item)
        })
    });
    json!({"items": items.collect::<Vec<_>>()})
}

fn table(pods: &[PodVolumes], namespaces: bool) -> String {
    let mut columns: Vec<Column> = Vec::new();
    if namespaces {
        columns.push(("NAMESPACE", false));
    }
    columns.extend(COLUMNS);
    columns.push(ENFORCED);
    let mut rows = vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()];
    for one in pods {
        let metadata = &one.pod.metadata;
        for volume in &one.volumes {
            let mut row = Vec::new();
            if namespaces {
                row.push(metadata.namespace.clone().unwrap_or_default());
            }
            row.push(metadata.name.clone().unwrap_or_default());
            row.extend(cells(one, volume));
            rows.push(row);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    align(&columns, &rows)
}

fn cells(one: &PodVolumes, volume: &Told) -> [String; 9] {
    let nothing = || "-".to_owned();
    let usage = volume.usage;
    let share = usage.and_then(|usage| {
        let all = usage.used_bytes.checked_add(usage.available_bytes)?;
        (usage.used_bytes.saturating_mul(100))
            .checked_div(all)
            .map(|share| format!("{share}%"))
    });
    let kind = match volume
        .claim
        .as_ref()
        .and_then(|claim| claim.volume.as_ref())
    {
        Some(persistent) => printable(&format!("{} (pv/{persistent})", volume.kind)),
        None => printable(&volume.kind),
    };
    // The first of the figures says why there are none.
    let no_size = || match volume.unreachable {
        true => "unreachable".to_owned(),
        false => nothing(),
    };
    let size = |part: Option<u64>| part.map_or_else(nothing, human);
    [
        printable(&volume.name),
        kind,
        volumes::limit_text(volume, &one.pod).unwrap_or_else(nothing),
        usage.map_or_else(no_size, |usage| human(usage.capacity_bytes)),
        size(usage.map(|usage| usage.used_bytes)),
        size(usage.map(|usage| usage.available_bytes)),
        share.unwrap_or_else(nothing),
        usage.map_or_else(nothing, |usage| usage.inodes_used.to_string()),
        volume
            .enforcement
            .map_or_else(nothing, |by| by.as_str().to_owned()),
    ]
}

fn align(columns: &[Column], rows: &[Vec<String>]) -> String {
    let length = |cell: &String| cell.chars().count();
    let width = |column: usize| {
        rows.iter()
            .map(|row| length(&row[column]))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[index] - length(cell));
            let gap = if index == 0 { 0 } else { GAP };
            line += &" ".repeat(gap);
            line += &match columns[index].1 {
                true => space + cell,
                false => cell.clone() + &space,
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_and_numbers_end_at_one_edge() {
        let columns = [("NAME", false), ("SIZE", true), ("BY", false)];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["NAME", "SIZE", "BY"]),
            row(["volume", "16Mi", "x"]),
            row(["v", "1.5Gi", "-"]),
        ];
        assert_eq!(
            align(&columns, &rows),
            "NAME      SIZE   BY\nvolume    16Mi   x\nv        1.5Gi   -\n"
        );
    }
}
