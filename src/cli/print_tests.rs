use super::*;

const FULL_POD: &str = include_str!("../../tests/pages/full-pod.json");
const FULL_YAML: &str = include_str!("../../tests/pages/full-pod.yaml");

#[test]
fn yaml_is_kubectls_but_for_whole_long_lines_and_quoted_addresses() {
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_str(FULL_POD).unwrap();
    let yaml = objects(&[pod], false, Format::Yaml).unwrap();
    for (number, (line, expected)) in yaml.lines().zip(FULL_YAML.lines()).enumerate() {
        assert_eq!(line, expected, "line {}", number + 1);
    }
    assert_eq!(yaml, FULL_YAML);
}

#[test]
fn yaml_reads_back_as_what_was_written_whatever_the_text() {
    for text in [
        "",
        " ",
        "yes",
        "no",
        "on",
        "null",
        "~",
        "1",
        "1e3",
        "0x1f",
        "0644",
        "1_000",
        "12:30:45",
        "2026-01-01",
        "- a",
        "a: b",
        "a #b",
        "#b",
        "&a",
        "*a",
        "!t",
        "%d",
        "@x",
        "`x`",
        "{}",
        "[]",
        "?",
        "-",
        "--- x",
        "...",
        "a\nb",
        "a\n",
        "\na",
        "a\n\n",
        "  a\nb",
        "a\tb",
        "\ta",
        "tab\t\nend ",
        "'",
        "\"",
        "\\",
        "\u{1b}[0m",
        "\r\n",
        "ü \u{feff} \u{2028}",
        "x ",
        ".5",
        "=",
        "<<",
        "|",
        ">",
        "true\n",
        "a\r",
        "trailing space \nb",
    ] {
        let written = yaml(&json!({"key": [text], text: "value"})).unwrap();
        let read: Value = serde_saphyr::from_str(&written)
            .unwrap_or_else(|error| panic!("{text:?} became\n{written}: {error}"));
        assert_eq!(read, json!({"key": [text], text: "value"}), "{written}");
    }
}

#[test]
fn a_table_keeps_each_row_on_its_line_and_out_of_the_terminal() {
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let text = table(
        Some(&["A", "MESSAGE", "LAST"]),
        &[
            row(["x", "one\ntwo", "\u{1b}[31m"]),
            row(["a-long-name", "ümläut\ttab", ""]),
        ],
    );
    let expected = "\
A             MESSAGE         LAST
x             one...          ^[[31m
a-long-name   ümläut    tab   
";
    assert_eq!(text, expected);
}

#[test]
fn errors_of_the_store_have_kubectls_words() {
    let name = || "web".to_owned();
    let resource = "pods";
    for (error, line) in [
        (
            StoreError::NotFound {
                resource,
                name: name(),
            },
            r#"Error from server (NotFound): pods "web" not found"#,
        ),
        (
            StoreError::AlreadyExists {
                resource,
                name: name(),
            },
            r#"Error from server (AlreadyExists): pods "web" already exists"#,
        ),
        (
            StoreError::Forbidden {
                name: name(),
                field: "spec.volumes".into(),
            },
            "The Pod \"web\" is invalid: spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
             `spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds`: spec.volumes differs",
        ),
        (
            StoreError::Foreign {
                path: "/x/orlop.db".into(),
            },
            r#"error: "/x/orlop.db" is not a database that orlop made: move it away"#,
        ),
    ] {
        assert_eq!(error_line(&error.into()), line);
    }
}
