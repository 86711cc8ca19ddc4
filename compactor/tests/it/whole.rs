//! A lake as ingest leaves it: compacted it has few files, and every fact that it had.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use lake::Lake;
use objects::Verified;

use crate::fleet::{Fleet, LATER_NS, SAME_DAY_NS, compact, options};
use crate::place::Place;

on_both!(a_compacted_lake_passes_the_audit_with_few_files_and_the_offsets_it_had);

/// Files and offsets of each table.
async fn facts(lake: &Lake) -> BTreeMap<String, (usize, String)> {
    let mut facts = BTreeMap::new();
    for table in tables::registry::all() {
        let name = table.def.name;
        let snapshot = lake.table(name.namespace, name.name).snapshot().await.unwrap();
        let files = snapshot.plan(&[]).await.unwrap().len();
        facts.insert(name.to_string(), (files, format!("{:?}", snapshot.offsets())));
    }
    facts
}

async fn a_compacted_lake_passes_the_audit_with_few_files_and_the_offsets_it_had(place: Place) {
    let lake = place.lake().await;
    let mut fleet = Fleet::new(3, 7);
    fleet.land(&lake, 22).await;
    let before = (facts(&lake).await, invariants::audit(&lake).await.unwrap());
    assert!(before.1.broken.is_empty(), "{:?}", before.1.broken);
    let minutes = lake.table("gold", "op_minute").snapshot().await.unwrap().total_records();

    let done = compact(&lake, tables::registry::all(), options(), SAME_DAY_NS).await;
    assert!(done.replaced > 0 && (done.failed, done.left) == (0, 0), "{done:?}");
    fleet.land(&lake, 2).await;
    let done = compact(&lake, tables::registry::all(), options(), LATER_NS).await;
    assert!(done.replaced > 0 && (done.failed, done.left) == (0, 0), "{done:?}");
    let again = compact(&lake, tables::registry::all(), options(), LATER_NS).await;
    assert_eq!((again.replaced, again.failed), (0, 0), "nothing is left to do");

    let after = (facts(&lake).await, invariants::audit(&lake).await.unwrap());
    assert!(after.1.broken.is_empty(), "{:?}", after.1.broken);
    assert_eq!((after.1.messages, after.1.rows), (24, 24 * 200));
    for (name, (files, offsets)) in &after.0 {
        let of_log = before.0[name].0 >= 22;
        // A late file is not merged with one that is many times larger.
        assert!(!of_log || *files <= 2, "{name}: {files} files of {}", before.0[name].0);
        assert!(offsets.contains("24") || *files == 0, "{name}: {offsets}");
    }
    let folded = lake.table("gold", "op_minute").snapshot().await.unwrap().total_records();
    assert!(folded < minutes, "{folded:?} of {minutes:?}: partial aggregates of one key are one row");

    let counted = place.count(&["silver.events:node,seq:node:seq".to_owned()], &[]).remove(0);
    assert_eq!(counted["agree"], true, "{counted}");
    assert_eq!(counted["pyiceberg"]["count"], 24 * 200, "{counted}");
    let events = lake.table("silver", "events").snapshot().await.unwrap();
    if lake.store().supports_tags() {
        let files = events.plan(&[]).await.unwrap();
        let merged = files.iter().max_by_key(|file| file.record_count).unwrap();
        let tags = lake.store().tags(&merged.location).await.unwrap();
        assert_eq!(tags.get("processing_status"), Some("complete"), "a merged file may move");
    }
    let verified: Vec<_> = events.verify_files().await.unwrap().try_collect().await.unwrap();
    assert!(verified.iter().all(|file| file.outcome == Ok(Verified::Sound)), "{verified:?}");
    let order = lake.ensure_table(&tables::registry::find("silver", "events").unwrap().def).await.unwrap();
    assert!(events.plan(&[]).await.unwrap().iter().all(|file| file.sort_order_id == order.sort_order_id()));
}
