use super::*;

fn node(name: &str, live: bool, landed_ms: i64) -> NodeFacts {
    NodeFacts {
        node: name.to_owned(),
        cluster: "c".to_owned(),
        agent: None,
        last_event_ms: 0,
        landed_ms,
        live,
        rows: 10,
        emitted: 12,
        lost_events: 2,
        sampled_out: 0,
    }
}

#[test]
fn a_silent_live_node_is_missing_and_an_imported_one_is_not() {
    let now_ms = 1_000_000;
    let nodes = [node("a", true, now_ms - 1_000), node("b", true, 0), node("sample", false, 0)];
    let used = |table: &str, snapshot_id, committed_ms| UsedSnapshot {
        table: table.to_owned(),
        snapshot_id: Some(snapshot_id),
        committed_ms: Some(committed_ms),
    };
    let snapshots = [used("gold.chains", 1, 2_000), used("silver.events", 2, 1_000)];
    let found = completeness(&nodes, &BTreeSet::new(), &snapshots, &Extent::now(now_ms));
    let expected = Completeness {
        nodes_expected: 3,
        nodes_reporting: 2,
        missing: vec!["b".to_owned()],
        lost_events: 6,
        unread_rows: 0,
        as_of: Some("1970-01-01T00:00:02.000Z".to_owned()),
        snapshot_id: Some(2),
    };
    assert_eq!(found, expected);
}

#[test]
fn of_the_nodes_wanted_those_that_nobody_has_heard_of_are_missing() {
    let now_ms = 1_000_000;
    let nodes = [node("a", true, now_ms), node("b", true, 0), node("c", true, now_ms)];
    let of = |names: &[&str]| {
        let wanted = names.iter().map(|name| (*name).to_owned()).collect();
        let found = completeness(&nodes, &wanted, &[], &Extent::now(now_ms));
        (found.nodes_expected, found.nodes_reporting, found.missing.join(" "), found.lost_events)
    };
    assert_eq!(of(&["a", "c"]), (2, 2, String::new(), 4));
    assert_eq!(of(&["a", "b", "typo"]), (3, 1, "b typo".to_owned(), 4));
    assert_eq!(of(&["typo"]), (1, 0, "typo".to_owned(), 0));
}

#[test]
fn a_node_that_fell_silent_within_a_stretch_in_the_past_is_missing_from_it() {
    let extent = Extent::now(10_000_000).since(Some(1_000_000)).until(2_000_000);
    let mut gone = node("a", true, 9_999_000);
    gone.last_event_ms = 1_500_000;
    assert!(extent.misses(&gone), "it came back later, but not for this stretch");
    gone.last_event_ms = 1_990_000;
    assert!(!extent.misses(&gone));
    assert!(!Extent::now(10_000_000).misses(&gone), "it lands now");
}

#[test]
fn a_stretch_ends_no_later_than_the_lake_is_seen() {
    assert_eq!(Extent::now(5).until(9), Extent::now(5));
}
