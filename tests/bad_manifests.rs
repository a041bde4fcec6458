//! Bad input: each manifest that is wrong gets one sentence that names file,
//! document, field and reason, quickly, and nothing is returned.

use orlop::kube::manifest::{Document, LARGEST, Object, Source, load};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The processor time that this thread has used, which a busy machine does not
/// stretch as it does the time on the wall.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time since zero")
}

fn load_path(path: &Path) -> Result<Vec<Document>, String> {
    load(&[Source::Path(path.to_owned())]).map_err(|error| error.to_string())
}

/// The one sentence that a file of these bytes gets, without the path of the
/// directory it was in.
fn sentence(bytes: impl AsRef<[u8]>) -> String {
    let directory = directory();
    let path = directory.path().join("pod.yaml");
    fs::write(&path, bytes).expect("a written file");
    let start = processor_time();
    let error = load_path(&path).expect_err("a bad manifest");
    let took = processor_time() - start;
    assert!(took < Duration::from_secs(10), "took {took:?}: {error}");
    assert!(!error.contains('\n'), "one line: {error}");
    assert!(!error.chars().any(char::is_control), "printable: {error:?}");
    assert!(error.len() < 4000, "short: {} bytes", error.len());
    let shown = format!("{:?}", path.to_string_lossy());
    assert!(error.contains(&shown), "names the file: {error}");
    error.replace(&shown, "pod.yaml")
}

/// A pod of one container, with `spec` after its containers.
fn pod(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: a\n    image: b\n{spec}"
    )
}

#[test]
fn the_shipped_manifests_are_good() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("specs")).expect("specs") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let documents = load_path(&path).expect("a good manifest");
            assert!(!documents.is_empty(), "{}", path.display());
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/producer-consumer.yaml");
    let documents = load_path(&path).expect("a good manifest");
    let Object::Pod(pod) = &documents[0].object else {
        panic!("a pod");
    };
    let spec = pod.spec.as_ref().expect("a spec");
    assert_eq!(spec.containers.len(), 2);
    assert_eq!(
        spec.containers[0].image_pull_policy.as_deref(),
        Some("Always")
    );
}

#[test]
fn files_that_are_not_there_or_not_text() {
    let directory = directory();
    let path = directory.path().join("none.yaml");
    let error = load_path(&path).expect_err("no file");
    assert_eq!(error, format!("the path {path:?} does not exist"));
    let error = load_path(Path::new("https://example.com/pod.yaml")).expect_err("no file");
    assert_eq!(
        error,
        "the path \"https://example.com/pod.yaml\" does not exist (addresses are not fetched: download the file first)"
    );
    assert_eq!(
        sentence([0xff, 0xfe, b'a', 0]),
        "pod.yaml is not a manifest: its text is UTF-16; save it as UTF-8"
    );
    assert_eq!(
        sentence(b"a: 1\nb: \0\n"),
        "pod.yaml is not a manifest: it has a NUL byte on line 2"
    );
    assert_eq!(
        sentence(b"a: 1\nb: \xc3\x28\n"),
        "pod.yaml is not a manifest: line 2 is not UTF-8 text"
    );
    let binary: Vec<u8> = (0..100_000_u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    assert!(sentence(binary).starts_with("pod.yaml is not a manifest:"));
}

#[test]
fn files_without_objects() {
    for text in [
        "",
        "\n\n",
        "---",
        "---\n---\n",
        "# only a comment\n",
        "---\n...\n",
        "null\n",
        "   ",
    ] {
        assert_eq!(
            sentence(text),
            "no objects passed to apply (pod.yaml has no object in it)",
            "{text:?}"
        );
    }
    assert_eq!(
        sentence("apiVersion: v1\nkind: List\nitems: []\n"),
        "no objects passed to apply (pod.yaml has no object in it)"
    );
}

#[test]
fn directories_stand_for_their_manifests_in_order() {
    let directory = directory();
    let path = directory.path();
    let error = load_path(path).expect_err("an empty directory");
    assert!(
        error.ends_with("recognized file extensions are .json, .yaml and .yml"),
        "{error}"
    );
    for (name, text) in [
        ("b.yml", pod("").replace("web", "second")),
        ("a.yaml", pod("").replace("web", "first")),
        ("c.JSON", r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"third"},"spec":{"containers":[{"name":"a","image":"b"}]}}"#.to_owned()),
        ("d.yaml", "# nothing today\n".to_owned()),
        ("notes.txt", "not a manifest".to_owned()),
    ] {
        fs::write(path.join(name), text).expect("a written file");
    }
    fs::create_dir(path.join("e.yaml")).expect("a directory");
    let documents = load_path(path).expect("three pods");
    let names: Vec<_> = documents.iter().map(|d| d.object.name()).collect();
    assert_eq!(names, ["first", "second", "third"]);

    fs::write(path.join("z.yaml"), "a: [").expect("a written file");
    let error = load_path(path).expect_err("one bad file");
    assert!(
        error.contains("z.yaml\", document 1 (line 1): not valid YAML or JSON:"),
        "{error}"
    );
}

