use std::collections::BTreeSet;

use event_schema::identity::is_recording;

use super::*;
use crate::ingero::{Survey, TABLES};

const T0: i64 = 1_780_000_000_000_000_000;

fn table(name: &str) -> &'static Table {
    TABLES.iter().find(|table| table.name == name).unwrap()
}

fn row(table: &Table, first: &[Value]) -> Row {
    let mut cells = first.to_vec();
    cells.resize(table.columns.len(), Value::Null);
    Row { node: Some("n1".to_owned()), cells }
}

fn event(id: Value, ns: i64, pid: i64) -> Row {
    row(table("events"), &[id, Value::Long(ns), Value::Long(pid)])
}

fn session(started_ns: i64, kernel: &str) -> Session {
    let table = table("sessions");
    let mut of = row(table, &[Value::Long(started_ns)]);
    of.cells[7] = Value::Text(kernel.to_owned());
    let mut survey = Survey::default();
    survey.note(table, &of);
    survey.finish(None).unwrap().session_of("n1", Some(i64::MAX)).unwrap().clone()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn keys_of(name: &str, rows: &[Row], session: Option<&Session>) -> Vec<RowKey> {
    let mut keys = Keys::default();
    rows.iter().map(|row| keys.of(table(name), row, "n1", session).unwrap()).collect()
}

#[test]
fn events_of_a_session_follow_one_another_and_keep_their_numbers_whatever_a_file_has_of_them() {
    let session = session(T0, "6.1");
    let rows: Vec<Row> = (5..9).map(|id| event(text(&format!("n1:{id}")), T0 + id, 7)).collect();
    let all = keys_of("events", &rows, Some(&session));
    assert_eq!(all.iter().map(|key| key.seq).collect::<Vec<_>>(), [5, 6, 7, 8]);
    assert!(all.iter().all(|key| key.stream == all[0].stream && is_recording(&key.stream.boot_id)));
    // A file that was pruned, and one whose ids are plain numbers.
    assert_eq!(keys_of("events", &rows[2..], Some(&session)), all[2..]);
    assert_eq!(keys_of("events", &[event(Value::Long(5), T0 + 5, 7)], Some(&session)), all[..1]);
    for other in [self::session(T0 + 1, "6.1"), self::session(T0, "6.2")] {
        assert_ne!(keys_of("events", &rows, Some(&other))[0].stream, all[0].stream);
    }
}

#[test]
fn events_without_a_session_keep_their_keys_when_the_recording_grows() {
    let rows: Vec<Row> = (1..6).map(|id| event(Value::Long(id), T0 + id, 7)).collect();
    let grown = keys_of("events", &rows, None);
    assert_eq!(keys_of("events", &rows[..4], None), grown[..4]);
    let later = event(Value::Long(1), T0 + 3_600_000_000_000, 7);
    assert_ne!(keys_of("events", &[later], None), grown[..1], "an hour later the numbers began anew");
}

#[test]
fn events_with_one_number_or_none_are_all_kept() {
    let session = session(T0, "6.1");
    let rows = [
        event(Value::Long(1), T0, 7),
        event(Value::Long(1), T0 + 1, 8),
        event(text("n1:1"), T0 + 2, 9),
        event(text("n2:1"), T0, 7),
        event(text("no number"), T0, 7),
        event(text("no number"), T0, 7),
        event(Value::Long(-1), T0, 7),
        event(Value::Long(i64::MAX), T0, 7),
    ];
    let keys = keys_of("events", &rows, Some(&session));
    let distinct: BTreeSet<_> = keys.iter().map(|key| (key.stream.clone(), key.seq)).collect();
    assert_eq!(distinct.len(), rows.len(), "{keys:?}");
    assert_eq!(keys_of("events", &rows, Some(&session)), keys, "the second reading gives the same");
}

#[test]
fn events_whose_keys_are_another_recordings_take_others() {
    let session = session(T0, "6.1");
    let (table, of) = (table("events"), event(Value::Long(5), T0, 7));
    let (base, key) = Keys::default().of_event(table, &of, "n1", Some(&session)).unwrap();
    let alternate = |number| {
        let mut keys = Keys::new(Alternates::from([(Arc::clone(&base), number)]));
        let (same, key) = keys.of_event(table, &of, "n1", Some(&session)).unwrap();
        assert_eq!(same, base);
        key
    };
    assert_eq!(alternate(1), alternate(1));
    assert_ne!(alternate(1).stream, key.stream);
    assert_ne!(alternate(1).stream, alternate(2).stream);
    assert_eq!(alternate(1).seq, key.seq);
}

#[test]
fn other_rows_are_known_by_what_they_hold() {
    let stacks = |hashes: &[i64]| -> Vec<Row> {
        hashes.iter().map(|hash| row(table("stack_traces"), &[Value::Long(*hash), text("[]")])).collect()
    };
    let all = keys_of("stack_traces", &stacks(&[1, 2, 3]), None);
    assert_eq!(keys_of("stack_traces", &stacks(&[3, 1]), None), [all[2].clone(), all[0].clone()]);
    // Two equal rows are two, and a grown file adds one.
    let twice = keys_of("stack_traces", &stacks(&[1, 1]), None);
    assert_eq!(twice[0], all[0]);
    assert!(!all.contains(&twice[1]));
    let resolved = row(table("stack_traces"), &[Value::Long(1), text("[]"), text("[{}]")]);
    assert!(!all.contains(&keys_of("stack_traces", &[resolved], None)[0]));
}

#[test]
fn a_process_is_known_by_its_session_number_and_name() {
    let process =
        |name: &str, seen_ns| row(table("process_names"), &[Value::Long(7), text(name), Value::Long(seen_ns)]);
    let (first, second) = (session(T0, "6.1"), session(T0 + 5, "6.1"));
    let key = |row: Row, session| keys_of("process_names", &[row], session).remove(0);
    let known = key(process("train", T0), Some(&first));
    assert_eq!(key(process("train", T0 + 9), Some(&first)), known, "the tracer writes the time anew");
    assert_ne!(key(process("load", T0), Some(&first)), known);
    assert_ne!(key(process("train", T0), Some(&second)).stream, known.stream);
}

#[test]
fn the_end_of_a_session_is_another_row_of_the_same_run() {
    let session = |stopped| row(table("sessions"), &[Value::Long(T0), stopped]);
    let (begun, ended) = (session(Value::Null), session(Value::Long(T0 + 5)));
    let keys = keys_of("sessions", &[begun, ended], None);
    assert_eq!(keys[0].stream, keys[1].stream);
    assert_ne!(keys[0].seq, keys[1].seq);
}

#[test]
fn two_nodes_have_no_key_in_common() {
    let mut keys = Keys::default();
    let stack = row(table("stack_traces"), &[Value::Long(1), text("[]")]);
    let [one, two] = ["n1", "n2"].map(|node| keys.of(table("stack_traces"), &stack, node, None).unwrap());
    assert_ne!((one.stream.boot_id, one.seq), (two.stream.boot_id, two.seq));
}

#[test]
fn a_column_that_an_older_schema_lacks_changes_nothing() {
    let of = |cells: &[Value]| Digest::of_cells("t", ["a", "b", "c"].into_iter().zip(cells));
    assert_eq!(of(&[Value::Long(1), text("x")]), of(&[Value::Long(1), text("x"), Value::Null]));
    assert_ne!(of(&[Value::Long(1)]), of(&[text("1")]));
    assert_ne!(of(&[text("ab"), text("c")]), of(&[text("a"), text("bc")]));
    assert_ne!(of(&[text("x"), Value::Null]), of(&[Value::Null, text("x")]));
}
