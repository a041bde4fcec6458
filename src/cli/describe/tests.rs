use jiff::SignedDuration;

use super::*;
use crate::storage::events::{Event, EventType};
use crate::storage::roots::Roots;
use crate::storage::store::Durability;

const FULL_POD: &str = include_str!("../../../tests/pages/full-pod.json");
const FULL_PAGE: &str = include_str!("../../../tests/pages/full-pod.txt");

fn full_pod() -> Pod {
    serde_json::from_str(FULL_POD).unwrap()
}

fn event(type_: EventType, reason: &str, field_path: &str, message: &str) -> Event {
    Event {
        namespace: "default".into(),
        kind: "Pod".into(),
        name: "full".into(),
        uid: "u".into(),
        field_path: field_path.into(),
        type_,
        reason: reason.into(),
        message: message.into(),
        source: "orlop".into(),
    }
}

fn utc_page(pod: &Pod, events: Option<&[RecordedEvent]>, now: Timestamp) -> String {
    page(pod, events, now, &TimeZone::UTC, &Limits::new())
}

#[test]
fn a_pod_with_everything_looks_as_in_kubectl() {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let seen = |event, count, first, last| RecordedEvent {
        event,
        count,
        first: now - SignedDuration::from_secs(first),
        last: now - SignedDuration::from_secs(last),
    };
    let scheduled = "Successfully assigned default/full to node-1";
    let backoff = "Back-off restarting failed container";
    let broken = "spec.containers{broken}";
    let events = [
        seen(
            event(EventType::Normal, "Scheduled", "", scheduled),
            1,
            3000,
            3000,
        ),
        seen(
            event(
                EventType::Normal,
                "Started",
                "spec.containers{web}",
                "Started container web\n",
            ),
            1,
            2990,
            2990,
        ),
        seen(
            event(EventType::Warning, "BackOff", broken, backoff),
            12,
            1800,
            300,
        ),
    ];
    let page = utc_page(&full_pod(), Some(&events), now);
    for (number, (line, expected)) in page.lines().zip(FULL_PAGE.lines()).enumerate() {
        assert_eq!(line, expected, "line {}", number + 1);
    }
    assert_eq!(page, FULL_PAGE);
}

#[test]
fn a_pod_that_nobody_has_looked_at_yet_has_a_page_too() {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "new", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }))
    .unwrap();
    let expected = "\
Name:         new
Namespace:    default
Node:         <none>
Labels:       <none>
Annotations:  <none>
Status:       Pending
IP:           
IPs:          <none>
Containers:
  c:
    Image:        busybox
    Port:         <none>
    Host Port:    <none>
    Environment:  <none>
    Mounts:       <none>
Volumes:          <none>
QoS Class:        BestEffort
Node-Selectors:   <none>
Tolerations:      <none>
Events:           <none>
";
    assert_eq!(utc_page(&pod, Some(&[]), Timestamp::UNIX_EPOCH), expected);
}

#[test]
fn a_pod_that_ends_says_for_how_long_already() {
    let mut pod = full_pod();
    let deadline: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        deadline,
    ));
    pod.metadata.deletion_grace_period_seconds = Some(30);
    let page = utc_page(&pod, None, deadline + SignedDuration::from_secs(12));
    assert!(
        page.contains("\nStatus:                    Terminating (lasts 12s)\n"),
        "{page}"
    );
    assert!(
        page.contains("\nTermination Grace Period:  30s\n"),
        "{page}"
    );
}

#[test]
fn nothing_in_a_pod_can_steer_the_terminal() {
    let mut pod = full_pod();
    let annotations = pod.metadata.annotations.as_mut().unwrap();
    annotations.insert("evil".into(), "\u{1b}[2J\u{7}\r\tx".into());
    pod.spec.as_mut().unwrap().containers[0].args = Some(vec!["\u{1b}]0;title\u{9c}".into()]);
    let page = utc_page(&pod, None, Timestamp::UNIX_EPOCH);
    assert!(!page.contains(|c: char| c.is_control() && c != '\n'));
    assert!(page.contains("evil: ^[[2J\\u{7}\\r    x"), "{page}");
}

#[test]
fn pods_are_found_by_name_by_beginning_or_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots::new(Some(dir.path()), None, None).unwrap();
    let store = Store::open(&roots, Durability::Full).unwrap();
    for name in ["web-1", "web-2", "web"] {
        let mut pod = full_pod();
        pod.metadata.name = Some(name.into());
        store.create_pod(pod).unwrap();
    }
    let describe = |words: &[&str]| {
        let args = DescribeArgs {
            resources: words.iter().map(|word| (*word).to_owned()).collect(),
            namespace: "default".into(),
            selector: None,
            all_namespaces: false,
            show_events: true,
        };
        let now = Timestamp::now();
        answer(&args, &store, now, "boot", &TimeZone::UTC, &|_| {
            Limits::new()
        })
        .unwrap()
    };
    let pages = |words: &[&str]| describe(words).out.matches("Namespace:").count();
    assert_eq!(pages(&["pods"]), 3);
    assert_eq!(pages(&["pod", "web"]), 1);
    assert_eq!(pages(&["pod/web-"]), 2);
    assert!(describe(&["po", "web-"]).out.contains("<none>\n\n\nName:"));

    let missing = describe(&["pod", "db", "web"]);
    assert!(missing.failed);
    assert_eq!(
        missing.errors,
        [r#"Error from server (NotFound): pods "db" not found"#]
    );
    assert_eq!(missing.out.matches("Namespace:").count(), 1);
}
