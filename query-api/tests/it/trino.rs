//! The Trino client protocol, spoken by hand: the rules every client relies on.

use query_engine::Limits;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Served};

impl Served {
    async fn post_statement(&self, sql: &str) -> Value {
        let reply = self.client.post(format!("{}/v1/statement", self.base)).body(sql.to_owned()).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 200);
        reply.json().await.unwrap()
    }

    async fn follow(&self, page: &Value) -> (u16, String) {
        let reply = self.client.get(page["nextUri"].as_str().unwrap()).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    /// All pages of a statement, the POST's first.
    async fn pages(&self, sql: &str) -> Vec<Value> {
        let mut pages = vec![self.post_statement(sql).await];
        while !pages[pages.len() - 1]["nextUri"].is_null() {
            let (status, text) = self.follow(&pages[pages.len() - 1]).await;
            assert_eq!(status, 200, "{text}");
            pages.push(serde_json::from_str(&text).unwrap());
        }
        pages
    }
}

fn rows(pages: &[Value]) -> Vec<Value> {
    pages.iter().filter_map(|page| page["data"].as_array()).flatten().cloned().collect()
}

#[tokio::test]
async fn a_select_gives_columns_with_signatures_and_rows() {
    let served = Fixture::with_events().await.serve().await;
    let pages = served.pages("SELECT node, count(*) AS n, avg(duration)/1000 AS us, max(ts) AS last FROM events GROUP BY node ORDER BY node").await;
    assert!(pages[0]["columns"].is_null() && pages[0]["data"].is_null(), "the POST carries nothing: {}", pages[0]);
    for page in &pages {
        for key in ["id", "infoUri", "stats"] {
            assert!(!page[key].is_null(), "{key} is in every page: {page}");
        }
        assert!(page["updateType"].is_null(), "a query is no update: {page}");
    }
    let columns = &pages[pages.len() - 1]["columns"];
    let varchar = json!({ "rawType": "varchar", "arguments": [{ "kind": "LONG", "value": 2_147_483_647 }] });
    assert_eq!(columns[0], json!({ "name": "node", "type": "varchar", "typeSignature": varchar }));
    let zoned = json!({ "rawType": "timestamp with time zone", "arguments": [{ "kind": "LONG", "value": 6 }] });
    assert_eq!((&columns[3]["type"], &columns[3]["typeSignature"]), (&json!("timestamp(6) with time zone"), &zoned));
    assert_eq!(rows(&pages)[2], json!(["gpu-node-03", 1, 40.0, "2026-03-01 00:00:00.000000 UTC"]));
    assert_eq!(rows(&pages).len(), 3);
}

#[tokio::test]
async fn an_empty_result_still_has_columns_and_no_data() {
    let served = Fixture::empty().await.serve().await;
    let pages = served.pages("SELECT node FROM events").await;
    assert_eq!(pages[pages.len() - 1]["columns"][0]["name"], "node");
    assert!(pages.iter().all(|page| page["data"].is_null()));
}

#[tokio::test]
async fn the_last_page_is_given_again_and_older_and_later_ones_are_gone() {
    let served = Fixture::with_events().await.serve().await;
    let first = served.post_statement("SELECT node FROM events").await;
    let (_, once) = served.follow(&first).await;
    let (status, again) = served.follow(&first).await;
    assert_eq!((status, &again), (200, &once));
    let second: Value = serde_json::from_str(&once).unwrap();
    let (_, page) = served.follow(&second).await;
    assert_eq!(served.follow(&second).await, (200, page));
    assert_eq!(served.follow(&first).await.0, 410);
    let (path, _) = second["nextUri"].as_str().unwrap().rsplit_once('/').unwrap();
    let later = json!({ "nextUri": format!("{path}/7") });
    assert_eq!(served.follow(&later).await.0, 410);
    let slug = second["nextUri"].as_str().unwrap().split('/').rev().nth(1).unwrap();
    let forged = json!({ "nextUri": second["nextUri"].as_str().unwrap().replace(slug, "forged") });
    assert_eq!(served.follow(&forged).await.0, 404);
}

#[tokio::test]
async fn a_failed_query_is_a_page_with_an_error() {
    let served = Fixture::with_events().await.serve().await;
    let last = served.pages("SELECT durration FROM events").await.pop().unwrap();
    assert_eq!(last["error"]["message"], "line 1:8: Column 'durration' cannot be resolved");
    assert_eq!(
        (&last["error"]["errorName"], &last["error"]["errorType"]),
        (&json!("COLUMN_NOT_FOUND"), &json!("USER_ERROR"))
    );
    assert_eq!(last["error"]["errorLocation"], json!({ "lineNumber": 1, "columnNumber": 8 }));
    let last = served.pages("DROP TABLE silver.events").await.pop().unwrap();
    assert_eq!(last["error"]["errorName"], "NOT_SUPPORTED");
    let empty = served.client.post(format!("{}/v1/statement", served.base)).body(" ").send().await.unwrap();
    assert_eq!(empty.status().as_u16(), 400);
}

