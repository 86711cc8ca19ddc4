//! Chains over HTTP: stored ones in order of severity, and what the engine says of a window.

use std::time::Duration;

use event_schema::batch::Value;
use event_schema::kind::RecordKind;
use query_engine::Limits;
use serde_json::json;

use crate::fixture::{DAY_NS, Fixture, event};

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn chain(id: &str, severity: &str, nth: i64) -> Vec<(&'static str, Value)> {
    let timeline = r#"[{"layer":"HOST","op":"sched_switch","detail":"847 sched_switch events","dur_us":12}]"#;
    vec![
        ("boot_ns", Value::Long(nth)),
        ("chain_id", text(id)),
        ("detected_ns", Value::Long(DAY_NS + nth)),
        ("severity", text(severity)),
        ("summary", text("cuLaunchKernel p99=843us (63.9x p50) - 847 sched_switch events + heavy block I/O")),
        ("root_cause", text("847 sched_switch events + heavy block I/O")),
        ("recommendations", text(r#"["pin the process"]"#)),
        ("op", text("cuLaunchKernel")),
        ("p99_us", Value::Long(843)),
        ("p50_us", Value::Long(13)),
        ("tail_ratio", Value::Double(63.9)),
        ("timeline", text(timeline)),
    ]
}

/// Three nodes with events, two of them with stored chains.
pub(crate) async fn with_chains() -> Fixture {
    let mut fixture = Fixture::with_events().await;
    let of_one = vec![chain("gpu-node-01:a", "MEDIUM", 1), chain("gpu-node-01:b", "HIGH", 2)];
    fixture.land_records("gpu-node-01", RecordKind::Chain, of_one).await;
    fixture.land_records("gpu-node-02", RecordKind::Chain, vec![chain("gpu-node-02:c", "MEDIUM", 3)]).await;
    fixture
}

#[tokio::test]
async fn stored_chains_come_in_order_of_severity_with_everything_they_know() {
    let served = with_chains().await.serve().await;
    let found = served.get_json("/api/v1/chains?since=12h").await;
    let ids: Vec<&str> =
        found["chains"].as_array().unwrap().iter().map(|chain| chain["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["gpu-node-01:b", "gpu-node-02:c", "gpu-node-01:a"]);
    let first = &found["chains"][0];
    assert_eq!(
        (&first["severity"], &first["ratio"], &first["p99_ns"]),
        (&json!("HIGH"), &json!(63.9), &json!(843_000))
    );
    assert_eq!(first["fixes"], json!(["pin the process"]));
    assert_eq!(first["timeline"][0]["duration_ns"], 12_000);
    assert!(found["completeness"]["snapshot_id"].is_i64(), "{found}");
    let rows = served.rows("SELECT id, severity, cuda_op, tail_ratio FROM causal_chains ORDER BY id LIMIT 1").await;
    assert_eq!(rows, json!([["gpu-node-01:a", "MEDIUM", "cuLaunchKernel", 63.9]]));
}

#[tokio::test]
async fn the_text_form_reads_like_the_reference() {
    let served = with_chains().await.serve().await;
    let (status, text) = served.get("/api/v1/chains?since=12h&format=text").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.starts_with("FLEET CAUSAL CHAINS - 3 chain(s) from 3 node(s)\n"), "{text}");
    assert!(
        text.contains("[HIGH] [gpu-node-01] cuLaunchKernel p99=843us (63.9x p50) - 847 sched_switch events"),
        "{text}"
    );
}

#[tokio::test]
async fn the_window_and_the_job_leave_chains_out() {
    let served = with_chains().await.serve().await;
    let none = |found: serde_json::Value| assert_eq!(found["chains"], json!([]), "{found}");
    none(served.get_json("/api/v1/chains").await);
    none(served.get_json("/api/v1/chains?since=12h&job=train").await);
    none(served.get_json("/api/v1/chains?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z").await);
    assert_eq!(served.get("/api/v1/chains?since=12h&from=1h").await.0, 400);
    assert_eq!(served.get("/api/v1/chains?nosuch=1").await.0, 400);
    assert_eq!(served.get("/api/v1/chains?format=xml").await.0, 400);
    none(served.get_json("/api/v1/chains?since=12h&compat=true").await);
    assert_eq!(served.get("/api/v1/stragglers?compat=true").await.0, 400);
}

#[tokio::test]
async fn a_job_too_small_to_judge_gets_an_honest_unknown() {
    let mut fixture = Fixture::empty().await;
    let process = event_schema::batch::ProcessInfo {
        rank: Some(0),
        world_size: Some(4),
        job_id: Some("train"),
        ..Default::default()
    };
    let events: Vec<_> =
        (0..50).map(|n| event_schema::batch::Event { process, ..event(1, 6, 900, n * 1_000) }).collect();
    fixture.land_events("a", &events).await;
    let served = fixture.serve().await;
    let found = served.get_json("/api/v1/stragglers?since=12h&job=train").await;
    assert_eq!(found["jobs"][0]["verdict"]["verdict"], "unknown", "{found}");
    assert_eq!(found["jobs"][0]["stragglers"], json!([]));
    assert_eq!(served.get_json("/api/v1/chains?since=12h").await["chains"], json!([]));
}

#[tokio::test]
async fn a_window_with_more_events_than_are_looked_at_says_so() {
    let mut fixture = Fixture::empty().await;
    let events: Vec<_> = (0..50).map(|n| event(1, 6, 900, n * 2_000_000)).collect();
    fixture.land_events("a", &events).await;
    let served = fixture.serve_with(Limits { events: 20, ..Limits::default() }).await;
    let found = served.get_json("/api/v1/chains?since=12h").await;
    assert_eq!(
        (&found["looked_at"]["events"], &found["looked_at"]["unread_rows"]),
        (&json!(20), &json!(30)),
        "{found}"
    );
    assert!(found["looked_at"]["from"].as_str() > Some("2026-03-01T00:00:59"), "{found}");
    assert_eq!(found["completeness"]["unread_rows"], 30);
    let ranked = served.get_json("/api/v1/stragglers?since=12h").await;
    assert_eq!(ranked["completeness"]["unread_rows"], 30);
    let reply = served.client.get(format!("{}/api/v1/chains?since=12h&format=text", served.base)).send().await.unwrap();
    assert!(reply.headers()["x-causeway-completeness"].to_str().unwrap().contains("\"unread_rows\":30"));
    let text = reply.text().await.unwrap();
    assert!(text.contains("\nincomplete: looked at 20 events from 2026-03-01T00:0"), "{text}");
    let narrow = served.get_json("/api/v1/chains?from=2026-03-01T00:00:00Z&to=2026-03-01T00:00:30Z").await;
    assert_eq!(
        (&narrow["looked_at"]["events"], &narrow["looked_at"]["unread_rows"]),
        (&json!(16), &json!(0)),
        "{narrow}"
    );
    assert_eq!(narrow["looked_at"]["from"], "2026-03-01T00:00:00.000Z");
}

#[tokio::test]
async fn stored_chains_beyond_the_rows_of_an_answer_are_counted() {
    let served = with_chains().await.serve_with(Limits { rows: 2, ..Limits::default() }).await;
    let found = served.get_json("/api/v1/chains?since=12h").await;
    let ids: Vec<&str> = found["chains"].as_array().unwrap().iter().filter_map(|chain| chain["id"].as_str()).collect();
    assert_eq!(ids, ["gpu-node-01:b", "gpu-node-02:c"], "the newest");
    assert_eq!(found["completeness"]["unread_rows"], 1);
}

#[tokio::test]
async fn the_time_of_a_query_is_the_time_of_a_detection() {
    let limits = Limits { time: Duration::from_micros(1), ..Limits::default() };
    let served = with_chains().await.serve_with(limits).await;
    let (status, problem) = served.get("/api/v1/chains?since=12h").await;
    assert!(status == 504 && problem.contains("longer than 0.000001 s"), "{status} {problem}");
}
