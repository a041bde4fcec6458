//! Pods with their volumes and what these take: what `orlop tree` and `orlop df`
//! tell, and the words on their command lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use serde_json::{Map, Value, json};

use super::pod_row::as_of_boot;
use super::print::{Answer, note};
use super::{Machine, pod_name};
use crate::kube::quantity::Quantity;
use crate::pod::claims;
use crate::pod::control::{Client, Reply, Request};
use crate::pod::home::Home;
use crate::storage::binder::facts;
use crate::storage::store;
use crate::volume::empty_dir::{self, Enforcement, PLUGIN};
use crate::volume::nfs::NfsSource;
use crate::volume::usage::{self, Report, Usage};

/// How long a pod may take to tell what its volumes take: one on a server that is
/// away must not hold up the others for ever.
const LIMIT: Duration = Duration::from_secs(5);

/// `orlop tree` and `orlop df` on the command line.
#[derive(Args, Clone, Debug)]
pub struct VolumesArgs {
    /// POD or pod/POD; all of the namespace if none is named
    #[arg(value_name = "POD")]
    pub pods: Vec<String>,
    /// Namespace to look in
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Look in all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// What to print instead of text for people
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
}

/// The other forms of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For programs; sizes are in bytes
    Json,
}

/// A pod with its volumes.
pub(super) struct PodVolumes {
    /// The pod, with the status that it has at this moment.
    pub(super) pod: Pod,
    /// Its volumes, in the manifest's order.
    pub(super) volumes: Vec<Told>,
}

/// What is known of one volume.
pub(super) struct Told {
    /// Its name in the pod.
    pub(super) name: String,
    /// Its kind, as in the manifest: `emptyDir`.
    pub(super) kind: String,
    /// Where its content is; empty where there is nothing to say.
    pub(super) source: String,
    /// What it may take at most, in bytes.
    pub(super) limit: Option<u64>,
    /// What makes that a limit.
    pub(super) enforcement: Option<Enforcement>,
    /// The claim that it is, and the PersistentVolume bound to that.
    pub(super) claim: Option<Claimed>,
    /// What it takes, when it can be told: in memory only of a pod that runs.
    pub(super) usage: Option<Usage>,
    /// True when it is on a server that does not answer.
    pub(super) unreachable: bool,
}

/// The claim of a volume.
pub(super) struct Claimed {
    /// Its name.
    pub(super) claim: String,
    /// Its volume; none while it is not bound.
    pub(super) volume: Option<String>,
}

/// The pods that a command line asks for. Those that are not there are told in
/// `answer`.
///
/// # Errors
/// Contradictory arguments, an unreadable store.
pub(super) fn gather(
    args: &VolumesArgs,
    machine: &Machine,
    answer: &mut Answer,
) -> Result<Vec<PodVolumes>> {
    if args.all_namespaces && !args.pods.is_empty() {
        anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
    }
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let boot = store::boot_id()?;
    let mut found = Vec::new();
    if args.pods.is_empty() {
        found = machine.store.stored_pods(namespace)?;
        if found.is_empty() {
            *answer = Answer::nothing(namespace);
        }
    }
    for typed in &args.pods {
        let name = pod_name(typed)?;
        match machine.store.stored_pod(&args.namespace, name)? {
            Some(stored) => found.push(stored),
            None => answer.missing("pods", name),
        }
    }
    let asked = found.into_iter().map(|stored| {
        let pod = as_of_boot(stored, &boot);
        let home = machine.home(&pod);
        let asked = Asked::ask(&home);
        (pod, home, asked)
    });
    // All of them look while the first one is waited for.
    let asked: Vec<_> = asked.collect();
    let pods = asked.into_iter().map(|(pod, home, asked)| {
        let mounted = asked.answer(&pod);
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let volumes = volumes
            .map(|volume| {
                let mut told = told(&home, volume, &mounted);
                // What cannot be read is not told.
                let _ = claim_of(machine, &pod, volume, &mut told);
                told
            })
            .collect();
        PodVolumes { volumes, pod }
    });
    Ok(pods.collect())
}

/// A pod that is asked what its volumes take.
struct Asked(Result<Option<Client>>);

