//! What clients send beside their statements: headers of a session, types of bodies, names of hosts, paths that are wrong.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Served};

/// Runs for minutes if it is left alone.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) AS a(x), generate_series(1, 1000000) AS b(y) \
                       WHERE (a.x * 7 + b.y) % 1000003 = 5";

impl Served {
    /// The last page of a Trino statement with headers of its session, with the rows of all pages as `data`.
    async fn in_session(&self, headers: &[(&str, &str)], sql: &str) -> Value {
        let mut post = self.client.post(format!("{}/v1/statement", self.base)).body(sql.to_owned());
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        let mut page: Value = post.send().await.unwrap().json().await.unwrap();
        let mut rows = Vec::new();
        while let Some(next) = page["nextUri"].as_str() {
            page = self.client.get(next).send().await.unwrap().json().await.unwrap();
            rows.extend(page["data"].as_array().into_iter().flatten().cloned());
        }
        page["data"] = json!(rows);
        page
    }

    async fn problem(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let reply = request.send().await.unwrap();
        let (status, kind) = (reply.status().as_u16(), reply.headers()[CONTENT_TYPE].to_str().unwrap().to_owned());
        let text = reply.text().await.unwrap();
        assert_eq!(kind, "application/problem+json", "{status}: {text}");
        (status, serde_json::from_str(&text).unwrap())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

#[tokio::test]
async fn times_without_a_zone_are_in_the_zone_of_the_session() {
    // All six events lie within a second after 2026-03-01T00:00:00Z.
    let served = Fixture::with_events().await.serve().await;
    let count = async |zone: &str, condition: &str| {
        let sql = format!("SELECT count(*) FROM events WHERE {condition}");
        let page = served.in_session(&[("X-Trino-Time-Zone", zone)], &sql).await;
        page["data"][0][0].as_i64().unwrap_or_else(|| panic!("{zone}: {condition}: {page}"))
    };
    for (condition, in_utc, in_new_york, in_tokyo) in [
        ("ts < TIMESTAMP '2026-02-28 20:00:00'", 0, 6, 0),
        ("ts < '2026-02-28 20:00:00'", 0, 6, 0),
        ("ts >= DATE '2026-03-01'", 6, 0, 6),
        ("ts BETWEEN TIMESTAMP '2026-03-01 08:59:00' AND TIMESTAMP '2026-03-01 09:01:00'", 0, 0, 6),
        ("ts < CAST('2026-02-28 20:00:00' AS TIMESTAMP WITH TIME ZONE)", 0, 6, 0),
        ("ts IN (SELECT ts FROM events WHERE ts < TIMESTAMP '2026-02-28 20:00:00')", 0, 6, 0),
        ("ts < TIMESTAMP '2026-02-28 20:00:00+00:00'", 0, 0, 0),
        ("ts < TIMESTAMP '2026-02-28 20:00:00.0000005+00:00'", 0, 0, 0),
        ("ts >= '2026-03-01T00:00:00Z'", 6, 6, 6),
        ("ts < DATE '9999-12-31'", 6, 6, 6),
    ] {
        assert_eq!(count("UTC", condition).await, in_utc, "UTC: {condition}");
        assert_eq!(count("America/New_York", condition).await, in_new_york, "New York: {condition}");
        assert_eq!(count("Asia/Tokyo", condition).await, in_tokyo, "Tokyo: {condition}");
        assert_eq!(count("+09:00", condition).await, in_tokyo, "an offset: {condition}");
        assert_eq!(count("GMT+09:00", condition).await, in_tokyo, "an offset as Java writes it: {condition}");
    }
    let zone = [("X-Trino-Session", "time_zone_id=America%2FNew_York")];
    let page = served.in_session(&zone, "SELECT current_timestamp, now(), max(ts) FROM events").await;
    let row = &page["data"][0];
    assert!(row[0].as_str().unwrap().ends_with(" America/New_York"), "{page}");
    assert_eq!(row[0], row[1]);
    assert!(row[2].as_str().unwrap().ends_with(" UTC"), "a time of the lake keeps its zone: {page}");
    let unset = served.in_session(&[], "SELECT current_timestamp").await;
    assert!(unset["data"][0][0].as_str().unwrap().ends_with(" UTC"), "{unset}");
}

#[tokio::test]
async fn a_local_time_that_comes_twice_in_the_zone_of_the_session_is_the_earlier_one() {
    let served = Fixture::with_events().await.serve().await;
    // All six events, moved into the second after 2026-10-25T00:30:00Z, when it is 02:30 in Berlin for the first time.
    let moved = "ts + INTERVAL '238 days 30 minutes'";
    let second = "concat('0', left(right(node, 2), 1))";
    let ask = async |zone: &str, condition: &str| {
        let sql = format!("SELECT count(*) FROM events WHERE {condition}");
        served.in_session(&[("X-Trino-Time-Zone", zone)], &sql).await
    };
    for (zone, condition) in [
        ("Europe/Berlin", format!("{moved} BETWEEN '2026-10-25 02:30:00' AND '2026-10-25 02:31:00'")),
        ("Europe/Berlin", format!("{moved} < TIMESTAMP '2026-10-25 02:31:00'")),
        ("Europe/Berlin", format!("{moved} < CAST('2026-10-25 02:31:00' AS TIMESTAMP WITH TIME ZONE)")),
        (
            "Europe/Berlin",
            format!("{moved} >= CAST(concat('2026-10-25 02:30:', {second}) AS TIMESTAMP WITH TIME ZONE)"),
        ),
        ("UTC", format!("{moved} >= '2026-10-25 02:30:00 Europe/Berlin'")),
        // The clocks of Havana are set back from one o'clock to midnight.
        ("America/Havana", "ts + INTERVAL '245 days 4 hours' >= DATE '2026-11-01'".to_owned()),
        (
            "Europe/Berlin",
            format!("TRY_CAST(concat('2026-03-29 02:30:', {second}) AS TIMESTAMP WITH TIME ZONE) IS NULL"),
        ),
    ] {
        let page = ask(zone, &condition).await;
        assert_eq!(page["data"], json!([[6]]), "{zone}: {condition}: {page}");
    }
    // In every form in which the times of other hours are taken.
    for (text, time) in [
        ("2026-10-25 02:30:00.1234567891", "02:30:00.123456789"),
        ("2026-10-25T02:30:00.1234567891 Europe/Berlin", "02:30:00.123456789"),
        ("2026-10-25 023000", "02:30:00.000000000"),
    ] {
        let cast = format!("CAST('{text}' AS TIMESTAMP WITH TIME ZONE)");
        let sql = format!("SELECT t, t < TIMESTAMP '2026-10-25 01:00:00 UTC' FROM (SELECT {cast} AS t) AS v");
        let page = served.in_session(&[("X-Trino-Time-Zone", "Europe/Berlin")], &sql).await;
        assert_eq!(page["data"], json!([[format!("2026-10-25 {time} Europe/Berlin"), true]]), "{text}: {page}");
    }
    let skipped = ask("Europe/Berlin", "ts > '2026-03-29 02:30:00'").await;
    let message = skipped["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("the local time 2026-03-29 02:30:00 does not exist in Europe/Berlin"), "{skipped}");
}

#[tokio::test]
async fn a_date_that_the_times_of_the_session_do_not_hold_is_an_error_and_no_other_time() {
    let served = Fixture::with_events().await.serve().await;
    let berlin = [("X-Trino-Time-Zone", "Europe/Berlin")];
    // Nanoseconds end in 2262, and microseconds before the year 300000.
    for (sql, date) in [
        ("SELECT CAST(DATE '9999-12-31' AS TIMESTAMP WITH TIME ZONE)", 2_932_896),
        ("SELECT CAST(d AS TIMESTAMP WITH TIME ZONE) FROM (VALUES (DATE '9999-12-31')) AS v(d)", 2_932_896),
        ("SELECT count(*) FROM events WHERE ts < CAST(DATE '9999-12-31' AS TIMESTAMP WITH TIME ZONE)", 2_932_896),
        ("SELECT CAST(CAST(n AS DATE) AS TIMESTAMP(6) WITH TIME ZONE) FROM (VALUES (200000000)) AS v(n)", 200_000_000),
    ] {
        let page = served.in_session(&berlin, sql).await;
        let message = page["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("Cannot cast date value {date} to timestamp")), "{sql}: {page}");
    }
    for (precision, fraction) in [(0, ""), (3, ".000"), (6, ".000000")] {
        let sql = format!(
            "SELECT CAST(d AS TIMESTAMP({precision}) WITH TIME ZONE) FROM (VALUES (DATE '9999-12-31')) AS v(d)"
        );
        let page = served.in_session(&berlin, &sql).await;
        assert_eq!(page["data"], json!([[format!("9999-12-31 00:00:00{fraction} Europe/Berlin")]]), "{sql}: {page}");
    }
    let tried = "SELECT TRY_CAST(d AS TIMESTAMP WITH TIME ZONE) AS t \
                 FROM (VALUES (DATE '9999-12-31'), (DATE '2026-10-25')) AS v(d) ORDER BY d";
    let page = served.in_session(&berlin, tried).await;
    assert_eq!(page["data"], json!([["2026-10-25 00:00:00.000000000 Europe/Berlin"], [null]]), "{page}");
}

#[tokio::test]
async fn keys_of_grouping_sets_are_compared_with_times_in_every_zone() {
    let served = Fixture::with_events().await.serve().await;
    let keys = ["ts > '2026-10-25 02:30:00'", "ts > TIMESTAMP '2026-10-25 02:30:00'", "ts > DATE '2026-10-25'"];
    let sets = ["ROLLUP (K)", "CUBE (K)", "GROUPING SETS ((K), ())"];
    for key in keys {
        let statements = sets.map(|sets| {
            let sets = sets.replace('K', key);
            format!("SELECT {key} AS k, count(*) AS n FROM events GROUP BY {sets} ORDER BY k")
        });
        for (zone, sql) in
            ["UTC", "Europe/Berlin"].iter().flat_map(|zone| statements.iter().map(move |sql| (zone, sql)))
        {
            let page = served.in_session(&[("X-Trino-Time-Zone", *zone)], sql).await;
            assert_eq!(page["data"], json!([[false, 6], [null, 6]]), "{zone}: {sql}: {page}");
        }
    }
}

#[tokio::test]
async fn another_catalog_is_not_found_and_names_are_folded() {
    let served = Fixture::with_events().await.serve().await;
    let count = "SELECT count(*) FROM events";
    for (headers, sql) in [
        (vec![("X-Trino-Catalog", "hive")], count),
        (vec![("X-Trino-Catalog", "hive"), ("X-Trino-Schema", "silver")], count),
        (vec![("X-Trino-Catalog", "system")], "SELECT count(*) FROM runtime.nodes"),
        (vec![], "SELECT count(*) FROM hive.public.events"),
        (vec![], "SHOW TABLES FROM hive.silver"),
        (vec![("X-Trino-Catalog", "hive")], "SHOW SCHEMAS"),
        (vec![("X-Trino-Catalog", "hive")], "SHOW TABLES"),
        (vec![("X-Trino-Catalog", "causeway")], "SELECT 1 FROM causeway.public.events, tpch.tiny.nation"),
    ] {
        let page = served.in_session(&headers, sql).await;
        assert_eq!(page["error"]["errorName"], "CATALOG_NOT_FOUND", "{headers:?} {sql}: {page}");
        assert!(page["error"]["message"].as_str().unwrap().contains("Catalog '"), "{page}");
    }
    for (headers, sql, rows) in [
        (vec![("X-Trino-Catalog", "CAUSEWAY"), ("X-Trino-Schema", "PUBLIC")], count, json!([[6]])),
        (vec![("X-Trino-Schema", "Silver")], "SELECT max(duration_ns) FROM events", json!([[2_000_000]])),
        (vec![("X-Trino-Catalog", "hive")], "SELECT 1", json!([[1]])),
        (vec![("X-Trino-Catalog", "hive")], "SELECT count(*) FROM causeway.public.events", json!([[6]])),
        (vec![("X-Trino-Catalog", "hive")], "WITH t AS (SELECT 2 AS a) SELECT a FROM t", json!([[2]])),
    ] {
        let page = served.in_session(&headers, sql).await;
        assert_eq!(page["data"], rows, "{headers:?} {sql}: {page}");
    }
}

#[tokio::test]
async fn a_statement_runs_no_longer_than_its_session_lets_it() {
    let served = Fixture::empty().await.serve().await;
    for properties in [
        "query_max_run_time=1s",
        "query_max_execution_time=0.01m",
        "query_max_run_time=5m,query_max_execution_time=900ms",
    ] {
        let started = Instant::now();
        let page = served.in_session(&[("X-Trino-Session", properties)], ENDLESS).await;
        assert_eq!(page["error"]["errorName"], "EXCEEDED_TIME_LIMIT", "{properties}: {page}");
        assert!(started.elapsed() < Duration::from_secs(20), "{properties}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_session_that_is_malformed_or_asks_for_what_there_is_not_is_refused() {
    let served = Fixture::empty().await.serve().await;
    let post = |name: &'static str, value: &'static [u8]| {
        let value = reqwest::header::HeaderValue::from_bytes(value).unwrap();
        served.client.post(served.at("/v1/statement")).body("SELECT 1").header(name, value).send()
    };
    for (name, value) in [
        ("X-Trino-Session", &b"query_max_run_time"[..]),
        ("X-Trino-Session", b"a=1,b"),
        ("X-Trino-Session", b"time_zone_id=%C3"),
        ("X-Trino-Schema", b"sch\xe9ma"),
        ("X-Trino-Catalog", b"\xff"),
    ] {
        let reply = post(name, value).await.unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        assert!(status == 400 && text.to_lowercase().contains(&name.to_lowercase()), "{name}: {status} {text}");
    }
    for headers in [
        [("X-Trino-Session", "join_reordering_strategy=NONE")],
        [("X-Trino-Session", "query_max_run_time=soon")],
        [("X-Trino-Time-Zone", "Nowhere/Land")],
        [("X-Trino-Session", "time_zone_id=GMT%2Ba%C3%A9a")],
    ] {
        let page = served.in_session(&headers, "SELECT 1").await;
        assert_eq!(page["error"]["errorName"], "INVALID_SESSION_PROPERTY", "{headers:?}: {page}");
    }
}

#[tokio::test]
async fn a_client_that_posts_and_follows_nothing_locks_nobody_out() {
    let served = Fixture::empty().await.serve().await;
    let post = |user: &'static str| {
        served.client.post(served.at("/v1/statement")).header("X-Trino-User", user).body("SELECT 1").send()
    };
    for _ in 0..1_010 {
        assert_eq!(post("flood").await.unwrap().status(), 200);
    }
    for user in ["flood", "other"] {
        let page = served.in_session(&[("X-Trino-User", user)], "SELECT 1").await;
        assert_eq!(page["data"], json!([[1]]), "{user}");
    }
}

#[tokio::test]
async fn a_client_that_follows_a_flood_of_statements_under_many_names_locks_nobody_out() {
    let served = Fixture::empty().await.serve().await;
    let flood = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    for nth in 0..1_000 {
        let post = flood.post(served.at("/v1/statement")).header("X-Trino-User", format!("name{}", nth % 4));
        let page: Value = post.body("SELECT 1").send().await.unwrap().json().await.unwrap();
        assert_eq!(flood.get(page["nextUri"].as_str().unwrap()).send().await.unwrap().status(), 200);
    }
    let page = served.in_session(&[("X-Trino-User", "other")], "SELECT 1").await;
    assert_eq!(page["data"], json!([[1]]), "{page}");
}

#[tokio::test]
async fn addresses_lead_back_the_way_the_client_came() {
    let served = Fixture::empty().await.serve().await;
    let first = async |headers: &[(&'static str, &'static str)]| -> Value {
        let mut post = served.client.post(served.at("/v1/statement")).body("SELECT 1");
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        post.send().await.unwrap().json().await.unwrap()
    };
    let page = first(&[("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "cw.example.org")]).await;
    for key in ["nextUri", "infoUri"] {
        assert!(page[key].as_str().unwrap().starts_with("https://cw.example.org/"), "{key}: {page}");
    }
    let page = first(&[("X-Forwarded-Proto", "https")]).await;
    let secure = served.base.replace("http://", "https://");
    assert!(page["nextUri"].as_str().unwrap().starts_with(&secure), "{page}");
    let page = first(&[("X-Forwarded-Proto", "ftp"), ("X-Forwarded-Host", "a b")]).await;
    assert!(page["nextUri"].as_str().unwrap().starts_with(&served.base), "{page}");
    let reply = served.client.get(page["infoUri"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.headers()[CONTENT_TYPE].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    assert!(reply.text().await.unwrap().contains("waits for its client"));
    for id in ["20260101_000000_00001_abcde", "%3Cscript%3E", ""] {
        let (status, _) = served.problem(served.client.get(served.at(&format!("/ui/query.html?{id}")))).await;
        assert_eq!(status, 404, "{id}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_this_machines_is_refused_on_loopback() {
    let served = Fixture::empty().await.serve().await;
    let port = served.base.rsplit(':').next().unwrap().to_owned();
    for path in ["/api/v1/nodes", "/v1/info", "/metrics", "/healthz", "/", "/nosuch"] {
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.nip.io", "10.0.0.1"] {
            let request = served.client.get(served.at(path)).header(HOST, host);
            let (status, problem) = served.problem(request).await;
            assert_eq!((status, &problem["type"]), (403, &json!("urn:causeway:problem:other-host")), "{path} {host}");
        }
    }
    for host in [format!("localhost:{port}"), "LOCALHOST".to_owned(), format!("[::1]:{port}"), "127.0.0.2".to_owned()] {
        let reply = served.client.get(served.at("/api/v1/nodes")).header(HOST, &host).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 200, "{host}");
    }
}

#[tokio::test]
async fn a_statement_is_taken_as_text_as_a_form_as_json_and_from_the_url() {
    let served = Fixture::with_events().await.serve().await;
    let rows = async |request: reqwest::RequestBuilder| -> Value {
        let reply = request.send().await.unwrap();
        let status = reply.status().as_u16();
        let body: Value = reply.json().await.unwrap();
        assert_eq!(status, 200, "{body}");
        body["rows"].clone()
    };
    let post = |url: &str| served.client.post(served.at(url));
    let count = "SELECT count(*) FROM events";
    let form = "application/x-www-form-urlencoded";
    assert_eq!(rows(post("/api/v1/sql").body(count)).await, json!([[6]]), "no content type");
    assert_eq!(rows(post("/api/v1/sql").header(CONTENT_TYPE, form).body(count)).await, json!([[6]]), "curl -d");
    assert_eq!(
        rows(post("/api/v1/sql?nodes=gpu-node-01,gpu-node-02").header(CONTENT_TYPE, "text/plain").body(count)).await,
        json!([[5]])
    );
    let json_by_curl = post("/api/v1/sql").header(CONTENT_TYPE, form).body(format!("{{\"sql\":\"{count}\"}}"));
    assert_eq!(rows(json_by_curl).await, json!([[6]]));
    let get = served
        .client
        .get(served.at("/api/v1/sql"))
        .query(&[("sql", "SELECT node FROM events ORDER BY node"), ("limit", "1")]);
    assert_eq!(rows(get).await, json!([["gpu-node-01"]]));
    let csv = served
        .client
        .get(served.at("/api/v1/sql?sql=SELECT+1+AS+a"))
        .header(ACCEPT, "application/json;q=0.1, text/csv");
    assert_eq!(csv.send().await.unwrap().text().await.unwrap(), "a\r\n1\r\n");
}

#[tokio::test]
async fn whatever_the_path_the_method_or_the_body_is_wrong_the_answer_is_a_problem_document() {
    let served = Fixture::empty().await.serve().await;
    let get = |path: &str| served.client.get(served.at(path));
    for (path, status) in [
        ("/api/v1/nodes/%ff", 400),
        ("/api/v1/tables/%c3%28", 400),
        ("/api/v1/queries/%fe", 400),
        ("/api/v1/nodes/nope", 404),
        ("/api/v1/ops", 404),
        ("/api/v1", 404),
        ("/v1/query", 404),
        ("/v1/nosuch/deeper", 404),
        ("/nope", 404),
        ("/api/v1/sql", 400),
        ("/api/v1/chains?nosuch=1", 400),
        ("/api/v1/chains?since=99999999999999d", 400),
        ("/v1/statement", 405),
    ] {
        let (found, problem) = served.problem(get(path)).await;
        assert_eq!(found, status, "{path}: {problem}");
        assert_eq!(problem["status"], status, "{path}: {problem}");
    }
    for path in ["/api/v1/ops", "/v1/nosuch/deeper", "/nope"] {
        let (_, problem) = served.problem(get(path)).await;
        assert_eq!(problem["detail"], format!("there is no GET {path}"));
    }
    for path in ["/api/v1/nodes", "/healthz", "/metrics", "/", "/v1/info"] {
        let reply = served.client.delete(served.at(path)).send().await.unwrap();
        assert_eq!(reply.headers().get(ALLOW).unwrap(), "GET,HEAD", "{path}");
        let (status, problem) = served.problem(served.client.delete(served.at(path))).await;
        assert_eq!(
            (status, problem["detail"].as_str().unwrap()),
            (405, format!("{path} does not take DELETE").as_str())
        );
    }
    let post = || served.client.post(served.at("/api/v1/sql"));
    let (status, problem) = served.problem(post().header(CONTENT_TYPE, "image/png").body("SELECT 1")).await;
    assert_eq!((status, &problem["type"]), (415, &json!("urn:causeway:problem:unsupported-media-type")));
    let (status, problem) = served.problem(post().body(format!("SELECT '{}'", "x".repeat(1 << 20)))).await;
    assert_eq!((status, &problem["type"]), (413, &json!("urn:causeway:problem:body-too-large")));
}

#[tokio::test]
async fn the_first_page_lists_routes_that_are_there() {
    let served = Fixture::with_events().await.serve().await;
    let (status, list) = served.get("/").await;
    assert_eq!(status, 200);
    let mut gets = 0;
    for line in list.lines().filter(|line| line.starts_with("GET")) {
        let path =
            line.split_whitespace().nth(1).unwrap().replace("{node}", "gpu-node-01").replace("{name}", "silver.events");
        if path.contains('{') || path.contains("ID") {
            continue;
        }
        let (status, body) = served.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        gets += 1;
    }
    assert!(gets >= 12, "{list}");
    let html = served.client.get(served.at("/")).header(ACCEPT, "text/html,*/*;q=0.8").send().await.unwrap();
    assert!(html.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    assert!(html.text().await.unwrap().contains("<a href=\"/api/v1/nodes\">"));
}

#[tokio::test]
async fn completeness_is_said_however_far_back_the_question_reaches_or_the_question_is_refused() {
    let served = Fixture::with_events().await.serve().await;
    let ask = async |since: &str| served.ask(&json!({ "sql": "SELECT count(*) FROM events", "since": since })).await;
    for since in ["700000d", "0001-01-01T00:00:00Z", "1677-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] {
        let (status, body) = ask(since).await;
        assert_eq!((status, &body["rows"]), (200, &json!([[6]])), "{since}: {body}");
        assert_eq!(body["completeness"]["nodes_expected"], 3, "{since}: {body}");
    }
    for since in ["99999999999999d", "1000000d", "-0001-01-01T00:00:00Z"] {
        let (status, problem) = ask(since).await;
        assert_eq!((status, &problem["type"]), (400, &json!("urn:causeway:problem:bad-request")), "{since}: {problem}");
    }
}

#[tokio::test]
async fn columns_of_one_name_are_all_there_where_values_go_by_name() {
    let served = Fixture::with_events().await.serve().await;
    let sql = "SELECT a.node, b.node, a.op FROM events a JOIN events b USING (id) WHERE a.node = 'gpu-node-03'";
    let reply = served.post_sql(&json!({ "sql": sql })).header(ACCEPT, "application/x-ndjson").send().await.unwrap();
    let text = reply.text().await.unwrap();
    assert_eq!(text, "{\"node\":\"gpu-node-03\",\"node_1\":\"gpu-node-03\",\"op\":3}\n");
}
