//! Who is expected in an answer, who is missing from it, and up to when it is complete.

use std::collections::BTreeMap;

use super::facts::{Run, Stream, fold, streams_sql};
use super::*;

const NOW_MS: i64 = 1_000_000;

fn node(name: &str, live: bool, landed_ms: i64) -> NodeFacts {
    NodeFacts {
        node: name.to_owned(),
        cluster: "c".to_owned(),
        agent: None,
        first_event_ms: 0,
        last_event_ms: 0,
        complete_to_ms: 0,
        landed_ms,
        ended_ms: None,
        live,
        has_rows: true,
        rows: 10,
        emitted: 12,
        lost_events: 2,
        sampled_out: 0,
    }
}

fn asked(extent: Extent, names: &[&str]) -> Question {
    Question::of_events(extent).about(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_silent_live_node_is_missing_and_an_imported_one_is_not() {
    let nodes = [node("a", true, NOW_MS - 1_000), node("b", true, 0), node("sample", false, 0)];
    let used = |table: &str, snapshot_id, committed_ms| UsedSnapshot {
        table: table.to_owned(),
        snapshot_id: Some(snapshot_id),
        committed_ms: Some(committed_ms),
    };
    let snapshots = [used("gold.chains", 1, 2_000), used("silver.events", 2, 1_000)];
    let found = completeness(&nodes, &asked(Extent::now(NOW_MS), &[]), &snapshots);
    let expected = Completeness {
        about_nodes: true,
        nodes: 3,
        nodes_expected: 3,
        nodes_reporting: 2,
        missing: vec!["b".to_owned()],
        lost_events: 6,
        unread_rows: 0,
        complete_to: Some("1970-01-01T00:00:00.000Z".to_owned()),
        still_landing: Vec::new(),
        as_of: Some("1970-01-01T00:00:02.000Z".to_owned()),
        snapshot_id: Some(2),
    };
    assert_eq!(found, expected);
}

#[test]
fn of_the_nodes_wanted_those_that_nothing_is_known_of_are_missing() {
    let nodes = [node("a", true, NOW_MS), node("b", true, 0), node("c", true, NOW_MS)];
    let of = |names: &[&str]| {
        let found = completeness(&nodes, &asked(Extent::now(NOW_MS), names), &[]);
        (found.nodes_expected, found.nodes_reporting, found.missing.join(" "), found.lost_events)
    };
    assert_eq!(of(&["a", "c"]), (2, 2, String::new(), 4));
    assert_eq!(of(&["a", "b", "typo"]), (3, 1, "b typo".to_owned(), 4));
    assert_eq!(of(&["typo"]), (1, 0, "typo".to_owned(), 0));
}

#[test]
fn nodes_that_the_statement_itself_leaves_out_are_neither_expected_nor_missing() {
    let nodes = [node("a", true, NOW_MS), node("b", true, 0)];
    let only = |name: &str| Question { only: Some([name.to_owned()].into()), ..asked(Extent::now(NOW_MS), &[]) };
    let found = completeness(&nodes, &only("a"), &[]);
    assert_eq!((found.nodes, found.missing.len(), found.lost_events), (1, 0, 2), "b's silence is not asked about");
    let none = completeness(&nodes, &only("typo"), &[]);
    assert_eq!((none.nodes, none.missing.len()), (0, 0));
}

#[test]
fn a_question_about_no_node_says_nothing_of_nodes() {
    let nodes = [node("a", true, 0)];
    let question = Question { subject: Subject::of(&[]), ..asked(Extent::now(NOW_MS), &[]) };
    let found = completeness(if question.subject.has_nodes { &nodes } else { &[] }, &question, &[]);
    assert!(!found.about_nodes && found.missing.is_empty() && found.lost_events == 0, "{found:?}");
}

#[test]
fn history_of_nodes_that_ended_is_complete() {
    let ended = NodeFacts { ended_ms: Some(NOW_MS - 900_000), lost_events: 0, ..node("a", true, NOW_MS - 900_000) };
    let found = completeness(std::slice::from_ref(&ended), &asked(Extent::now(NOW_MS), &[]), &[]);
    assert_eq!((found.nodes, found.missing.len(), found.complete_to), (1, 0, None), "nothing more is to come");
    let killed = NodeFacts { ended_ms: None, ..ended.clone() };
    let found = completeness(&[killed], &asked(Extent::now(NOW_MS), &[]), &[]);
    assert_eq!((found.nodes, found.missing.join(" ")), (1, "a".to_owned()), "its rows are in the answer all the same");
    // Of the last minutes it has no rows, and none are expected of it.
    let later = NodeFacts { has_rows: false, ..ended };
    let found = completeness(&[later], &asked(Extent::now(NOW_MS).since(Some(NOW_MS - 60_000)), &[]), &[]);
    assert_eq!((found.nodes_expected, found.missing.len()), (0, 0));
}

#[test]
fn a_node_that_fell_silent_within_a_stretch_in_the_past_is_missing_from_it() {
    let extent = Extent::now(10_000_000).since(Some(1_000_000)).until(2_000_000);
    let mut gone = node("a", true, 9_999_000);
    gone.complete_to_ms = 1_500_000;
    assert!(gone.is_missing_from(&extent), "it came back later, but not for this stretch");
    gone.complete_to_ms = 1_990_000;
    assert!(!gone.is_missing_from(&extent));
    assert!(!gone.is_missing_from(&Extent::now(10_000_000)), "it lands now");
}

#[test]
fn a_stretch_ends_no_later_than_the_lake_is_seen_and_only_becomes_shorter() {
    assert_eq!(Extent::now(5).until(9), Extent::now(5));
    let extent = Extent::now(100).since(Some(10)).since(Some(5)).since(None).until(50).until(70);
    assert_eq!((extent.from_ms, extent.to_ms), (Some(10), 50));
}

fn stream(epoch: i64, is_of_events: bool, times_ms: (i64, i64), landed_ms: i64) -> Stream {
    Stream {
        node: "a".to_owned(),
        run: ("boot".to_owned(), epoch),
        cluster: "c".to_owned(),
        agent: Some("agent".to_owned()),
        times_ms: Some(times_ms),
        landed_ms,
        live: true,
        is_of_events,
        has_rows: true,
        rows: 1,
        emitted: 2,
        lost: 1,
        sampled_out: 0,
    }
}

fn only(streams: Vec<Stream>, ended_ms: Option<i64>) -> NodeFacts {
    of_ends(streams, ended_ms.map(|ms| (1, ms)))
}

/// With the end that one run of the agent reported.
fn of_ends(streams: Vec<Stream>, end: Option<(i64, i64)>) -> NodeFacts {
    let end = end.map(|(epoch, ms)| (("a".to_owned(), ("boot".to_owned(), epoch)), ms));
    let ends: BTreeMap<Run, i64> = end.into_iter().collect();
    let [facts] = <[NodeFacts; 1]>::try_from(fold(streams, &ends)).unwrap();
    facts
}

#[test]
fn a_node_is_complete_to_the_end_of_the_stream_of_its_latest_run_that_is_furthest_behind() {
    let earlier = stream(1, true, (0, 50), 60);
    let data = stream(2, true, (100, 200), 300);
    let critical = stream(2, true, (90, 450), 500);
    let facts_of_processes = stream(2, false, (90, 120), 130);
    let found = only(vec![earlier, data, critical, facts_of_processes], None);
    assert_eq!((found.complete_to_ms, found.landed_ms), (200, 300), "records of other kinds come when there are any");
    assert_eq!((found.first_event_ms, found.last_event_ms), (0, 450));
    assert_eq!((found.rows, found.emitted, found.lost_events), (4, 8, 4));
}

#[test]
fn a_node_has_ended_unless_it_made_more_since() {
    let last = || vec![stream(1, true, (0, 100_000), 100_500)];
    assert_eq!(only(last(), Some(99_900)).ended_ms, Some(99_900));
    assert_eq!(only(last(), Some(50_000)).ended_ms, None, "it runs again");
    assert_eq!(only(last(), None).ended_ms, None);
}

#[test]
fn the_end_of_a_later_run_is_not_the_end_of_one_that_was_killed() {
    let killed = || stream(1, true, (0, 100_000), 100_500);
    assert_eq!(of_ends(vec![killed()], Some((2, 500_000))).ended_ms, None);
    let next = stream(2, true, (400_000, 500_000), 500_500);
    assert_eq!(of_ends(vec![killed(), next.clone()], Some((2, 500_000))).ended_ms, Some(500_000));
    assert_eq!(of_ends(vec![killed(), next], Some((1, 100_000))).ended_ms, None);
}

#[test]
fn a_name_that_looks_like_a_place_for_sql_stays_a_name() {
    let name = "{begun} {about} {in_time}".to_owned();
    let about = About::Named { names: &[&name], days: 1 };
    let sql = streams_sql(&Extent::now(NOW_MS).until(1_000), &Subject::events(), about);
    assert!(sql.contains("node IN ('{begun} {about} {in_time}')"), "{sql}");
}
