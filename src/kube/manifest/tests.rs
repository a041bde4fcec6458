use super::*;

fn loaded(text: &str, namespace: Option<&str>) -> Result<Vec<Document>, String> {
    load_from(&[Source::Stdin], namespace, &mut text.as_bytes()).map_err(|error| error.to_string())
}

fn names(documents: &[Document]) -> Vec<(usize, &str, &str)> {
    let name = |d: &'_ Document| (d.index, d.object.kind().name());
    documents
        .iter()
        .map(|d| (name(d).0, name(d).1, d.object.name()))
        .collect()
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
    )
}

#[test]
fn documents_come_in_their_order_with_their_numbers() {
    let text = format!(
        "# head\n---\n---\n{}---\n# empty\n---\n{}",
        pod("a"),
        pod("b")
    );
    let documents = loaded(&text, None).expect("two pods");
    assert_eq!(names(&documents), [(1, "Pod", "a"), (2, "Pod", "b")]);
    assert_eq!(&*documents[0].source, "standard input");
}

#[test]
fn the_items_of_lists_are_objects_of_their_own() {
    let item = |name: &str| format!("  - {}", pod(name).trim_end().replace('\n', "\n    "));
    let text = format!(
        "apiVersion: v1\nkind: List\nmetadata: {{}}\nitems:\n{}\n{}\n",
        item("a"),
        item("b")
    );
    let documents = loaded(&text, None).expect("two pods");
    assert_eq!(names(&documents), [(1, "Pod", "a"), (1, "Pod", "b")]);
    let bad = text.replace("name: b", "name: B!");
    let error = loaded(&bad, None).expect_err("a bad name");
    assert!(
        error.starts_with("standard input, document 1 (line 1), items[1]: The Pod \"B!\" is invalid: metadata.name:"),
        "{error}"
    );
    let nested = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [5]}]";
    assert_eq!(
        loaded(nested, None).expect_err("no object"),
        "standard input, document 1 (line 1), items[0].items[0]: expected an object with apiVersion, kind and \
         metadata, found the number 5"
    );
}

#[test]
fn objects_come_complete_and_without_what_only_a_store_may_say() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}\n\
                spec: {containers: [{name: a, image: b}], volumes: [{name: v}]}\nstatus: {phase: Running}\n";
    let documents = loaded(text, None).expect("a pod");
    let Object::Pod(pod) = &documents[0].object else {
        panic!("no pod");
    };
    assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(pod.metadata.deletion_timestamp, None);
    assert_eq!(pod.status, None);
    let spec = pod.spec.as_ref().expect("a spec");
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert!(
        spec.volumes.as_ref().expect("volumes")[0]
            .empty_dir
            .is_some()
    );
}

#[test]
fn a_namespace_of_the_command_must_be_the_objects_own() {
    let documents = loaded(&pod("a"), Some("shop")).expect("a pod");
    assert_eq!(documents[0].object.namespace(), "shop");
    let elsewhere = pod("a").replace("name: a}", "name: a, namespace: lab}");
    assert_eq!(loaded(&elsewhere, Some("lab")).expect("a pod").len(), 1);
    assert_eq!(
        loaded(&elsewhere, Some("shop")).expect_err("another namespace"),
        "standard input, document 1 (line 1): the namespace from the provided object \"lab\" does not match the \
         namespace \"shop\"; you must pass '--namespace=lab' to perform this operation"
    );
}

#[test]
fn the_same_object_twice_is_an_error_that_names_both() {
    let text = format!("{}---\n{}---\n{}", pod("a"), pod("b"), pod("a"));
    assert_eq!(
        loaded(&text, None).expect_err("twice"),
        "standard input, document 3 (line 11): Pod \"default/a\" was already defined in standard input, document 1 \
         (line 1); remove or rename one of the two"
    );
}

#[test]
fn several_faults_of_an_object_are_one_sentence() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  restartPolicy: Maybe\n  containers:\n  - name: a\n";
    assert_eq!(
        loaded(text, None).expect_err("two faults"),
        "standard input, document 1 (line 1): The Pod \"web\" is invalid: [spec.restartPolicy: Unsupported value: \
         \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\", spec.containers[0].image: Required value]"
    );
    let many: String = (0..30).map(|i| format!("  - name: c{i}\n")).collect();
    let text = text.replace("  - name: a\n", &many);
    let error = loaded(&text, None).expect_err("31 faults");
    assert!(
        error.ends_with("spec.containers[8].image: Required value and 21 more]"),
        "{error}"
    );
}
