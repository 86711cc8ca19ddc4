//! What an agent reports of processes that it cannot trace.

use event_schema::batch::Value as Cell;
use event_schema::kind::RecordKind;
use serde_json::json;

use crate::fixture::{DAY_NS, Fixture, NOW_NS, Served};

const MINUTE_NS: i64 = 60_000_000_000;

/// A server whose table of processes has these reports of `n1`.
async fn with_reports() -> Served {
    let mut fixture = Fixture::with_events().await;
    let report = |pid: i64, before_now_ns: i64, reason: Option<&str>| {
        vec![
            ("boot_ns", Cell::Long(NOW_NS - DAY_NS - before_now_ns)),
            ("pid", Cell::Long(pid)),
            ("name", Cell::Text("python3".to_owned())),
            ("job_id", if pid == 9 { Cell::Text("mine".to_owned()) } else { Cell::Null }),
            ("untraced", reason.map_or(Cell::Null, |reason| Cell::Text(reason.to_owned()))),
        ]
    };
    let reports = vec![
        report(7, 2 * MINUTE_NS, Some("cannot open library")),
        report(7, MINUTE_NS, Some("not an ELF file")),
        report(8, 2 * MINUTE_NS, Some("is traced by now")),
        report(8, MINUTE_NS, None),
        report(9, 10 * MINUTE_NS, Some("has ended")),
    ];
    fixture.land_records("n1", RecordKind::Process, reports).await;
    fixture.serve().await
}

#[tokio::test]
async fn a_process_that_is_not_traced_is_named_with_the_reason_while_its_agent_reports_it() {
    let served = with_reports().await;
    let untraced = &served.get_json("/api/v1/nodes").await["untraced"];
    assert_eq!(untraced.as_array().map(Vec::len), Some(1), "{untraced}");
    let of = |name: &str| untraced[0][name].clone();
    assert_eq!(
        [of("node"), of("pid"), of("name"), of("reason")],
        [json!("n1"), json!(7), json!("python3"), json!("not an ELF file")]
    );
}

#[tokio::test]
async fn explain_names_the_processes_of_its_window_that_were_not_traced() {
    let served = with_reports().await;
    let pids = async |parameters: &str| -> Vec<i64> {
        let document = served.get_json(&format!("/api/v1/chains?wait=0s&{parameters}")).await;
        document["untraced"].as_array().unwrap().iter().map(|process| process["pid"].as_i64().unwrap()).collect()
    };
    assert_eq!(pids("since=1m").await, [7]);
    assert_eq!(pids("since=1m&nodes=n1").await, [7]);
    assert_eq!(pids("since=1m&nodes=n2").await, [0_i64; 0]);
    assert_eq!(pids("since=10m&job=mine").await, [7, 9], "also those whose job is not known");
    assert_eq!(pids("since=10m&job=other").await, [7], "not those of another job");
    // What has ended by now was not traced then.
    assert_eq!(pids("since=10m").await, [7, 9]);
    assert_eq!(pids("since=10m&to=9m").await, [9]);
    let (_, text) = served.get("/api/v1/chains?wait=0s&since=1m&format=text").await;
    assert!(text.contains("not traced: python3 (pid 7) on n1, because not an ELF file\n"), "{text}");
}
