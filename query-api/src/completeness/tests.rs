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
    let found = completeness(&nodes, &[used("gold.chains", 1, 2_000), used("silver.events", 2, 1_000)], now_ms);
    let expected = Completeness {
        nodes_expected: 3,
        nodes_reporting: 2,
        missing: vec!["b".to_owned()],
        lost_events: 6,
        as_of: Some("1970-01-01T00:00:02.000Z".to_owned()),
        snapshot_id: Some(2),
    };
    assert_eq!(found, expected);
}
