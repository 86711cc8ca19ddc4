//! The native surface: forms of an answer, limits and times in the request, what there is, and how complete it is.

use arrow::ipc::reader::StreamReader;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use reqwest::header::ACCEPT;
use serde_json::json;

use crate::fixture::{DAY_NS, Fixture, Served, event};

const COUNT_BY_NODE: &str = "SELECT node, count(*) AS n FROM events GROUP BY node ORDER BY node";

async fn accepting(served: &Served, media: &str, sql: &str) -> (u16, String, Vec<u8>, Option<String>) {
    let reply = served.post_sql(&json!({ "sql": sql })).header(ACCEPT, media).send().await.unwrap();
    let text = |name: &str| reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (kind, completeness) = (text("content-type").unwrap_or_default(), text("x-causeway-completeness"));
    let status = reply.status().as_u16();
    (status, kind, reply.bytes().await.unwrap().to_vec(), completeness)
}

#[tokio::test]
async fn every_form_carries_the_same_rows_and_says_how_complete_they_are() {
    let served = Fixture::with_events().await.serve().await;
    let (status, kind, csv, completeness) = accepting(&served, "text/csv", COUNT_BY_NODE).await;
    assert_eq!((status, kind.starts_with("text/csv")), (200, true));
    assert_eq!(csv, b"node,n\r\ngpu-node-01,3\r\ngpu-node-02,2\r\ngpu-node-03,1\r\n");
    let completeness: serde_json::Value = serde_json::from_str(&completeness.unwrap()).unwrap();
    assert_eq!(completeness["nodes_expected"], 3);

    let (_, _, ndjson, _) = accepting(&served, "application/x-ndjson", COUNT_BY_NODE).await;
    assert_eq!(String::from_utf8(ndjson).unwrap().lines().last(), Some(r#"{"node":"gpu-node-03","n":1}"#));

    let (_, _, arrow, _) = accepting(&served, "application/vnd.apache.arrow.stream", COUNT_BY_NODE).await;
    let rows: usize =
        StreamReader::try_new(arrow.as_slice(), None).unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 3);

    let (_, _, parquet, _) = accepting(&served, "application/vnd.apache.parquet", COUNT_BY_NODE).await;
    assert_eq!((&parquet[..4], &parquet[parquet.len() - 4..]), (b"PAR1".as_slice(), b"PAR1".as_slice()));

    let (status, kind, _, _) = accepting(&served, "image/png", COUNT_BY_NODE).await;
    assert_eq!((status, kind.as_str()), (406, "application/problem+json"));
}

#[tokio::test]
async fn a_failure_before_the_first_row_is_a_problem_in_every_form() {
    let served = Fixture::with_events().await.serve().await;
    let (status, kind, _, _) = accepting(&served, "text/csv", "SELECT 1 / (source - source) FROM events").await;
    assert_eq!((status, kind.as_str()), (422, "application/problem+json"));
}

#[tokio::test]
async fn a_limit_cuts_the_answer_and_says_so() {
    let served = Fixture::with_events().await.serve().await;
    let (_, cut) = served.ask(&json!({ "sql": "SELECT id FROM events", "limit": 4 })).await;
    assert_eq!((&cut["row_count"], &cut["truncated"]), (&json!(4), &json!(true)));
    let (_, whole) = served.ask(&json!({ "sql": "SELECT id FROM events", "limit": 6 })).await;
    assert_eq!((&whole["row_count"], &whole["truncated"]), (&json!(6), &json!(false)));
}

#[tokio::test]
async fn a_request_that_is_malformed_is_a_problem() {
    let served = Fixture::empty().await.serve().await;
    for body in [
        json!({ "query": "SELECT 1" }),
        json!({ "sql": "SELECT 1", "limit": "many" }),
        json!({ "sql": "SELECT 1", "at": "soon" }),
    ] {
        let (status, problem) = served.ask(&body).await;
        assert!((400..500).contains(&status), "{body}: {problem}");
        assert_eq!(problem["type"], "urn:causeway:problem:bad-request", "{body}: {problem}");
    }
}

#[tokio::test]
async fn an_empty_lake_answers_with_no_rows() {
    let served = Fixture::empty().await.serve().await;
    let (status, body) = served
        .sql("SELECT node, source, count(*) AS cnt, avg(duration)/1000 AS avg_us FROM events GROUP BY node, source")
        .await;
    assert_eq!((status, &body["rows"]), (200, &json!([])));
    let completeness = &body["completeness"];
    assert_eq!((&completeness["nodes_expected"], &completeness["snapshot_id"]), (&json!(0), &json!(null)));
    assert_eq!(served.rows("SELECT count(*) FROM event_aggregates").await, json!([[0]]));
    assert_eq!(served.get_json("/api/v1/chains?since=1h").await["chains"], json!([]));
}

#[tokio::test]
async fn a_time_in_the_past_reads_the_tables_as_they_were() {
    let mut fixture = Fixture::with_events().await;
    let committed_ms = fixture.lake.table("silver", "events").snapshot().await.unwrap().timestamp_ms().unwrap();
    // Commit times are milliseconds of the machine's clock: wait until it shows another one.
    while chrono::Utc::now().timestamp_millis() <= committed_ms {
        tokio::task::yield_now().await;
    }
    fixture.land_events("gpu-node-04", &[event(1, 3, 5, 0)]).await;
    let served = fixture.serve_today().await;
    assert_eq!(served.rows("SELECT count(*) FROM events").await, json!([[7]]));
    let at = chrono::DateTime::from_timestamp_millis(committed_ms).unwrap().to_rfc3339();
    let (_, then) = served.ask(&json!({ "sql": "SELECT count(*) FROM events", "at": at })).await;
    assert_eq!(then["rows"], json!([[6]]));
}

#[tokio::test]
async fn a_time_when_there_was_nothing_yet_is_refused_and_so_is_the_future() {
    let served = Fixture::with_events().await.serve().await;
    let at = async |at: &str| served.ask(&json!({ "sql": "SELECT count(*) FROM events", "at": at })).await;
    let (status, before) = at("1999-01-01T00:00:00Z").await;
    assert_eq!((status, &before["type"]), (400, &json!("urn:causeway:problem:sql-invalid")), "{before}");
    assert_eq!(
        before["detail"],
        "nothing had landed in silver.events by 1999-01-01T00:00:00.000Z: ask for a later time"
    );
    let (status, future) = at("2199-01-01T00:00:00Z").await;
    assert_eq!((status, &future["detail"]), (400, &json!("`at` lies in the future")), "{future}");
}

#[tokio::test]
async fn an_answer_is_narrowed_in_every_table_it_reads_however_it_is_named() {
    let served = Fixture::with_events().await.serve().await;
    let narrowed = async |sql: &str, nodes: &[&str]| served.ask(&json!({ "sql": sql, "nodes": nodes })).await;
    for table in ["events", "silver.events", "\"silver\".\"events\"", "causeway . silver . events", "public.events"] {
        let (_, found) = narrowed(&format!("SELECT count(*) AS events FROM {table}"), &["gpu-node-01"]).await;
        assert_eq!(found["rows"], json!([[3]]), "{table}: {found}");
    }
    let joined = "SELECT count(*) FROM events e JOIN silver.events s USING (event_id) WHERE s.node <> 'gpu-node-01'";
    assert_eq!(narrowed(joined, &["gpu-node-01", "gpu-node-02"]).await.1["rows"], json!([[2]]));
    let (status, refused) = narrowed("SELECT count(*) FROM bronze.messages", &["gpu-node-01"]).await;
    assert_eq!(status, 400);
    assert!(refused["detail"].as_str().unwrap().starts_with("`bronze.messages` has no node"), "{refused}");
    assert_eq!(narrowed("SELECT 1", &["gpu-node-01"]).await.0, 400);
    let since = json!({ "sql": "SELECT count(*) FROM events", "since": "2026-03-01T00:00:00.001Z" });
    let all = served.rows("SELECT count(*) FROM events WHERE ts >= TIMESTAMP '2026-03-01 00:00:00.001+00:00'").await;
    assert_eq!(served.ask(&since).await.1["rows"], all);
    assert_ne!(all, json!([[6]]), "some rows are older");
}

#[tokio::test]
async fn a_node_that_nobody_has_heard_of_is_missing() {
    let served = Fixture::with_events().await.serve().await;
    let about = async |nodes: &[&str]| {
        let (_, found) = served.ask(&json!({ "sql": "SELECT count(*) FROM events", "nodes": nodes })).await;
        let Some(said) = found.get("completeness") else { panic!("{found}") };
        (said["nodes_expected"].clone(), said["missing"].clone())
    };
    assert_eq!(about(&["gpu-node-01", "gpu-node-99"]).await, (json!(2), json!(["gpu-node-99"])));
    assert_eq!(about(&["gpu-node-01"]).await, (json!(1), json!([])));
    let chains = served.get_json("/api/v1/chains?since=1h&nodes=gpu-node-99").await;
    assert_eq!(chains["completeness"]["missing"], json!(["gpu-node-99"]));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_a_problem_document() {
    let served = Fixture::empty().await.serve().await;
    for path in ["/nosuch", "/api/v1/nosuch", "/v1/nosuch", "/v1/statement"] {
        let (status, problem) = served.get(path).await;
        let problem: serde_json::Value = serde_json::from_str(&problem).unwrap_or_else(|_| panic!("{path}: {problem}"));
        assert_eq!(problem["status"], status, "{path}: {problem}");
        assert_eq!(status, if path == "/v1/statement" { 405 } else { 404 }, "{path}");
    }
    let (_, problem) = served.ask(&json!({ "sql": "SELECT 1", "limit": -1 })).await;
    assert!(problem["detail"].as_str().unwrap().starts_with("limit: invalid value"), "{problem}");
}

/// As the administrator of another schema would, while others have the catalog open.
fn rename_table(catalog: &std::path::Path, from: &str, to: &str) {
    let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=60).execute(f'ALTER TABLE {sys.argv[2]} RENAME TO {sys.argv[3]}')";
    let python = std::process::Command::new("python3").args(["-c", script]).arg(catalog).args([from, to]).status();
    assert!(python.unwrap().success());
}

#[tokio::test]
async fn a_lake_that_cannot_be_read_is_told_by_readyz() {
    let fixture = Fixture::with_events().await;
    let catalog = fixture.dir.path().join("catalog.sqlite");
    let served = fixture.serve().await;
    let becomes = async |wanted: u16| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut last = served.get("/readyz").await;
        while last.0 != wanted && std::time::Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            last = served.get("/readyz").await;
        }
        assert_eq!(last.0, wanted, "/readyz: {}", last.1);
        last.1
    };
    becomes(200).await;
    rename_table(&catalog, "iceberg_tables", "gone");
    assert!(becomes(503).await.contains("catalog and store"));
    rename_table(&catalog, "gone", "iceberg_tables");
    becomes(200).await;
}

