use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::table::schema::new_table;
use crate::tests::def;

/// A snapshot as metadata lists it: its sequence number, and the one that it went back to.
fn snapshot((sequence, to): &(i64, Option<i64>)) -> Value {
    let mut summary = json!({"operation": "append"});
    if let Some(to) = to {
        summary[ROLLED_BACK_TO] = json!(to.to_string());
    }
    json!({"snapshot-id": sequence + 100, "sequence-number": sequence, "timestamp-ms": sequence,
        "manifest-list": "file:///warehouse/silver/t/metadata/l.avro", "summary": summary, "schema-id": 0})
}

/// A table whose metadata has these snapshots.
fn table(snapshots: &[(i64, Option<i64>)]) -> TableMetadata {
    let empty = new_table(&def(), "file:///warehouse/silver/t", Uuid::nil(), 0).unwrap();
    let mut metadata = serde_json::to_value(empty).unwrap();
    let newest = snapshots.iter().map(|(sequence, _)| *sequence).max().unwrap();
    metadata["snapshots"] = snapshots.iter().map(snapshot).collect();
    metadata["last-sequence-number"] = json!(newest);
    metadata["current-snapshot-id"] = json!(newest + 100);
    metadata["refs"] = json!({"main": {"snapshot-id": newest + 100, "type": "branch"}});
    serde_json::from_value(metadata).unwrap()
}

/// The snapshots of the history by sequence number, each with whether it follows the one before it.
fn followed(table: &TableMetadata) -> Vec<(i64, bool)> {
    let history = current_history(table);
    let before = std::iter::once(None).chain(history.iter().map(Some));
    let pairs = history.iter().zip(before);
    pairs.map(|(snapshot, before)| (snapshot.sequence_number(), follows(snapshot, before.map(|b| &**b)))).collect()
}

#[test]
fn a_snapshot_follows_only_the_one_that_was_committed_before_it() {
    for (kept, expected) in
        [([1, 2, 3], [true, true, true]), ([1, 3, 4], [true, false, true]), ([5, 7, 9], [false, false, false])]
    {
        let snapshots: Vec<_> = kept.iter().rev().map(|sequence| (*sequence, None)).collect();
        let expected: Vec<_> = kept.into_iter().zip(expected).collect();
        assert_eq!(followed(&table(&snapshots)), expected);
    }
}

#[test]
fn what_was_rolled_back_may_expire_and_what_the_table_went_back_to_may_not() {
    let all = [(1, None), (2, None), (3, None), (4, None), (5, Some(2)), (6, None)];
    let whole = vec![(1, true), (2, true), (5, true), (6, true)];
    assert_eq!(followed(&table(&all)), whole);
    let without = |gone: i64| all.into_iter().filter(move |(sequence, _)| *sequence != gone).collect::<Vec<_>>();
    for gone in [3, 4] {
        assert_eq!(followed(&table(&without(gone))), whole, "{gone} expired");
    }
    assert_eq!(followed(&table(&without(2))), [(1, true), (5, false), (6, true)]);
}
