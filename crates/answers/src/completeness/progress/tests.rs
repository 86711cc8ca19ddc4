//! When a stretch of time has landed, and of whom something is still on its way.

use super::*;

const TO_MS: i64 = 1_000_000;

fn stream(node: &str, number: i32, last_ms: i64) -> Stream {
    Stream {
        node: node.to_owned(),
        run: ("boot".to_owned(), 1),
        last_ms,
        landed_ms: last_ms + 500,
        live: true,
        is_idle: false,
        at: TopicPartition::new("events", number),
        offset: 10,
        has_ended: false,
    }
}

/// Names of the nodes that are waited for, so long after the end of the stretch.
fn waited_for(streams: &[Stream], after_ms: i64) -> Vec<String> {
    let times = (TO_MS, TO_MS, TO_MS + after_ms);
    let still = still_landing(streams, &BTreeSet::new(), times, &BTreeMap::new());
    still.into_iter().map(|still| still.node).collect()
}

#[test]
fn a_node_has_landed_when_each_of_its_streams_has_landed_a_row_of_the_end_or_later() {
    let whole = [stream("a", 0, TO_MS), stream("a", 1, TO_MS + 5)];
    assert_eq!(waited_for(&whole, 0), [] as [&str; 0]);
    let behind = [stream("a", 0, TO_MS - 7_000), stream("a", 1, TO_MS + 5)];
    assert_eq!(waited_for(&behind, 60_000), ["a"], "however long it takes");
    let times = (TO_MS, TO_MS, TO_MS);
    let still = still_landing(&behind, &BTreeSet::new(), times, &BTreeMap::new());
    let expected = StillLanding {
        node: "a".to_owned(),
        complete_to: Some("1970-01-01T00:16:33.000Z".to_owned()),
        behind_ms: 7_000,
    };
    assert_eq!(still, [expected]);
    let other = ["b".to_owned()].into();
    assert_eq!(still_landing(&behind, &other, times, &BTreeMap::new()), [], "another node is asked about");
}

#[test]
fn an_idle_stream_is_whole_a_while_after_the_end_and_one_in_the_middle_of_its_work_is_not() {
    let idle = Stream { is_idle: true, ..stream("a", 0, TO_MS - 9_000) };
    assert_eq!(waited_for(std::slice::from_ref(&idle), QUIET_MS - 1), ["a"]);
    assert_eq!(waited_for(std::slice::from_ref(&idle), QUIET_MS), [] as [&str; 0]);
    let landing = Stream { landed_ms: TO_MS + 1, ..idle };
    assert_eq!(waited_for(std::slice::from_ref(&landing), QUIET_MS), ["a"], "more of it has just landed");
    assert_eq!(waited_for(&[landing], QUIET_MS + 1), [] as [&str; 0]);
}

#[test]
fn recordings_ended_runs_earlier_runs_and_silent_nodes_are_not_waited_for() {
    let recording = Stream { live: false, ..stream("a", 0, 0) };
    let ended = Stream { has_ended: true, ..stream("b", 0, TO_MS - 9_000) };
    let silent = stream("c", 0, TO_MS - SILENT_MS - 1_000);
    let earlier = Stream { run: ("boot".to_owned(), 0), ..stream("d", 0, TO_MS - 50_000) };
    let streams = [recording, ended, silent, earlier, stream("d", 0, TO_MS)];
    assert_eq!(waited_for(&streams, 0), [] as [&str; 0]);
}

#[test]
fn what_the_table_of_events_has_not_committed_is_still_landing() {
    let streams = [stream("a", 0, TO_MS)];
    let at = |next| BTreeMap::from([(TopicPartition::new("events", 0), next)]);
    let still = |next| still_landing(&streams, &BTreeSet::new(), (TO_MS, TO_MS, TO_MS), &at(next)).len();
    assert_eq!((still(10), still(11)), (1, 0));
    let new = with_new_partitions(BTreeMap::new(), at(11));
    assert_eq!(still_landing(&streams, &BTreeSet::new(), (TO_MS, TO_MS, TO_MS), &new).len(), 1, "a new partition");
}