impl Asked {
    /// Asks the pod's keeper, and does not wait for the answer.
    fn ask(home: &Home) -> Self {
        let ask = || {
            let keeper = Client::connect(home)?;
            if let Some(keeper) = &keeper {
                keeper.send(&Request::Usage, &[])?;
            }
            Ok(keeper)
        };
        Self(ask())
    }

    /// What the file systems of the pod's volumes tell in its mount namespace;
    /// nothing when it does not run.
    fn answer(self, pod: &Pod) -> BTreeMap<String, Report> {
        let receive = || -> Result<BTreeMap<String, Report>> {
            let Some(keeper) = self.0? else {
                return Ok(BTreeMap::new());
            };
            let reply = keeper
                .receive_within(LIMIT)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::WouldBlock => anyhow::anyhow!("no answer within {LIMIT:?}"),
                    _ => error.into(),
                });
            match reply? {
                Some((Reply::Usage(usage), _)) => Ok(usage),
                Some((Reply::Failed(why), _)) => anyhow::bail!(why),
                _ => Ok(BTreeMap::new()),
            }
        };
        receive().unwrap_or_else(|error| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            note(format_args!(
                "warning: pod {name:?} does not tell what its volumes take: {error:#}"
            ));
            BTreeMap::new()
        })
    }
}

fn told(home: &Home, volume: &Volume, mounted: &BTreeMap<String, Report>) -> Told {
    let (kind, source) = source(volume);
    let reported = mounted.get(&volume.name);
    let mut told = Told {
        name: volume.name.clone(),
        kind,
        source,
        limit: None,
        enforcement: None,
        claim: None,
        usage: match reported {
            Some(Report::Usage(usage)) => Some(*usage),
            _ => None,
        },
        unreachable: reported == Some(&Report::Unreachable),
    };
    let Some(empty_dir) = &volume.empty_dir else {
        return told;
    };
    let volumes = File::open(home.volumes()).ok();
    let volumes = volumes.as_ref().map(AsFd::as_fd);
    told.enforcement = volumes.and_then(|volumes| empty_dir::enforcement(volumes, volume));
    told.limit = empty_dir::limit(empty_dir);
    match told.enforcement {
        Some(by @ (Enforcement::Tmpfs | Enforcement::HugePages)) => {
            told.source = if by == Enforcement::Tmpfs {
                "tmpfs"
            } else {
                "hugetlbfs"
            }
            .to_owned();
            // Every tmpfs has a size: the pod's limit of memory, or the machine's.
            told.limit = told.limit.or(told.usage.map(|usage| usage.capacity_bytes));
        }
        Some(Enforcement::LoopImage) => {
            let image = home.data().join("plugins").join(PLUGIN).join(&volume.name);
            told.source = image.display().to_string();
            // The file system has a little more room, for what it needs itself.
            if let (Some(usage), Some(limit)) = (&mut told.usage, told.limit) {
                usage.capacity_bytes = usage.capacity_bytes.min(limit);
                let left = limit.saturating_sub(usage.used_bytes);
                usage.available_bytes = usage.available_bytes.min(left);
            }
        }
        Some(Enforcement::ProjectQuota) => {
            told.source = on_disk(home, volume).display().to_string()
        }
        None => {
            told.source = on_disk(home, volume).display().to_string();
            let directory =
                volumes.and_then(|volumes| empty_dir::open_on_disk(volumes, &volume.name));
            told.usage = directory.and_then(|directory| usage::of_directory(directory).ok());
        }
    }
    told
}

/// Tells of a claim's volume what is behind the claim: `claim -> volume -> path`.
fn claim_of(machine: &Machine, pod: &Pod, volume: &Volume, told: &mut Told) -> Result<()> {
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => source.claim_name.clone(),
        (None, Some(_)) => format!("{own}-{}", volume.name),
        (None, None) => return Ok(()),
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let found: Option<PersistentVolumeClaim> = machine.store.object(namespace, &claim)?;
    let name = found.as_ref().and_then(facts::volume_of_claim);
    let mut chain = vec![claim.clone()];
    if let Some(name) = name {
        chain.push(name.to_owned());
        let volume: Option<PersistentVolume> = machine.store.object("", name)?;
        if let Some(volume) = &volume
            && let Ok((behind, options)) = claims::source(volume, &told.name, false)
        {
            let (kind, place) = source(&behind);
            told.kind = if options.is_local {
                "local".to_owned()
            } else {
                kind
            };
            chain.push(place);
        }
    }
    told.source = chain.join(" -> ");
    told.claim = Some(Claimed {
        claim,
        volume: name.map(str::to_owned),
    });
    Ok(())
}

