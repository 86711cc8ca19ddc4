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

fn sequences(history: &[Arc<Snapshot>]) -> Vec<i64> {
    history.iter().map(|snapshot| snapshot.sequence_number()).collect()
}

#[test]
fn a_snapshot_that_expired_in_the_middle_ends_the_history() {
    for (kept, expected) in [(vec![1, 2, 3], vec![1, 2, 3]), (vec![1, 3, 4], vec![3, 4]), (vec![5, 7, 9], vec![9])] {
        let snapshots: Vec<_> = kept.iter().rev().map(|sequence| (*sequence, None)).collect();
        let table = table(&snapshots);
        assert_eq!(sequences(&current_history(&table)), kept);
        assert_eq!(sequences(&unbroken_history(&table)), expected);
    }
}

#[test]
fn what_was_rolled_back_may_expire_and_what_the_table_went_back_to_may_not() {
    let all = [(1, None), (2, None), (3, None), (4, None), (5, Some(2)), (6, None)];
    assert_eq!(sequences(&unbroken_history(&table(&all))), [1, 2, 5, 6]);
    let without = |gone: i64| all.into_iter().filter(move |(sequence, _)| *sequence != gone).collect::<Vec<_>>();
    for (gone, expected) in [(3, vec![1, 2, 5, 6]), (4, vec![1, 2, 5, 6]), (2, vec![5, 6]), (5, vec![6])] {
        assert_eq!(sequences(&unbroken_history(&table(&without(gone)))), expected, "{gone} expired");
    }
}
