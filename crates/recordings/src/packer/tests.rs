use arrow::array::AsArray;
use event_schema::stream::Stream;
use event_schema::wire::decode;

use super::*;
use crate::ingero::TABLES;

const T0: i64 = 1_780_000_000_000_000_000;

fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap()
}

fn key(node: &str, seq: i64) -> RowKey {
    let stream = StreamId { node: node.into(), boot_id: "b".into(), epoch: 0, stream: Stream::Data };
    RowKey { stream, seq }
}

fn event_row(id: i64, comm: &str) -> Row {
    let mut cells = vec![Value::Long(id), Value::Long(T0 + id)];
    cells.resize(13, Value::Long(1));
    cells.push(Value::Text(comm.to_owned()));
    cells.resize(17, Value::Null);
    Row { node: None, cells }
}

/// Packs events: node, number, name, time.
fn packed(events: impl IntoIterator<Item = (&'static str, i64, String, i64)>) -> Vec<wire::Decoded> {
    let mut packer = Packer::new(RecordKind::Event, "c", "ingero");
    let mut messages = Vec::new();
    for (node, seq, comm, ns) in events {
        messages.extend(packer.add(table("events"), key(node, seq), event_row(seq, &comm), ns).unwrap());
    }
    messages.extend(packer.finish().unwrap());
    messages.iter().map(|packed| decode(&packed.message).unwrap()).collect()
}

fn shape(messages: &[wire::Decoded]) -> Vec<(i64, u32)> {
    messages.iter().map(|message| (message.header.first_seq, message.header.rows)).collect()
}

#[test]
fn a_message_ends_when_it_has_enough_rows() {
    let rows = i64::from(ROWS_MAX) + 2;
    let messages = packed((0..rows).map(|seq| ("n1", seq, "train".to_owned(), T0)));
    assert_eq!(shape(&messages), [(0, ROWS_MAX), (i64::from(ROWS_MAX), 2)]);
    assert_eq!(messages[1].header.losses.emitted, 2);
    assert_eq!(messages[1].header.beacon, Beacon::WALL);
    let ids = messages[1].batch.column_by_name("source_id").unwrap().as_string::<i32>();
    assert_eq!(ids.value(0), ROWS_MAX.to_string());
}

#[test]
fn a_message_ends_where_numbers_are_left_out_or_time_leaps() {
    let at = |seq, ns| ("n1", seq, String::new(), ns);
    assert_eq!(shape(&packed([5, 6, 9, 10, 11].map(|seq| at(seq, T0)))), [(5, 2), (9, 3)]);
    let leaps = [at(0, T0), at(1, T0 + SPAN_NS_MAX - 1), at(2, T0 + SPAN_NS_MAX), at(3, T0), at(4, T0 + 1)];
    assert_eq!(shape(&packed(leaps)), [(0, 2), (2, 1), (3, 2)]);
}

#[test]
fn a_message_ends_before_it_has_too_many_bytes() {
    let large = "x".repeat(BYTES_MAX / 3);
    let rows = (0..8).map(|seq| ("n1", seq, format!("{seq}{large}"), T0));
    assert_eq!(shape(&packed(rows)), [(0, 2), (2, 2), (4, 2), (6, 2)]);
    // One that is too large for any takes one of its own.
    let huge = "y".repeat(3 * BYTES_MAX);
    let rows = [("n1", 0, String::new(), T0), ("n1", 1, huge, T0), ("n1", 2, String::new(), T0)];
    assert_eq!(shape(&packed(rows)), [(0, 1), (1, 1), (2, 1)]);
}

#[test]
fn nodes_that_take_turns_fill_a_message_each() {
    let messages = packed((0..10).map(|i| (["n1", "n2"][(i % 2) as usize], i / 2, String::new(), T0)));
    assert_eq!(shape(&messages), [(0, 5), (0, 5)]);
    assert_eq!(messages[0].header.node, "n1");
    assert_eq!(messages[1].header.node, "n2");
}

#[test]
fn other_kinds_take_their_fields_by_name() {
    let mut packer = Packer::new(RecordKind::Stack, "c", "ingero");
    let cells = vec![Value::Long(-5), Value::Text("[]".to_owned()), Value::Text("[{}]".to_owned())];
    packer.add(table("stack_traces"), key("n1", 0), Row { node: None, cells }, T0).unwrap();
    let decoded = decode(&packer.finish().unwrap()[0].message).unwrap();
    assert_eq!(decoded.header.first_boot_ns, T0);
    assert_eq!(decoded.batch.column_by_name("frames").unwrap().as_string::<i32>().value(0), "[{}]");
}