#[test]
fn objects_that_do_not_say_what_they_are() {
    let need = "(a pod begins with \"apiVersion: v1\" and \"kind: Pod\")";
    for (text, want) in [
        ("a: 1", format!("apiVersion and kind not set {need}")),
        ("kind: Pod", format!("apiVersion not set {need}")),
        ("apiVersion: v1", format!("kind not set {need}")),
        ("apiVersion: v1\nkind:", format!("kind not set {need}")),
        (
            "apiVersion: 1\nkind: Pod",
            "apiVersion: expected a string, found the number 1".to_owned(),
        ),
        (
            "- a",
            "expected an object with apiVersion, kind and metadata, found a list".to_owned(),
        ),
        (
            "just text",
            "expected an object with apiVersion, kind and metadata, found the string \"just text\""
                .to_owned(),
        ),
        (
            "apiVersion: v1\nkind: Foo",
            "no matches for kind \"Foo\" in version \"v1\"".to_owned(),
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment",
            "kind \"Deployment\" is not supported by this version of orlop".to_owned(),
        ),
    ] {
        assert_eq!(
            sentence(text),
            format!("pod.yaml, document 1 (line 1): {want}"),
            "{text}"
        );
    }
    let unnamed = pod("").replace("  name: web\n", "  labels: {}\n");
    assert_eq!(
        sentence(unnamed),
        "pod.yaml, document 1 (line 1): The Pod \"\" is invalid: metadata.name: Required value: name is required"
    );
}

#[test]
fn wrong_types_and_unknown_fields_name_the_field() {
    for (text, want) in [
        (
            pod("").replace("image: b", "image: 1.36"),
            "spec.containers[0].image: expected a string (put it in quotation marks), found the number 1.36",
        ),
        (
            pod("  volumes: data\n"),
            "spec.volumes: expected a list, found the string \"data\"",
        ),
        (
            pod("  volumes:\n  -\n"),
            "spec.volumes[0]: expected a mapping (Volume), found nothing",
        ),
        (
            pod("  - null\n"),
            "spec.containers[1]: expected a mapping (Container), found nothing",
        ),
        (
            pod("").replace("image: b", "imagee: b"),
            "strict decoding error: unknown field \"spec.containers[0].imagee\" (did you mean \"image\"?)",
        ),
        (
            pod("volume: []\n"),
            "strict decoding error: unknown field \"volume\"",
        ),
        (
            pod("    args: [\"a\\0b\"]\n"),
            "spec.containers[0].args[0]: must not contain a NUL character",
        ),
        (
            pod("    image: c\n"),
            "duplicate key \"image\" at line 9, column 5: remove one of the two",
        ),
        (
            pod("  initContainers: [{name: i, image: b, livenessProbe: {}}]\n"),
            "The Pod \"web\" is invalid: spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            pod("    volumeMounts: [{name: data, mountPath: /data}]\n"),
            "The Pod \"web\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
        ),
    ] {
        assert_eq!(
            sentence(text),
            format!("pod.yaml, document 1 (line 1): {want}")
        );
    }
}

#[test]
fn a_later_document_is_named_and_nothing_before_it_is_returned() {
    let text = format!(
        "{}---\n{}",
        pod(""),
        pod("  restartPolicy: Perhaps\n").replace("web", "two")
    );
    assert!(
        sentence(text).starts_with(
            "pod.yaml, document 2 (line 10): The Pod \"two\" is invalid: spec.restartPolicy: Unsupported value: \"Perhaps\""
        )
    );
}

#[test]
fn text_that_is_no_yaml() {
    for text in [
        "a:\n\tb: 1\n",
        "a: [1, 2\nb: 3\n",
        "a: b: c\n",
        "a: \"open\n",
        "{\"a\": 1,, }",
        "a: !secret x\n",
        "a: .nan\n",
        "%YAML 9.9\n%FOO\n---\n--- %\n",
        "a: *nowhere\n",
        ": :\n",
        "}",
        "\u{feff}\u{feff}: [",
        "\"\\x\": 1",
        "? [a]\n: b\n",
    ] {
        let sentence = sentence(text);
        assert!(
            sentence.starts_with("pod.yaml, document "),
            "{text:?}: {sentence}"
        );
        assert!(
            sentence.contains("not valid YAML or JSON: "),
            "{text:?}: {sentence}"
        );
    }
}