fn on_disk(home: &Home, volume: &Volume) -> PathBuf {
    home.volumes().join(PLUGIN).join(&volume.name)
}

/// The kind of a volume, and what its source is called.
fn source(volume: &Volume) -> (String, String) {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let fields = value.as_object().cloned().unwrap_or_default();
    let Some((kind, source)) = fields.into_iter().find(|(key, _)| key != "name") else {
        return ("emptyDir".to_owned(), String::new());
    };
    let text = |key: &str| source[key].as_str().map(str::to_owned);
    let named = ["name", "secretName", "claimName", "reference", "driver"];
    let path = match NfsSource::of(volume, None) {
        Some(nfs) => Some(nfs.export()),
        None => text("path"),
    };
    let name = named.into_iter().find_map(text);
    (kind, path.or(name).unwrap_or_default())
}

impl Told {
    /// The volume for programs.
    pub(super) fn json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("volume", json!(self.name));
        put("type", json!(self.kind));
        put("source", json!(self.source));
        if let Some(claimed) = &self.claim {
            put("claim", json!(claimed.claim));
            put("persistentVolume", json!(claimed.volume));
        }
        if let Some(limit) = self.limit {
            put("limitBytes", json!(limit));
        }
        if let Some(by) = self.enforcement {
            put("enforcement", json!(by.as_str()));
        }
        if self.unreachable {
            put("unreachable", json!(true));
        }
        if let Some(usage) = self.usage
            && let Ok(Value::Object(usage)) = serde_json::to_value(usage)
        {
            object.extend(usage);
        }
        object
    }
}

/// A size for people, with three digits at the most: `0`, `512`, `1.5Ki`, `16Mi`.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut unit = None;
    // In tenths, rounded up: what is taken is never told too small.
    let mut tenths = u128::from(bytes) * 10;
    for name in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths = tenths.div_ceil(1024);
        unit = Some(name);
    }
    let unit = unit.unwrap_or("");
    match tenths % 10 {
        tenth if tenth != 0 && tenths < 100 => format!("{}.{tenth}{unit}", tenths / 10),
        _ => format!("{}{unit}", tenths.div_ceil(10)),
    }
}

/// A limit for people: as the manifest has it where it does.
pub(super) fn limit_text(volume: &Told, pod: &Pod) -> Option<String> {
    let mut volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let written = volumes
        .find(|one| one.name == volume.name)
        .and_then(|one| one.empty_dir.as_ref()?.size_limit.as_ref())
        .filter(|limit| limit.0.parse::<Quantity>().is_ok_and(|q| q.to_bytes() > 0));
    match written {
        Some(limit) => Some(limit.0.clone()),
        None => volume.limit.map(human),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_never_too_small() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1025, "1.1Ki"),
            (1536, "1.5Ki"),
            (10 * 1024 + 1, "11Ki"),
            (16 << 20, "16Mi"),
            ((16 << 20) + 1, "17Mi"),
            (1 << 30, "1Gi"),
            (u64::MAX, "16Ei"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn every_kind_of_volume_has_a_source_to_be_told() {
        for (volume, kind, name) in [
            (json!({"name": "v", "emptyDir": {}}), "emptyDir", ""),
            (
                json!({"name": "v", "hostPath": {"path": "/srv"}}),
                "hostPath",
                "/srv",
            ),
            (
                json!({"name": "v", "configMap": {"name": "c"}}),
                "configMap",
                "c",
            ),
            (
                json!({"name": "v", "secret": {"secretName": "s"}}),
                "secret",
                "s",
            ),
            (
                json!({"name": "v", "nfs": {"server": "10.0.0.1", "path": "/e"}}),
                "nfs",
                "10.0.0.1:/e",
            ),
        ] {
            let volume = serde_json::from_value(volume).expect("a volume");
            assert_eq!(source(&volume), (kind.to_owned(), name.to_owned()));
        }
    }
}
