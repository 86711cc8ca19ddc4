//! `/openapi.json` against the routes that exist, and against what they really answer.

use std::collections::BTreeSet;

use answers::chains::Chains;
use answers::completeness::Completeness;
use answers::nodes::{Node, Nodes};
use answers::stragglers::Stragglers;
use answers::tables::{TableDescription, Tables};
use boon::{Compiler, Draft, Schemas};
use event_schema::batch::{Event, ProcessInfo};
use query_api::wire::{Cell, CutAnswer, Problem, SqlAnswer};
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::chains::with_chains;
use crate::fixture::{Fixture, Served, event};

/// The document as the server gives it.
async fn document(served: &Served) -> Value {
    served.get_json("/openapi.json").await
}

/// Method and path of everything that the document describes.
fn described(document: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = ["get", "post", "delete"].into_iter().filter(|method| item.get(method).is_some());
        found.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
    }
    found
}

/// The schema of a JSON answer: of a status, else of every other one.
fn schema(document: &Value, (method, path): (&str, &str), status: u16) -> Value {
    let responses = &document["paths"][path][method.to_lowercase()]["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let content = response["content"].as_object().unwrap_or_else(|| panic!("{method} {path} {status}: {responses}"));
    let json = content.iter().find(|(media, _)| media.ends_with("json") && !media.ends_with("ndjson"));
    json.unwrap_or_else(|| panic!("{method} {path} {status}: no JSON in {response}")).1["schema"].clone()
}

/// The address that a schema has while it is compiled.
const ADDRESS: &str = "http://causeway.test/schema.json";

/// What of an answer does not fit its schema; `None` when all of it does.
fn misfit(document: &Value, schema: &Value, answer: &Value) -> Option<String> {
    // The schemas refer to one another from the root of the document.
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    compiler.add_resource(ADDRESS, whole).unwrap();
    let mut schemas = Schemas::new();
    let compiled = compiler.compile(ADDRESS, &mut schemas).unwrap();
    schemas.validate(answer, compiled).err().map(|error| error.to_string())
}

/// Whether a type that clients read has all of an answer, and nothing else.
fn is_whole<T: DeserializeOwned + Serialize>(answer: &Value) -> bool {
    let read: T = serde_json::from_value(answer.clone()).unwrap_or_else(|error| panic!("{error}: {answer}"));
    serde_json::to_value(&read).unwrap() == *answer
}

/// A real answer to a `GET`, which must fit its schema and the type that clients read it by.
async fn check<T: DeserializeOwned + Serialize>(served: &Served, document: &Value, route: &str, path: &str) -> Value {
    let answer = served.get_json(path).await;
    let wrong = misfit(document, &schema(document, ("GET", route), 200), &answer);
    assert!(wrong.is_none(), "{path}: {wrong:?}: {answer}");
    assert!(is_whole::<T>(&answer), "{path}: {answer}");
    answer
}

/// Two ranks that iterate, too few to be judged.
async fn with_a_job() -> Fixture {
    let mut fixture = with_chains().await;
    for (rank, node) in [(0, "gpu-node-01"), (1, "gpu-node-02")] {
        let process =
            ProcessInfo { rank: Some(rank), world_size: Some(4), job_id: Some("train"), ..Default::default() };
        let events: Vec<_> = (0..50).map(|n| Event { process, ..event(1, 6, 900, n * 1_000) }).collect();
        fixture.land_events(node, &events).await;
    }
    fixture
}

#[tokio::test]
async fn every_answer_is_what_the_document_says() {
    let served = with_a_job().await.serve().await;
    let document = &document(&served).await;
    let chains = check::<Chains>(&served, document, "/api/v1/chains", "/api/v1/chains?since=12h").await;
    assert!(chains["chains"].as_array().is_some_and(|chains| chains.len() == 3), "{chains}");
    assert!(chains["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{chains}");
    check::<Chains>(&served, document, "/api/v1/chains", "/api/v1/chains?since=12h&compat=true").await;
    let empty = check::<Chains>(&served, document, "/api/v1/chains", "/api/v1/chains?since=1m&nodes=nosuch").await;
    assert!(empty["hints"].as_array().is_some_and(|hints| !hints.is_empty()), "{empty}");
    let ranked = check::<Stragglers>(&served, document, "/api/v1/stragglers", "/api/v1/stragglers?since=12h").await;
    assert!(ranked["jobs"][0]["ranking"].as_array().is_some_and(|ranking| !ranking.is_empty()), "{ranked}");
    check::<Nodes>(&served, document, "/api/v1/nodes", "/api/v1/nodes").await;
    check::<Node>(&served, document, "/api/v1/nodes/{node}", "/api/v1/nodes/gpu-node-01").await;
    check::<Tables>(&served, document, "/api/v1/tables", "/api/v1/tables").await;
    for table in ["silver.events", "events", "ops", "gold.stragglers", "gold.chains"] {
        let path = format!("/api/v1/tables/{table}");
        if served.get(&path).await.0 != 404 {
            check::<TableDescription>(&served, document, "/api/v1/tables/{name}", &path).await;
        }
    }
    check::<Completeness>(&served, document, "/api/v1/completeness", "/api/v1/completeness").await;
    check::<Value>(&served, document, "/v1/info", "/v1/info").await;
}

#[tokio::test]
async fn the_rows_of_a_statement_are_what_the_document_says() {
    let served = Fixture::with_events().await.serve().await;
    let document = &document(&served).await;
    let path = "/api/v1/sql?sql=SELECT+node,op,NULL,ts,1.5,[1,2],+TRUE+FROM+events+LIMIT+2";
    let answer = check::<SqlAnswer<Vec<Vec<Cell>>>>(&served, document, "/api/v1/sql", path).await;
    assert_eq!(answer["row_count"], 2);
    let odd = "SELECT 1 AS \"\"\"rows\"\":[\"";
    let (status, posted) = served.sql(odd).await;
    assert_eq!((status, &posted["columns"][0]["name"]), (200, &json!("\"rows\":[")), "{posted}");
    let wrong = misfit(document, &schema(document, ("POST", "/api/v1/sql"), 200), &posted);
    assert!(wrong.is_none() && is_whole::<SqlAnswer<Vec<Vec<Cell>>>>(&posted), "{wrong:?}: {posted}");
    let cut = served.post_sql(&json!({ "sql": "SELECT id FROM events", "limit": 2 }));
    let cut = cut.header(ACCEPT, "text/csv").header("x-request-id", "cut").send().await.unwrap();
    cut.bytes().await.unwrap();
    check::<CutAnswer>(&served, document, "/api/v1/queries/{id}", "/api/v1/queries/cut").await;
}

#[tokio::test]
async fn every_problem_is_what_the_document_says() {
    let served = Fixture::with_events().await.serve().await;
    let document = &document(&served).await;
    for (route, path) in [
        ("/api/v1/sql", "/api/v1/sql?sql=SELECT+nosuch+FROM+events"),
        ("/api/v1/sql", "/api/v1/sql?sql=DELETE+FROM+events"),
        ("/api/v1/chains", "/api/v1/chains?since=soon"),
        ("/api/v1/stragglers", "/api/v1/stragglers?compat=true"),
        ("/api/v1/nodes/{node}", "/api/v1/nodes/nosuch"),
        ("/api/v1/tables/{name}", "/api/v1/tables/no.such.table"),
        ("/api/v1/completeness", "/api/v1/completeness?from=1h&since=1h"),
        ("/api/v1/queries/{id}", "/api/v1/queries/nosuch"),
    ] {
        let (status, text) = served.get(path).await;
        let problem: Value = serde_json::from_str(&text).unwrap();
        let wrong = misfit(document, &schema(document, ("GET", route), status), &problem);
        assert!(status >= 400 && wrong.is_none() && is_whole::<Problem>(&problem), "{path}: {wrong:?}: {problem}");
    }
}

/// A path whose variable parts are filled in.
fn filled(path: &str) -> String {
    let path = path.replace("{node}", "gpu-node-01").replace("{name}", "events").replace("{token}", "1");
    path.replace("{id}", "nosuch").replace("{slug}", "nosuch")
}

#[tokio::test]
async fn the_document_describes_the_routes_that_exist_and_the_first_page_lists_them() {
    let served = Fixture::with_events().await.serve().await;
    let document = document(&served).await;
    let described = described(&document);
    for (method, path) in &described {
        let url = format!("{}{}", served.base, filled(path));
        let reply = served.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url).send().await.unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        let is_there = status != 405 && !text.contains(&format!("there is no {method} "));
        assert!(is_there, "{method} {path}: {status} {text}");
    }
    let (_, list) = served.get("/").await;
    let listed: BTreeSet<(String, String)> = list.lines().map(listed).collect();
    let beside = ["/", "/ui/query.html", "/metrics", "/healthz", "/readyz", "/openapi.json"];
    let beside = beside.map(|path| ("GET".to_owned(), path.to_owned()));
    assert_eq!(listed, described.into_iter().chain(beside).collect());
}

/// Method and path of a line of the list.
fn listed(line: &str) -> (String, String) {
    let mut words = line.split_whitespace();
    let method = words.next().unwrap().to_owned();
    let path = words.next().unwrap().split('?').next().unwrap().to_owned();
    (method, path)
}
