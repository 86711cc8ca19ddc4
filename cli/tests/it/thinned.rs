//! A lake whose tables keep one snapshot each: what is proved of it, and how far it goes back.

use lake::commit::{ActionOutcome, KEEP_DAYS, KEEP_EVERY, KEEP_HOURS, KEEP_MINUTES, Maintenance, SetProperties};
use lake::{Lake, LakeOptions, Token, sqlite_uri};
use tables::registry;

use crate::bench::{Bench, block_on, events, session};

async fn open(bench: &Bench) -> Lake {
    let at = bench.lake.path();
    let options = LakeOptions {
        catalog_uri: sqlite_uri(at.join("catalog.sqlite").to_str().unwrap()),
        warehouse: at.join("warehouse").display().to_string(),
        s3: None,
    };
    Lake::open_existing(options).await.unwrap()
}

/// From now on every table keeps its newest snapshot alone.
async fn keep_one(bench: &Bench) {
    let lake = open(bench).await;
    for table in registry::all() {
        let handle = lake.ensure_table(&table.def).await.unwrap();
        let ages = [KEEP_EVERY, KEEP_MINUTES, KEEP_HOURS, KEEP_DAYS].map(|age| (age.to_owned(), "0s".to_owned()));
        let one = ("history.expire.min-snapshots-to-keep".to_owned(), "1".to_owned());
        let set = ages.into_iter().chain([one]).collect();
        let change = Maintenance::SetProperties(SetProperties { set, ..SetProperties::default() });
        let outcome = handle.maintain(&change, Token::random()).await;
        assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    }
}

#[test]
fn the_audit_proves_a_lake_whose_snapshots_have_left() {
    let bench = Bench::new();
    bench.report(&bench.made("a.db", &(session("a") + &events("a", 1..=5))));
    block_on(keep_one(&bench));
    for node in ["b", "c"] {
        bench.report(&bench.made(&format!("{node}.db"), &(session(node) + &events(node, 1..=7))));
    }
    // The audit holds; a node for each session.
    assert_eq!(bench.rows(), 5 + 7 + 7 + 3);
    let history = block_on(async { open(&bench).await.table("silver", "events").snapshot().await.unwrap().history() });
    assert_eq!((history.len(), history[0].follows), (1, false));
}
