//! Answers speak of the question asked: of its tables, its time and its nodes; losses are charged where they fell; and where nothing
//! is found it is said what there is.

use event_schema::batch::{Event, ProcessInfo, Value};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use serde_json::json;

use crate::fixture::{Fixture, Served, event};

const SECOND_US: i64 = 1_000_000;

fn lost(lost: u64) -> LossCounters {
    LossCounters { emitted: lost, ring_drop: lost, ..LossCounters::default() }
}

/// A synchronising call of a rank of a job, so many microseconds into the day.
fn sync(job: &'static str, rank: i32, at_us: i64) -> Event<'static> {
    let process = ProcessInfo { rank: Some(rank), world_size: Some(4), job_id: Some(job), ..ProcessInfo::default() };
    let pid = 100 + rank + if job == "one" { 0 } else { 1_000 };
    Event { pid, tid: pid, process, ..event(1, 6, 900, at_us) }
}

/// Iterations of four ranks of a job, one every ten milliseconds, in this stretch of microseconds.
fn iterations(job: &'static str, from_us: i64, to_us: i64) -> Vec<Event<'static>> {
    let begins = (from_us..to_us).step_by(10_000);
    begins.flat_map(|at_us| (0..4).map(move |rank| sync(job, rank, at_us + i64::from(rank)))).collect()
}

/// Two jobs after one another on one node. In the second some events are lost for a second.
async fn two_jobs() -> Served {
    let mut fixture = Fixture::empty().await;
    let one = iterations("one", 0, 4 * SECOND_US);
    let before = iterations("two", 10 * SECOND_US, 12 * SECOND_US);
    let burst = iterations("two", 12_200_000, 13 * SECOND_US);
    let after = iterations("two", 13 * SECOND_US, 15 * SECOND_US);
    let none = LossCounters::default();
    let run: [(&[Event<'_>], _); 4] = [(&one, none), (&before, none), (&burst, lost(960)), (&after, none)];
    fixture.land_run("n1", &run).await;
    fixture.serve().await
}

#[tokio::test]
async fn a_loss_is_charged_to_the_job_that_ran_when_it_happened_and_as_a_share_of_what_was_made_then() {
    let served = two_jobs().await;
    let found = served.get_json("/api/v1/stragglers?since=2h").await;
    let jobs = found["jobs"].as_array().unwrap();
    let of = |name: &str| jobs.iter().find(|job| job["job_id"] == name).unwrap_or_else(|| panic!("{found}"));
    let one = of("one");
    let two = of("two");
    assert_eq!((&one["coverage"]["losses"], &one["verdict"]["verdict"]), (&json!([]), &json!("healthy")), "{one}");
    let charged = &two["coverage"]["losses"][0];
    assert_eq!(charged["lost_events"], 960);
    assert_eq!(charged["made_events"], 960 + 4 * 80, "of the batch that reports the loss");
    assert_eq!(charged["share"], 0.75);
    // From half a second before the last event of the batch before to the last of its own.
    let day_ns = crate::fixture::DAY_NS;
    let times = ["from_ns", "to_ns"].map(|key| (charged[key].as_i64().unwrap() - day_ns) / 1_000_000);
    assert_eq!(times, [11_490, 12_990], "{charged}");
    assert!(charged["iterations_not_judged"].as_u64().unwrap() >= 4 * 80, "{charged}");
    assert_eq!(two["verdict"]["verdict"], "healthy", "the iterations outside the burst keep their verdict: {two}");
    let (_, text) = served.get("/api/v1/chains?since=2h&format=text").await;
    assert!(
        text.contains("\nlost: job two: 960 of 1280 events (75.0 %) that n1 made from 2026-03-01T00:00:11.490Z to "),
        "{text}"
    );
    assert!(!text.contains("lost: job one"), "{text}");
}

#[tokio::test]
async fn only_losses_of_the_tables_and_the_time_asked_about_make_an_answer_incomplete() {
    let served = two_jobs().await;
    let said = async |sql: &str| {
        let (status, found) = served.sql(sql).await;
        assert_eq!(status, 200, "{sql}: {found}");
        let said = &found["completeness"];
        (said["about_nodes"].clone(), said["nodes"].clone(), said["lost_events"].clone())
    };
    let about = |nodes: u64, lost: u64| (json!(true), json!(nodes), json!(lost));
    assert_eq!(said("SELECT count(*) FROM events").await, about(1, 960));
    assert_eq!(said("SELECT count(*) FROM gold.op_minute").await, about(1, 960));
    let of_no_node = (json!(false), json!(0), json!(0));
    for sql in ["SELECT 1", "SELECT * FROM sources", "SELECT count(*) FROM bronze.messages"] {
        assert_eq!(said(sql).await, of_no_node, "{sql}");
    }
    assert_eq!(said("SELECT * FROM sessions").await, about(0, 0), "no session was lost");
    assert_eq!(said("SELECT count(*) FROM ops.ledger").await.2, 0, "the ledger lacks nothing");
    let until = |time: &str| format!("SELECT count(*) FROM events WHERE ts < TIMESTAMP '2026-03-01 {time}+00:00'");
    assert_eq!(said(&until("00:00:05")).await, about(1, 0));
    assert_eq!(said(&until("00:00:14")).await, about(1, 960));
    let later = "SELECT count(*) FROM events WHERE ts >= TIMESTAMP '2026-03-01 00:00:20+00:00'";
    assert_eq!(said(later).await, about(0, 0));
    let in_ns = format!("SELECT count(*) FROM events WHERE timestamp < {}", crate::fixture::DAY_NS + 5_000_000_000);
    assert_eq!(said(&in_ns).await, about(1, 0), "by the view's own column of time");
    assert_eq!(said("SELECT count(*) FROM events WHERE node = 'n2'").await, about(0, 0));
    assert_eq!(said("SELECT count(*) FROM events WHERE node IN ('n1', 'n2')").await, about(1, 960));
}

/// What an answer up to the tenth second lacks of a node. Batches of four events begin every two seconds from the eighth on; each is
/// written so many milliseconds after its last event, and the second after the tenth second reports a loss.
async fn lost_by_the_tenth_second(late_ms: [i64; 3], events: [usize; 3]) -> serde_json::Value {
    let batches: Vec<Vec<Event<'_>>> = (0..3)
        .map(|nth| {
            let begins_us = (8 + 2 * nth as i64) * SECOND_US + SECOND_US / 2;
            (0..events[nth] as i64).map(|at| sync("one", 0, begins_us + at * 1_000)).collect()
        })
        .collect();
    let written_ms = |nth: usize| {
        let last_us = (8 + 2 * nth as i64) * SECOND_US + SECOND_US / 2 + events[nth] as i64 * 1_000;
        (crate::fixture::DAY_NS / 1_000 + last_us) / 1_000 + late_ms[nth]
    };
    let losses = [LossCounters::default(), LossCounters::default(), lost(100)];
    let run: Vec<_> = (0..3).map(|nth| (&batches[nth][..], losses[nth], written_ms(nth))).collect();
    let mut fixture = Fixture::empty().await;
    fixture.land_written("n1", &run).await;
    let served = fixture.serve().await;
    let (_, found) = served.sql("SELECT count(*) FROM events WHERE ts < TIMESTAMP '2026-03-01 00:00:10+00:00'").await;
    found["completeness"]["lost_events"].clone()
}

#[tokio::test]
async fn a_loss_reported_after_the_end_is_charged_where_the_agent_was_behind_from_before_the_end() {
    assert_eq!(lost_by_the_tenth_second([900, 900, 900], [4, 4, 2]).await, 100, "behind from the first batch on");
    assert_eq!(lost_by_the_tenth_second([300, 300, 300], [4, 4, 2]).await, 0, "in time");
    assert_eq!(lost_by_the_tenth_second([300, 900, 900], [4, 4, 2]).await, 0, "behind after the end only");
    assert_eq!(lost_by_the_tenth_second([900, 300, 900], [3, 4, 2]).await, 0, "the first one is not full");
    assert_eq!(lost_by_the_tenth_second([900, 300, 300], [4, 3, 2]).await, 0, "caught up before the report");
}

#[tokio::test]
async fn where_nothing_is_found_it_is_said_what_there_is_and_how_to_see_it() {
    let served = two_jobs().await;
    let text = async |path: &str| {
        let (status, text) = served.get(path).await;
        assert_eq!(status, 200, "{text}");
        text
    };
    let nothing = text("/api/v1/chains?nodes=n1&format=text").await;
    assert!(nothing.starts_with("FLEET CAUSAL CHAINS - 0 chain(s) from 0 node(s)\n"), "{nothing}");
    assert!(
        nothing.contains("looked at 2026-03-01T00:55:00.000Z to 2026-03-01T01:00:00.000Z: nothing found of n1\n"),
        "{nothing}"
    );
    let hint = "n1 has data from 2026-03-01T00:00:00.000Z to 2026-03-01T00:00:14.990Z: causeway explain --nodes n1 \
                --from 2026-03-01T00:00:00.000Z --to 2026-03-01T00:00:14.990Z\n";
    assert!(nothing.contains(hint), "{nothing}");
    assert_eq!(
        text("/api/v1/chains?format=text").await.matches("n1 has data from").count(),
        1,
        "also when none is named"
    );
    let unknown = text("/api/v1/chains?since=2h&nodes=n9&format=text").await;
    assert!(unknown.contains("no node is called n9; nodes here: n1\n"), "{unknown}");
    let job = text("/api/v1/chains?since=2h&job=nosuchjob&format=text").await;
    assert!(job.contains("no job is called nosuchjob; jobs here: two, one\n"), "{job}");
    let ranked = served.get_json("/api/v1/stragglers").await;
    let hints: Vec<&str> = ranked["hints"].as_array().unwrap().iter().filter_map(|hint| hint.as_str()).collect();
    assert!(hints.iter().any(|hint| hint.contains("causeway stragglers --nodes n1 --from")), "{hints:?}");
    let seen =
        text("/api/v1/chains?from=2026-03-01T00:00:00.000Z&to=2026-03-01T00:00:14.990Z&nodes=n1&format=text").await;
    assert!(seen.contains("job one: ") && seen.contains("job two: ") && !seen.contains("has data from"), "{seen}");
    let empty = Fixture::empty().await.serve().await;
    let (_, empty) = empty.get("/api/v1/chains?format=text").await;
    assert!(empty.contains("nothing has landed yet"), "{empty}");
}

fn chain(nth: i64, op: &str, ratio: f64) -> Vec<(&'static str, Value)> {
    let text = |value: String| Value::Text(value);
    vec![
        ("boot_ns", Value::Long(nth * 1_000_000_000)),
        ("chain_id", text(format!("n1:{op}-{nth}"))),
        ("detected_ns", Value::Long(crate::fixture::DAY_NS + nth * 1_000_000_000)),
        ("severity", text("HIGH".to_owned())),
        ("summary", text(format!("{op} p99=1ms ({ratio}x p50) - {nth} sched_switch events"))),
        ("op", text(op.to_owned())),
        ("tail_ratio", Value::Double(ratio)),
    ]
}

#[tokio::test]
async fn equal_chains_are_shown_once_with_their_count_and_time_and_the_document_has_each() {
    let mut fixture = Fixture::empty().await;
    let mut chains: Vec<_> = (0..49).map(|nth| chain(nth, "cuLaunchKernel", 3.0 + nth as f64)).collect();
    chains.extend((0..11).map(|nth| chain(nth, &format!("op{nth:02}"), 3.0)));
    fixture.land_records("n1", RecordKind::Chain, chains).await;
    let served = fixture.serve().await;
    let (_, text) = served.get("/api/v1/chains?since=2h&format=text").await;
    assert!(text.starts_with("FLEET CAUSAL CHAINS - 60 chain(s) from 1 node(s)\n"), "{text}");
    assert_eq!(text.matches("[HIGH] [n1] ").count(), 10, "{text}");
    let seen = "  Seen: 49 times from 2026-03-01T00:00:00.000Z to 2026-03-01T00:00:48.000Z; the worst is shown\n";
    assert!(text.contains("[HIGH] [n1] cuLaunchKernel p99=1ms (51x p50)") && text.contains(seen), "{text}");
    assert!(text.contains("\nand 2 more of 2 kind(s): --all shows every one\n"), "{text}");
    let (_, all) = served.get("/api/v1/chains?since=2h&format=text&all=true").await;
    assert_eq!(all.matches("[HIGH] [n1] ").count(), 60);
    assert_eq!(served.get_json("/api/v1/chains?since=2h").await["chains"].as_array().unwrap().len(), 60);
}

#[tokio::test]
async fn a_window_is_waited_for_no_longer_than_asked_and_it_is_said_what_is_still_landing() {
    let mut fixture = Fixture::empty().await;
    // Ten seconds before the service's now, landed nine seconds later: its agent goes on.
    let live = [event(1, 6, 900, 3_590 * SECOND_US), event(1, 6, 900, 3_590 * SECOND_US + 1)];
    fixture.land_events("n1", &live).await;
    let served = fixture.serve().await;
    let found = served.get_json("/api/v1/chains?wait=0s").await;
    let still = &found["completeness"]["still_landing"];
    let expected = json!([{ "node": "n1", "complete_to": "2026-03-01T00:59:50.000Z", "behind_ms": 10_000 }]);
    assert_eq!(*still, expected, "{found}");
    assert_eq!(found["completeness"]["complete_to"], "2026-03-01T00:59:50.000Z");
    let past = served.get_json("/api/v1/chains?wait=0s&to=2026-03-01T00:59:50.000Z&from=2026-03-01T00:50:00Z").await;
    assert_eq!(past["completeness"]["still_landing"], json!([]), "that has landed");
    for wait in ["soon", "1h"] {
        let (status, problem) = served.get(&format!("/api/v1/chains?wait={wait}")).await;
        assert!(status == 400 && problem.contains("give a duration up to 300 s"), "{status} {problem}");
    }
    let nodes = served.get_json("/api/v1/nodes").await;
    let node = &nodes["nodes"][0];
    assert_eq!((&node["lag_ms"], &node["status"]), (&json!(10_000), &json!("reporting")), "{node}");
    assert_eq!(node["complete_to"], "2026-03-01T00:59:50.000Z");
}

#[tokio::test]
async fn a_node_whose_agent_has_ended_is_said_to_have_ended_and_lags_behind_nothing() {
    let mut fixture = Fixture::empty().await;
    fixture.land_events("n1", &[event(1, 6, 900, 3_000 * SECOND_US), event(1, 6, 900, 3_590 * SECOND_US)]).await;
    let stopped_ns = crate::fixture::DAY_NS + 3_591_000_000_000;
    let session = vec![
        ("boot_ns", Value::Long(3_591_000_000_000)),
        ("started_ns", Value::Long(crate::fixture::DAY_NS)),
        ("stopped_ns", Value::Long(stopped_ns)),
    ];
    fixture.land_in_run("n1", RecordKind::Session, vec![session]).await;
    let served = fixture.serve().await;
    let nodes = served.get_json("/api/v1/nodes").await;
    let node = &nodes["nodes"][0];
    assert_eq!((&node["status"], &node["lag_ms"]), (&json!("ended"), &json!(null)), "{node}");
    assert_eq!(
        (&node["ended_at"], &node["last_event"]),
        (&json!("2026-03-01T00:59:51.000Z"), &json!("2026-03-01T00:59:51.000Z")),
        "{node}"
    );
    let found = served.get_json("/api/v1/chains?since=2h").await;
    assert_eq!(found["completeness"]["still_landing"], json!([]), "{found}");
    assert_eq!((&found["completeness"]["missing"], &found["completeness"]["complete_to"]), (&json!([]), &json!(null)));
}
