use arrow::array::AsArray;
use event_schema::wire::decode;

use super::*;
use crate::import::ingero::TABLES;

fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap()
}

fn key(kind: RecordKind) -> ParcelKey {
    ParcelKey { node: "n1".to_owned(), kind, part: Part::Whole }
}

fn event_row(id: i64) -> Row {
    let mut cells = vec![Value::Long(id), Value::Long(1_000 + id)];
    cells.resize(12, Value::Long(1));
    cells.resize(17, Value::Null);
    Row { node: None, cells }
}

fn boot_id(rows: &[Row], key: &ParcelKey) -> String {
    let mut print = Fingerprint::default();
    rows.iter().for_each(|row| print.add(&row.cells));
    print.boot_id(key)
}

#[test]
fn events_are_cut_into_messages_that_follow_one_another() {
    let mut packer = Packer::new(&key(RecordKind::Event), "b".to_owned(), "c", "ingero").unwrap();
    let mut messages = Vec::new();
    for id in 0..(ROWS_PER_MESSAGE + 2) {
        messages.extend(packer.add(table("events"), id, event_row(id), 0).unwrap());
    }
    messages.extend(packer.finish().unwrap());
    let decoded: Vec<_> = messages.iter().map(|message| decode(message).unwrap()).collect();
    assert_eq!(decoded.iter().map(|d| d.header.rows).collect::<Vec<_>>(), [ROWS_PER_MESSAGE as u32, 2]);
    assert_eq!(decoded[1].header.first_seq, decoded[0].header.end_seq());
    assert_eq!(decoded[1].header.losses.emitted, 2);
    assert_eq!(decoded[1].header.beacon, Beacon::WALL);
    let ids = decoded[1].batch.column_by_name("source_id").unwrap().as_string::<i32>();
    assert_eq!(ids.value(0), ROWS_PER_MESSAGE.to_string());
}

#[test]
fn a_message_ends_where_numbers_are_left_out() {
    let mut packer = Packer::new(&key(RecordKind::Event), "b".to_owned(), "c", "ingero").unwrap();
    let mut messages = Vec::new();
    for id in [5, 6, 9, 10, 11] {
        messages.extend(packer.add(table("events"), id, event_row(id), 0).unwrap());
    }
    messages.extend(packer.finish().unwrap());
    let headers = messages.iter().map(|message| decode(message).unwrap().header);
    assert_eq!(headers.map(|h| (h.first_seq, h.rows)).collect::<Vec<_>>(), [(5, 2), (9, 3)]);
}

#[test]
fn the_same_rows_always_make_the_same_message() {
    let pack = || {
        let mut packer = Packer::new(&key(RecordKind::Event), "b".to_owned(), "c", "ingero").unwrap();
        packer.add(table("events"), 0, event_row(1), 0).unwrap();
        packer.finish().unwrap().unwrap()
    };
    assert_eq!(pack(), pack());
}

#[test]
fn identity_follows_from_content_node_and_kind() {
    let (rows, event) = ([event_row(1), event_row(2)], key(RecordKind::Event));
    let id = boot_id(&rows, &event);
    assert_eq!(id, boot_id(&rows, &event));
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 8);
    assert_ne!(id, boot_id(&rows[..1], &event));
    assert_ne!(id, boot_id(&[event_row(2), event_row(1)], &event));
    assert_ne!(id, boot_id(&rows, &ParcelKey { node: "n2".to_owned(), ..event.clone() }));
    let of_session =
        |rows: &[Row], started_ns| boot_id(rows, &ParcelKey { part: Part::Session(started_ns), ..event.clone() });
    assert_eq!(of_session(&rows, 7), of_session(&rows[..1], 7), "whatever of its rows a file has");
    assert_ne!(of_session(&rows, 7), of_session(&rows, 8));
    // A column that an older schema lacks reads as null and changes nothing.
    let mut longer = rows.clone();
    longer.iter_mut().for_each(|row| row.cells.push(Value::Null));
    assert_eq!(id, boot_id(&longer, &key(RecordKind::Event)));
}

#[test]
fn a_cell_that_cannot_be_what_it_should_is_named() {
    let mut packer = Packer::new(&key(RecordKind::Event), "b".to_owned(), "c", "ingero").unwrap();
    let mut row = event_row(1);
    row.cells[2] = Value::Long(1 << 40);
    let error = packer.add(table("events"), 0, row, 0).unwrap_err();
    assert_eq!(error.to_string(), "column `pid` holds Long(1099511627776), expected an integer of 32 bits");
}

#[test]
fn other_kinds_take_their_fields_by_name() {
    let mut packer = Packer::new(&key(RecordKind::Stack), "b".to_owned(), "c", "ingero").unwrap();
    let cells = vec![Value::Long(-5), Value::Text("[]".to_owned()), Value::Text("[{}]".to_owned())];
    packer.add(table("stack_traces"), 0, Row { node: None, cells }, 77).unwrap();
    let decoded = decode(&packer.finish().unwrap().unwrap()).unwrap();
    assert_eq!(decoded.header.first_boot_ns, 77);
    assert_eq!(decoded.batch.column_by_name("frames").unwrap().as_string::<i32>().value(0), "[{}]");
}