#[test]
fn alias_bombs_are_defused() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..40 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(",");
        text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert!(sentence(text).contains("refused as harmful: the aliases up to line "));
    let megabyte = "x".repeat(1 << 20);
    let text = format!("a: &a {megabyte}\nb: [{}]\n", vec!["*a"; 900].join(","));
    let error = sentence(text);
    assert!(
        error.ends_with(
            "refused as harmful: the aliases up to line 2 stand for more than 16 MiB of text"
        ),
        "{error}"
    );
    let text = "a: &a [*a]\nb: &b {<<: *b}\n";
    sentence(text);
    let merges: String = (1..2000)
        .map(|i| format!("m{i}: &m{i} {{<<: *m{}, k{i}: v}}\n", i - 1))
        .collect();
    sentence(format!("m0: &m0 {{k: v}}\n{merges}"));
}

#[test]
fn deep_nesting_is_refused_before_it_hurts() {
    for text in ["[", "{a: ", "- ", "? ", "{", "[{", "!!seq [", "&a ["] {
        let sentence = sentence(text.repeat(100_000));
        assert!(sentence.starts_with("pod.yaml, document 1"), "{sentence}");
        assert!(sentence.contains("inside one another"), "{sentence}");
    }
    let staircase: String = (0..2500)
        .map(|i| format!("{}a:\n", " ".repeat(i)))
        .collect();
    assert!(sentence(staircase).contains("more than 64 lists and mappings inside one another"));
    let json = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert!(sentence(json).starts_with("pod.yaml, document 1"));
}

#[test]
fn large_files_are_refused_without_being_parsed() {
    let want =
        "pod.yaml is larger than the 4 MiB that a manifest may have; split it into several files";
    let size = 10 << 20;
    assert_eq!(sentence(vec![b'x'; size]), want);
    assert_eq!(sentence(vec![0xff_u8; size]), want);
    assert_eq!(sentence(format!("a: \"{}\"", "x".repeat(size))), want);
    assert_eq!(sentence("- a\n".repeat(size / 4)), want);
    let start = processor_time();
    let error = load_path(Path::new("/dev/zero")).expect_err("endless");
    assert!(error.starts_with("\"/dev/zero\" is larger than"), "{error}");
    assert!(processor_time() - start < Duration::from_secs(5));
}

#[test]
fn files_of_just_the_largest_size_are_answered_quickly() {
    let size = usize::try_from(LARGEST).expect("small");
    let fill = |unit: &str| unit.repeat(size / unit.len());
    for text in [
        fill("x"),
        fill("- a\n"),
        fill("---\n"),
        fill("--- a\n"),
        fill("# c\n"),
        fill("{\"a\":1}"),
        fill("\n"),
        fill("a: b\n"),
        fill("[a, "),
        fill("&a "),
        (0..size / 16).map(|i| format!("k{i:09}: v\n")).collect(),
    ] {
        sentence(text);
    }
}

#[test]
fn ten_thousand_documents_are_good_and_more_are_too_many() {
    let minimal = |i: usize| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
        )
    };
    let text: String = (0..10_000).map(minimal).collect();
    let directory = directory();
    let path = directory.path().join("many.yaml");
    fs::write(&path, &text).expect("a written file");
    assert_eq!(load_path(&path).expect("many pods").len(), 10_000);
    let more = format!("{text}{}", minimal(10_000));
    assert!(
        sentence(more)
            .contains("refused as harmful: more than 10000 documents; split the file into several")
    );
}

#[test]
fn no_damage_to_a_manifest_makes_the_loader_panic() {
    let good =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/kube-apiserver-volumes.yaml"))
            .expect("specs");
    let directory = directory();
    let path = directory.path().join("pod.yaml");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 1).expect("63 bits")
    };
    let scraps: [&[u8]; 14] = [
        b"\t",
        b"\n",
        b"- ",
        b": ",
        b"[",
        b"{",
        b"&a ",
        b"*a ",
        b"|\n",
        b"'",
        b"\"",
        b"!!int ",
        b"null",
        b"\xf0\x9f",
    ];
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..=next() % 4 {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => {
                    let end = (at + next() % 40).min(bytes.len());
                    bytes.drain(at..end);
                }
                1 => drop(bytes.splice(at..at, scraps[next() % scraps.len()].iter().copied())),
                _ => bytes[at] = u8::try_from(next() % 256).expect("a byte"),
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        fs::write(&path, &bytes).expect("a written file");
        if let Err(error) = load_path(&path) {
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }
}