#[tokio::test]
async fn a_large_result_comes_in_several_pages() {
    let served = Fixture::empty().await.serve().await;
    let pages = served.pages("SELECT value, repeat('x', 100) FROM generate_series(1, 30000)").await;
    let full = pages.iter().filter(|page| !page["data"].is_null()).count();
    assert!(full >= 3, "{full} pages");
    let rows = rows(&pages);
    assert_eq!((rows.len(), &rows[29_999][0]), (30_000, &json!(30_000)));
}

#[tokio::test]
async fn a_cancelled_query_is_forgotten_and_gives_its_turn_back() {
    let limits = Limits { concurrent: 1, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let endless = "SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y) WHERE (a.x * 7 + b.y) % 1000003 = 5";
    let first = served.post_statement(endless).await;
    let (_, text) = served.follow(&first).await;
    let running: Value = serde_json::from_str(&text).unwrap();
    let (_, text) = served.follow(&running).await;
    let waiting: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(waiting["stats"]["state"], "RUNNING");
    let cancelled = served.client.delete(waiting["nextUri"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(cancelled.status().as_u16(), 204);
    assert_eq!(served.follow(&waiting).await.0, 404);
    assert_eq!(served.rows("SELECT 1").await, json!([[1]]));
    let gone = served
        .client
        .delete(format!("{}/v1/query/{}", served.base, "20260101_000000_00001_abcde"))
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status().as_u16(), 204);
}

#[tokio::test]
async fn a_cancelled_query_is_counted_as_such() {
    let served = Fixture::empty().await.serve().await;
    // A hundred pages: it has not ended when it is cancelled, since one alone is made ahead of the client.
    let first = served.post_statement("SELECT repeat('x', 1000) FROM generate_series(1, 100000)").await;
    let (_, text) = served.follow(&first).await;
    let running: Value = serde_json::from_str(&text).unwrap();
    let cancelled = served.client.delete(running["nextUri"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(cancelled.status().as_u16(), 204);
    // Its task ends after the reply.
    for _ in 0..300 {
        if served.get("/metrics").await.1.contains("causeway_query_queries_total{outcome=\"Cancelled\"} 1") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{}", served.get("/metrics").await.1);
}

#[tokio::test]
async fn names_without_a_schema_are_looked_up_in_the_one_of_the_session() {
    let served = Fixture::with_events().await.serve().await;
    let post = served.client.post(format!("{}/v1/statement", served.base)).header("X-Trino-Schema", "silver");
    let mut page: Value =
        post.body("SELECT max(duration_ns) AS most FROM events").send().await.unwrap().json().await.unwrap();
    let mut found = Vec::new();
    while !page["nextUri"].is_null() {
        page = serde_json::from_str(&served.follow(&page).await.1).unwrap();
        found.extend(page["data"].as_array().into_iter().flatten().cloned());
    }
    assert_eq!(found, [json!([2_000_000])], "{page}");
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let served = Fixture::empty().await.serve().await;
    let info = served.get_json("/v1/info").await;
    assert_eq!((&info["coordinator"], &info["starting"]), (&json!(true), &json!(false)));
    assert_eq!(served.get("/v1/info/state").await, (200, "\"ACTIVE\"".to_owned()));
}

#[tokio::test]
async fn queries_that_ended_make_room_for_new_ones_and_give_their_last_page_again() {
    let served = Fixture::empty().await.serve().await;
    let mut last = Value::Null;
    for n in 0..1_050 {
        let mut page = served.post_statement("SELECT 1").await;
        while !page["nextUri"].is_null() {
            last = page.clone();
            let (status, text) = served.follow(&page).await;
            assert_eq!(status, 200, "statement {n}: {text}");
            page = serde_json::from_str(&text).unwrap();
        }
        assert_eq!(page["stats"]["state"], "FINISHED");
    }
    let again: Value = serde_json::from_str(&served.follow(&last).await.1).unwrap();
    assert_eq!(again["stats"]["state"], "FINISHED", "the last page is given again: {again}");
}

#[tokio::test]
async fn a_result_has_every_row_however_many_the_server_puts_into_a_document() {
    let limits = Limits { rows: 10, ..Limits::default() };
    let served = Fixture::empty().await.serve_with(limits).await;
    let pages = served.pages("SELECT value FROM generate_series(1, 5000)").await;
    assert_eq!(rows(&pages).len(), 5_000);
}