#[tokio::test]
async fn one_table_that_cannot_be_read_does_not_hide_the_others() {
    let fixture = Fixture::with_events().await;
    let stacks = fixture.dir.path().join("warehouse/silver/events/metadata");
    let is_list = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("snap-");
    for entry in std::fs::read_dir(stacks).unwrap().map(Result::unwrap).filter(is_list) {
        std::fs::remove_file(entry.path()).unwrap();
    }
    let served = fixture.serve().await;
    let tables = served.get_json("/api/v1/tables").await;
    let find = |name: &str| tables["tables"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    assert!(find("silver.events")["error"].is_string(), "{}", find("silver.events"));
    assert_eq!(find("bronze.messages")["rows"], 3);
}

#[tokio::test]
async fn tables_and_views_are_listed_with_their_columns_and_sizes() {
    let served = Fixture::with_events().await.serve().await;
    let tables = served.get_json("/api/v1/tables").await;
    let find = |name: &str| tables["tables"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    assert_eq!((&find("silver.events")["rows"], &find("silver.events")["files"]), (&json!(6), &json!(3)));
    assert_eq!(find("gold.chains")["snapshot_id"], json!(null));
    assert_eq!(find("events")["kind"], "view");
    let events = served.get_json("/api/v1/tables/silver.events").await;
    let node = &events["columns"][2];
    assert_eq!((&node["name"], &node["type"], &node["nullable"]), (&json!("node"), &json!("varchar"), &json!(false)));
    assert_eq!(events["snapshots"].as_array().unwrap().len(), 3);
    assert_eq!(events["snapshots"][0]["operation"], "append");
    for table in tables["tables"].as_array().unwrap() {
        let name = table["name"].as_str().unwrap();
        let described = served.get_json(&format!("/api/v1/tables/{name}")).await;
        for column in described["columns"].as_array().unwrap() {
            assert!(column["doc"].as_str().is_some_and(|doc| !doc.is_empty()), "{name}: {column}");
        }
    }
    assert_eq!(served.get("/api/v1/tables/nosuch").await.0, 404);
    assert_eq!(served.get("/api/v1/tables/silver.events;--").await.0, 404);
}

#[tokio::test]
async fn nodes_and_completeness_count_what_was_lost() {
    let mut fixture = Fixture::with_events().await;
    let mut rows = event_schema::batch::EventRows::new();
    rows.push(&event(1, 3, 5, 0));
    let losses = LossCounters { emitted: 10, ring_drop: 4, sampled_out: 5, ..LossCounters::default() };
    fixture.land("gpu-node-03", RecordKind::Event, rows.finish().unwrap(), losses).await;
    let served = fixture.serve().await;
    let completeness = served.get_json("/api/v1/completeness").await;
    assert_eq!((&completeness["nodes_expected"], &completeness["lost_events"]), (&json!(3), &json!(4)));
    assert!(completeness["snapshot_id"].is_i64() && completeness["as_of"].is_string(), "{completeness}");
    // A name is no part of the statement that it is looked up with.
    let named = served.get_json("/api/v1/completeness?nodes=%7Bbegun%7D&since=2h&to=1h").await;
    assert_eq!(named["missing"], json!(["{begun}"]));
    let node = served.get_json("/api/v1/nodes/gpu-node-03").await;
    assert_eq!((&node["rows"], &node["lost_events"], &node["sampled_out"]), (&json!(2), &json!(4), &json!(5)));
    assert_eq!(node["status"], "recording");
    assert_eq!(served.get("/api/v1/nodes/nosuch").await.0, 404);
}

#[tokio::test]
async fn health_readiness_and_metrics_are_served() {
    let served = Fixture::with_events().await.serve().await;
    served.rows("SELECT id FROM events").await;
    served.sql("SELECT nosuch FROM events").await;
    assert_eq!(served.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(served.get("/readyz").await.0, 200);
    let (_, metrics) = served.get("/metrics").await;
    assert!(metrics.contains("causeway_query_queries_total{outcome=\"Answered\"} 1"), "{metrics}");
    assert!(metrics.contains("causeway_query_queries_total{outcome=\"Refused\"} 1"), "{metrics}");
    assert!(metrics.contains("causeway_query_rows_total 6"), "{metrics}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_and_one_that_nobody_waits_for_are_counted_as_such() {
    let served = Fixture::with_events().await.serve().await;
    // The last rows meet what cannot be computed, long after the first were sent.
    let breaks = "SELECT repeat('x', 1000), 1 / (value - 299999) FROM generate_series(1, 300000)";
    let reply = served.post_sql(&json!({ "sql": breaks })).header(ACCEPT, "text/csv").send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(reply.bytes().await.is_err(), "it breaks off");
    let endless = "SELECT repeat('x', 1000) FROM generate_series(1, 10000000)";
    let mut reply = served.post_sql(&json!({ "sql": endless })).header(ACCEPT, "text/csv").send().await.unwrap();
    reply.chunk().await.unwrap().unwrap();
    drop(reply);
    for _ in 0..300 {
        let (_, metrics) = served.get("/metrics").await;
        let has = |outcome: &str| metrics.contains(&format!("causeway_query_queries_total{{outcome=\"{outcome}\"}} 1"));
        if has("Refused") && has("Cancelled") {
            assert!(!metrics.contains("outcome=\"Answered\""), "{metrics}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{}", served.get("/metrics").await.1);
}

#[tokio::test]
async fn identifiers_of_64_bits_survive_as_json_numbers() {
    let mut fixture = Fixture::empty().await;
    let exact = event_schema::batch::Event { arg0: i64::MAX, stack_hash: i64::MIN, ..event(1, 3, 5, 0) };
    fixture.land_events("n", &[exact]).await;
    let served = fixture.serve().await;
    let reply =
        served.post_sql(&json!({ "sql": "SELECT arg0, stack_hash, timestamp FROM events" })).send().await.unwrap();
    let text = reply.text().await.unwrap();
    assert!(text.contains(&format!("[[9223372036854775807,-9223372036854775808,{DAY_NS}]]")), "{text}");
}

#[tokio::test]
async fn a_snapshot_reads_its_table_at_it_and_the_others_as_they_were_then() {
    let mut fixture = Fixture::with_events().await;
    let snapshot = fixture.lake.table("silver", "events").snapshot().await.unwrap();
    let (id, committed_ms) = (snapshot.snapshot_id().unwrap(), snapshot.timestamp_ms().unwrap());
    while chrono::Utc::now().timestamp_millis() <= committed_ms + 1_000 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    fixture.land_events("gpu-node-04", &[event(1, 3, 5, 0)]).await;
    let served = fixture.serve().await;
    let sql = "SELECT (SELECT count(*) FROM events), (SELECT count(DISTINCT node) FROM gold.op_minute)";
    let (status, then) = served.ask(&json!({ "sql": sql, "snapshot": id })).await;
    assert_eq!((status, &then["rows"][0][0]), (200, &json!(6)), "{then}");
    assert_ne!(then["rows"][0][1], 4, "the other table is read as it is now: {then}");
    let used = then["snapshots"].as_array().unwrap().iter().find(|used| used["table"] == "silver.events").unwrap();
    assert_eq!(used["snapshot_id"], id);
    let (_, unknown) = served.ask(&json!({ "sql": sql, "snapshot": 5 })).await;
    assert_eq!(unknown["type"], "urn:causeway:problem:sql-invalid", "{unknown}");
    assert!(unknown["detail"].as_str().unwrap().contains("silver.events"), "{unknown}");
    let (status, _) = served.ask(&json!({ "sql": sql, "snapshot": id, "at": "5m" })).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn completeness_is_about_the_time_of_the_answer() {
    let mut fixture = Fixture::empty().await;
    let lossy = |nth| {
        let mut rows = event_schema::batch::EventRows::new();
        rows.push(&event(1, 3, 5, nth));
        rows.finish().unwrap()
    };
    let losses = LossCounters { emitted: 10, shed: 4, ..LossCounters::default() };
    // An hour before the service's now.
    fixture.land("n1", RecordKind::Event, lossy(0), losses).await;
    let served = fixture.serve().await;
    let lost = async |body: serde_json::Value| served.ask(&body).await.1["completeness"]["lost_events"].clone();
    let sql = "SELECT count(*) FROM events";
    assert_eq!(lost(json!({ "sql": sql })).await, 4);
    assert_eq!(lost(json!({ "sql": sql, "since": "2h" })).await, 4);
    assert_eq!(lost(json!({ "sql": sql, "since": "5m" })).await, 0);
    assert_eq!(served.get_json("/api/v1/completeness?since=5m").await["lost_events"], 0);
    assert_eq!(served.get_json("/api/v1/completeness?since=2h").await["lost_events"], 4);
    assert_eq!(served.get_json("/api/v1/chains?since=5m").await["completeness"]["lost_events"], 0);
    let before = served.get_json("/api/v1/chains?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z").await;
    assert_eq!(before["completeness"]["nodes_expected"], 0, "{before}");
}

#[tokio::test]
async fn what_an_agent_that_was_behind_tells_after_the_end_of_a_question_is_charged_to_it() {
    let mut fixture = Fixture::empty().await;
    let second = 1_000_000;
    // Messages carry the time of midnight: these were written seconds after their events.
    let before = [event(1, 3, 5, -10 * second), event(1, 3, 5, -7 * second)];
    let after = [event(1, 3, 5, -6 * second)];
    let losses = LossCounters { emitted: 4, shed: 4, ..LossCounters::default() };
    fixture.land_run("n1", &[(&before, LossCounters::default()), (&after, losses)]).await;
    let served = fixture.serve().await;
    let lost = async |to: &str| {
        let path = format!("/api/v1/completeness?from=2026-02-28T23:59:00Z&to=2026-02-28T23:59:{to}Z");
        served.get_json(&path).await["lost_events"].clone()
    };
    assert_eq!(lost("52").await, 4, "between its batches");
    assert_eq!(lost("58").await, 4, "after both");
    assert_eq!(lost("40").await, 0, "before both");
}
