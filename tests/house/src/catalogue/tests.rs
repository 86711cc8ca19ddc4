use super::*;

fn found_in(path: &str, text: &str) -> usize {
    retyped(&[File { path: path.to_owned(), text: text.to_owned() }]).len()
}

#[test]
fn a_name_or_number_that_is_typed_again_is_found() {
    for line in [
        "let name = \"runnable_wait\";",
        "Event { source: 3, ..event }",
        "Event { op: 22, ..event }",
        "if row.op == 22 {",
        "row.source != 3",
        "\"SELECT 1 FROM events WHERE op = 22\"",
        "\"SELECT 1 FROM events WHERE source IN (3, 4)\"",
        "const TOPIC: &str = \"causeway.events.v1\";",
        "[\"causeway.dlq.v1\"]",
    ] {
        assert_eq!(found_in("cli/src/audit.rs", line), 1, "{line}");
    }
}

#[test]
fn what_is_named_by_the_catalogue_is_not_found() {
    for line in [
        "Op::RunnableWait.name()",
        "source: op.source().number(),",
        "pub(crate) op: i32,",
        "let op = Op::Beacon;",
        "stop: 3, resource: 4",
        "/// Sent to `causeway.dlq.v1`.",
    ] {
        assert_eq!(found_in("cli/src/audit.rs", line), 0, "{line}");
    }
}

#[test]
fn the_catalogue_its_tests_and_the_names_of_symbols_are_let_be() {
    let text = "[\"cudaMalloc\"]";
    assert_eq!(found_in("crates/event-schema/src/catalog/ops.rs", text), 0);
    assert_eq!(found_in("bpf/src/probes/calls.rs", text), 0);
    assert_eq!(found_in("bpf/tests/it/calls.rs", text), 0);
    assert_eq!(found_in("cli/src/audit/tests.rs", text), 0);
    assert_eq!(found_in("cli/src/audit.rs", &format!("use x;\n#[cfg(test)]\nmod tests {{\n{text}\n}}\n")), 0);
    assert_eq!(found_in("cli/src/audit.rs", text), 1);
}
