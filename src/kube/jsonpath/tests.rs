use serde_json::json;

use super::*;

/// The example of kubectl's documentation, and some more.
fn example() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
             "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
            {"kind": "None", "metadata": {"name": "127.0.0.2"},
             "status": {"capacity": {"cpu": "8"}, "addresses": [
                {"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}},
        ],
        "users": [
            {"name": "myself", "user": {}},
            {"name": "e2e", "user": {"username": "admin", "password": "secret"}, "age": 7, "on": true},
        ],
    })
}

#[test]
fn the_examples_of_kubectls_documentation_work() {
    for (template, wanted) in [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        ("{['kind']}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        (
            "{.items[*]['metadata.name', 'kind']}",
            "127.0.0.1 None 127.0.0.2 None",
        ),
        ("{.users[?(@.name==\"e2e\")].user.password}", "secret"),
        (
            "{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}] {end}",
            "[127.0.0.1, 4] [127.0.0.2, 8] ",
        ),
        (
            "{range .items[*]}{.metadata.name}{'\\t'}{end}",
            "127.0.0.1\t127.0.0.2\t",
        ),
        (
            "{.items[0].metadata.labels.kubernetes\\.io/hostname}",
            "127.0.0.1",
        ),
        (
            "{.items[0].metadata.labels['kubernetes\\.io/hostname']}",
            "127.0.0.1",
        ),
    ] {
        let template = Template::new(template).expect(template);
        assert_eq!(
            template.render(&example()).expect("rendered"),
            wanted,
            "{template:?}"
        );
    }
}

#[test]
fn slices_filters_and_values_of_all_kinds() {
    for (template, wanted) in [
        ("{.items[0:2].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.items[1:].metadata.name}", "127.0.0.2"),
        ("{.items[:-1].metadata.name}", "127.0.0.1"),
        ("{.items[::2].metadata.name}", "127.0.0.1"),
        ("{.users[0,1].name}", "myself e2e"),
        ("{.users[?(@.age)].name}", "e2e"),
        ("{.users[?(@.age>6)].name}", "e2e"),
        ("{.users[?(@.age>=8)].name}", ""),
        ("{.users[?(@.on==true)].name}", "e2e"),
        ("{.users[?(@.name!='e2e')].name}", "myself"),
        (
            "{.users[1].user}",
            "{\"password\":\"secret\",\"username\":\"admin\"}",
        ),
        ("{.users[1].age} {.users[1].on}", "7 true"),
        (
            "{.items[*].status.addresses[?(@.type=='another')].address}",
            "127.0.0.3",
        ),
        (
            "{range .items[*]}{range .status.addresses[*]}{.address};{end}|{end}",
            "127.0.0.1;|127.0.0.2;127.0.0.3;|",
        ),
        (
            "{range .users[*]}{$.kind}-{@.name} {end}",
            "List-myself List-e2e ",
        ),
        ("{.missing}{.missing.deeper[3]}", ""),
        ("{.items[0].status.capacity.*}", "4"),
    ] {
        let template = Template::new(template).expect(template);
        assert_eq!(
            template.render(&example()).expect("rendered"),
            wanted,
            "{template:?}"
        );
    }
}

#[test]
fn one_path_is_written_in_three_ways() {
    for path in [
        ".users[0].name",
        "users[0].name",
        "{.users[0].name}",
        "{ .users[0].name }",
    ] {
        let template = Template::path(path).expect(path);
        assert_eq!(template.values(&example()), [&json!("myself")], "{path}");
    }
    assert!(Template::path("{.a}{.b}").is_err());
}

#[test]
fn what_is_no_template_is_explained() {
    for (template, why) in [
        ("{.x", "unclosed action"),
        ("{range .items[*]}{.x}", "{end} is missing"),
        ("{end}", "nothing to end"),
        ("{.x[}", "unterminated array"),
        ("{.x[a]}", "invalid array index a"),
        ("{.x[?(@.y==z)]}", "texts need quotation marks"),
        ("{.x[?(@.y=='z']}", "unterminated filter"),
        ("{'x}", "unterminated quoted string"),
        ("{%}", "unrecognized character in action: '%'"),
    ] {
        let error = Template::new(template).expect_err(template).to_string();
        assert!(
            error.contains(why) && error.starts_with("error parsing jsonpath {"),
            "{error}"
        );
    }
    let beyond = Template::new("{.items[5].kind}")
        .expect("template")
        .render(&example());
    assert_eq!(
        beyond.expect_err("out of bounds").to_string(),
        "error executing jsonpath \"{.items[5].kind}\": array index out of bounds: index 5, length 2"
    );
}
