use clap::Parser;
use serde_json::json;

use super::*;
use crate::storage::roots::Roots;
use crate::storage::store::Durability;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: GetArgs,
}

/// A store with `web` (running) and `db` (just created) in `default`, and
/// `dns` in `kube-system`.
struct Ship {
    _dir: tempfile::TempDir,
    store: Store,
    now: Timestamp,
}

impl Ship {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(Some(dir.path()), None, None).unwrap();
        let store = Store::open(&roots, Durability::Full).unwrap();
        let mut now = Timestamp::now();
        for (namespace, name) in [
            ("default", "web"),
            ("default", "db"),
            ("kube-system", "dns"),
        ] {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "busybox"}]},
            });
            let made = store
                .create_pod(serde_json::from_value(pod).unwrap())
                .unwrap();
            now =
                made.metadata.creation_timestamp.unwrap().0 + jiff::SignedDuration::from_secs(478);
            if name == "web" {
                let status = json!({
                    "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}],
                });
                let status = serde_json::from_value(status).unwrap();
                store
                    .set_pod_status(&made.metadata.uid.unwrap(), &status, "boot")
                    .unwrap();
            }
        }
        Self {
            _dir: dir,
            store,
            now,
        }
    }

    fn get(&self, line: &str) -> anyhow::Result<Answer> {
        let line = Line::parse_from(["get"].into_iter().chain(line.split(' ')));
        answer(&line.args, &self.store, self.now, "boot")
    }

    fn out(&self, line: &str) -> String {
        let answer = self.get(line).unwrap();
        assert!(!answer.failed && answer.errors.is_empty(), "{answer:?}");
        answer.out
    }

    fn refusal(&self, line: &str) -> String {
        print::error_line(&self.get(line).unwrap_err())
    }
}

#[test]
fn the_table_is_kubectls() {
    let ship = Ship::new();
    let table = "\
NAME   READY   STATUS    RESTARTS   AGE
db     0/1     Pending   0          7m58s
web    1/1     Running   0          7m58s
";
    for line in [
        "pods",
        "pod",
        "po",
        "Pods",
        "pods -n default",
        "pod db web",
        "pod/db pods/web",
    ] {
        assert_eq!(ship.out(line), table, "{line}");
    }
    assert_eq!(
        ship.out("pods --no-headers web"),
        "web   1/1   Running   0     7m58s\n"
    );
    let all = "\
NAMESPACE     NAME   READY   STATUS    RESTARTS   AGE
default       db     0/1     Pending   0          7m58s
default       web    1/1     Running   0          7m58s
kube-system   dns    0/1     Pending   0          7m58s
";
    assert_eq!(ship.out("pods -A"), all);
    let kinds = "\
NAME      READY   STATUS    RESTARTS   AGE
pod/db    0/1     Pending   0          7m58s
pod/web   1/1     Running   0          7m58s
";
    assert_eq!(ship.out("all"), kinds);
}

#[test]
fn the_wide_table_adds_addresses_and_nodes() {
    let wide = "\
NAME   READY   STATUS    RESTARTS   AGE     IP         NODE     NOMINATED NODE   READINESS GATES
db     0/1     Pending   0          7m58s   <none>     node-1   <none>           <none>
web    1/1     Running   0          7m58s   10.0.0.7   node-1   <none>           <none>
";
    assert_eq!(Ship::new().out("pods -o wide"), wide);
}

#[test]
fn names_are_kind_and_name() {
    assert_eq!(Ship::new().out("pods -o name"), "pod/db\npod/web\n");
}

#[test]
fn one_object_is_itself_and_several_are_a_list() {
    let ship = Ship::new();
    let one = ship.out("pod web -o yaml");
    assert!(
        one.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n  creationTimestamp: \""),
        "{one}"
    );
    assert!(
        one.contains(
            "\nspec:\n  containers:\n  - image: busybox\n    name: c\n  nodeName: node-1\nstatus:\n"
        ),
        "{one}"
    );
    let several = ship.out("pods -o yaml");
    assert!(
        several.starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n"),
        "{several}"
    );
    assert!(
        several.ends_with("\nkind: List\nmetadata:\n  resourceVersion: \"\"\n"),
        "{several}"
    );
    let json = ship.out("pod web -o json");
    assert!(
        json.starts_with("{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Pod\",\n"),
        "{json}"
    );
    let list: serde_json::Value =
        serde_json::from_str(&ship.out("pods -n nowhere -o json")).unwrap();
    assert_eq!(list["items"], json!([]));
}

#[test]
fn what_is_missing_is_told_after_what_is_there() {
    let ship = Ship::new();
    let answer = ship.get("pod nope web gone -o name").unwrap();
    assert_eq!(answer.out, "pod/web\n");
    assert_eq!(
        answer.errors,
        [
            r#"Error from server (NotFound): pods "nope" not found"#,
            r#"Error from server (NotFound): pods "gone" not found"#,
        ]
    );
    assert!(answer.failed);
    let none = ship.get("pod nope -o yaml").unwrap();
    assert!(none.failed && none.out.is_empty());
    assert_eq!(ship.out("pod nope --ignore-not-found"), "");
}

#[test]
fn nothing_is_no_failure() {
    let ship = Ship::new();
    let nothing = ship.get("pods -n nowhere").unwrap();
    assert_eq!(nothing.errors, ["No resources found in nowhere namespace."]);
    assert!(!nothing.failed);
    for pod in ship.store.pods(None).unwrap() {
        ship.store.remove_pod(&pod.metadata.uid.unwrap()).unwrap();
    }
    assert_eq!(ship.get("pods -A").unwrap().errors, ["No resources found"]);
}

#[test]
fn contradictions_are_told_in_one_sentence() {
    let ship = Ship::new();
    for (line, sentence) in [
        (
            "foo",
            r#"error: the server doesn't have a resource type "foo""#,
        ),
        (
            "pods -A web",
            "error: a resource cannot be retrieved by name across all namespaces",
        ),
        (
            "foo/web",
            r#"error: the server doesn't have a resource type "foo""#,
        ),
        (
            "pod/",
            r#"error: arguments in resource/name form must have a single resource and name: "pod/""#,
        ),
    ] {
        assert_eq!(ship.refusal(line), sentence, "{line}");
    }
    assert!(
        ship.refusal("pod pod/web")
            .starts_with("error: there is no need to specify a resource type")
    );
}
