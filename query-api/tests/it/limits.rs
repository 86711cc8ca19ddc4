//! What one query may take, and that it gives everything back when it is over its limit or its client has gone.

use std::time::Duration;

use query_engine::Limits;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Served};

/// Runs for minutes if it is left alone: a hundred million pairs.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y) \
                       WHERE (a.x * 7 + b.y) % 1000003 = 5";

#[tokio::test]
async fn a_query_over_its_time_ends_with_a_problem() {
    let served = Fixture::empty().await.serve().await;
    let started = std::time::Instant::now();
    let (status, problem) = served.ask(&json!({ "sql": ENDLESS, "timeout_ms": 300 })).await;
    assert_eq!((status, &problem["type"]), (504, &json!("urn:causeway:problem:time-limit")), "{problem}");
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_query_over_its_memory_ends_with_a_problem() {
    let limits = Limits { memory_bytes: 32 << 20, spill_bytes: 1 << 20, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let sql = "SELECT a.x, array_agg(a.x || '-' || b.y) FROM generate_series(1, 500) AS a(x), \
               generate_series(1, 5000) AS b(y) GROUP BY a.x";
    let (status, problem) = served.sql(sql).await;
    assert_eq!((status, &problem["type"]), (507, &json!("urn:causeway:problem:memory-limit")), "{problem}");
}

#[tokio::test]
async fn a_query_whose_client_left_makes_room_for_the_next() {
    let limits = Limits { concurrent: 1, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let endless = served.post_sql(&json!({ "sql": ENDLESS })).timeout(Duration::from_millis(300)).send().await;
    assert!(endless.unwrap_err().is_timeout());
    let (status, body) = served.ask(&json!({ "sql": "SELECT 1", "timeout_ms": 10_000 })).await;
    assert_eq!((status, &body["rows"]), (200, &json!([[1]])), "{body}");
}

#[tokio::test]
async fn a_query_beyond_the_queue_is_refused_at_once() {
    let limits = Limits { concurrent: 1, queued: 0, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let first = tokio::spawn(served.post_sql(&json!({ "sql": ENDLESS, "timeout_ms": 3_000 })).send());
    let refused = loop {
        let reply = served.post_sql(&json!({ "sql": "SELECT 1" })).send().await.unwrap();
        if reply.status().as_u16() != 200 {
            break reply;
        }
    };
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(first.await.unwrap().unwrap().status().as_u16(), 504);
}

#[tokio::test]
async fn one_address_leaves_a_turn_to_the_others_however_many_statements_it_sends() {
    let limits = Limits { concurrent: 2, queued: 4, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let flood = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let post =
        || flood.post(format!("{}/api/v1/sql", served.base)).json(&json!({ "sql": ENDLESS, "timeout_ms": 20_000 }));
    let sent: Vec<_> = (0..12).map(|_| tokio::spawn(post().send())).collect();
    // Beyond its share of the queue the flood itself is refused.
    let refused = async { while post().send().await.unwrap().status().as_u16() != 429 {} };
    tokio::time::timeout(Duration::from_secs(15), refused).await.expect("no statement of the flood is refused");
    let (status, body) = served.ask(&json!({ "sql": "SELECT 1", "timeout_ms": 15_000 })).await;
    assert_eq!((status, &body["rows"]), (200, &json!([[1]])), "{body}");
    sent.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_answer_never_has_more_rows_than_the_server_allows() {
    let limits = Limits { rows: 100, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let (_, body) = served.ask(&json!({ "sql": "SELECT value FROM generate_series(1, 1000)", "limit": 500 })).await;
    assert_eq!((&body["row_count"], &body["truncated"]), (&json!(100), &json!(true)));
}

#[tokio::test]
async fn a_streamed_answer_needs_no_second_turn_to_say_how_complete_it_is() {
    let limits = Limits { concurrent: 1, ..Limits::default() };
    let served = Fixture::with_events().await.serve_with(limits).await;
    let started = std::time::Instant::now();
    let post = served.post_sql(&json!({ "sql": "SELECT id FROM events" })).header("accept", "text/csv");
    let reply = post.send().await.unwrap();
    assert!(reply.headers().contains_key("x-causeway-completeness"));
    assert_eq!(reply.text().await.unwrap().lines().count(), 7);
    assert!(started.elapsed() < Duration::from_secs(4), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_recursion_without_end_is_cut_off() {
    let served = Fixture::empty().await.serve().await;
    let sql = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r";
    let (status, problem) = served.ask(&json!({ "sql": sql, "timeout_ms": 500 })).await;
    assert_eq!((status, &problem["type"]), (504, &json!("urn:causeway:problem:time-limit")), "{problem}");
}

/// Asked for as a stream, as `causeway query --format csv` does.
async fn lines(served: &Served, body: &Value) -> (u16, reqwest::Result<usize>) {
    let reply = served.post_sql(body).header("accept", "text/csv").send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.map(|text| text.lines().count()))
}

#[tokio::test]
async fn a_streamed_answer_has_every_row_or_breaks_off() {
    let limits = Limits { rows: 100, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let all = "SELECT value FROM generate_series(1, 50000)";
    let (status, whole) = lines(&served, &json!({ "sql": all })).await;
    assert_eq!((status, whole.unwrap()), (200, 50_001));
    let (_, wanted) = lines(&served, &json!({ "sql": all, "limit": 7 })).await;
    assert_eq!(wanted.unwrap(), 8);
    let slow = "SELECT a.x FROM generate_series(1, 1000) AS a(x), generate_series(1, 10000000) AS b(y)";
    let (status, cut) = lines(&served, &json!({ "sql": slow, "timeout_ms": 2000 })).await;
    assert_eq!(status, 200);
    assert!(cut.is_err(), "an answer that met the time limit looks whole: {cut:?}");
}

#[tokio::test]
async fn a_client_that_named_its_request_learns_why_the_answer_broke_off() {
    let served = Fixture::empty().await.serve().await;
    let late = "SELECT 1 / (value - 900000) AS x FROM generate_series(1, 1000000)";
    let post = served.post_sql(&json!({ "sql": late })).header("accept", "text/csv").header("x-request-id", "mine");
    let broken = match post.send().await {
        Ok(reply) => reply.text().await.is_err(),
        Err(_) => true,
    };
    assert!(broken, "an answer that failed looks whole");
    let (status, problem) = served.get("/api/v1/queries/mine").await;
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert_eq!((status, &problem["detail"]), (422, &json!("division by zero")), "{problem}");
    assert_eq!(served.get("/api/v1/queries/other").await.0, 404);
}

#[tokio::test]
async fn a_client_that_named_its_request_learns_that_the_answer_was_cut() {
    let served = Fixture::empty().await.serve().await;
    let ask = async |limit: usize, id: &str, form: &str| {
        let body = json!({ "sql": "SELECT value FROM generate_series(1, 30000)", "limit": limit });
        let reply = served.post_sql(&body).header("accept", form).header("x-request-id", id).send().await.unwrap();
        reply.bytes().await.unwrap();
        served.get(&format!("/api/v1/queries/{id}")).await
    };
    for form in ["text/csv", "application/x-ndjson", "application/vnd.apache.parquet"] {
        let (status, cut) = ask(20_000, &format!("cut {form}").replace(['/', ' '], "-"), form).await;
        assert_eq!((status, cut.as_str()), (200, r#"{"row_count":20000,"truncated":true}"#), "{form}");
        let (status, _) = ask(30_000, &format!("whole {form}").replace(['/', ' '], "-"), form).await;
        assert_eq!(status, 404, "{form}: nothing was left out");
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_gives_its_turn_back_when_its_time_is_over() {
    let limits = Limits { concurrent: 1, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let wide = "SELECT repeat(cast(value as varchar), 1000) FROM generate_series(1, 200000)";
    let stalled = served.post_sql(&json!({ "sql": wide, "timeout_ms": 1_000 })).header("accept", "text/csv");
    // The head of the answer is read, and its rows never are.
    let stalled = stalled.send().await.unwrap();
    let (status, body) = served.ask(&json!({ "sql": "SELECT 1", "timeout_ms": 20_000 })).await;
    assert_eq!((status, &body["rows"]), (200, &json!([[1]])), "{body}");
    assert!(stalled.text().await.is_err());
}

#[tokio::test]
async fn an_asker_is_not_kept_waiting_by_a_poll_that_does_not_end() {
    let served = Fixture::empty().await.serve().await;
    // Each batch takes about a second, without a place to stop in.
    let sql = "SELECT sum(levenshtein(repeat('ab', value % 150 + 1), repeat('ba', value % 150 + 1))) \
               FROM generate_series(1, 10000000)";
    let started = std::time::Instant::now();
    let (status, problem) = served.ask(&json!({ "sql": sql, "timeout_ms": 700 })).await;
    assert_eq!((status, &problem["type"]), (504, &json!("urn:causeway:problem:time-limit")), "{problem}");
    assert!(started.elapsed() < Duration::from_millis(3_000), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_json_document_longer_than_the_memory_of_a_query_is_refused() {
    let limits = Limits { memory_bytes: 32 << 20, rows: 1_000_000, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let sql = "SELECT repeat(cast(value as varchar), 20) FROM generate_series(1, 400000)";
    let (status, problem) = served.ask(&json!({ "sql": sql, "limit": 400_000 })).await;
    assert_eq!((status, &problem["type"]), (507, &json!("urn:causeway:problem:memory-limit")), "{problem}");
    let (status, streamed) = lines(&served, &json!({ "sql": sql })).await;
    assert_eq!((status, streamed.unwrap()), (200, 400_001), "what is streamed needs no memory for all of it");
}
