//! Golden cases: what is asked and what must come back are data, in `cases/*.toml`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Served};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    sql: String,
    /// `name type` of each column.
    columns: Option<Vec<String>>,
    /// The rows, as JSON.
    rows: Option<String>,
    /// The end of the problem's `type`.
    problem: Option<String>,
    /// Part of the problem's detail.
    detail: Option<String>,
    /// `line:column`.
    position: Option<String>,
    close_names: Option<Vec<String>>,
}

/// `{{n|text}}` becomes the text n times.
fn expanded(sql: &str) -> String {
    let mut out = String::new();
    let mut rest = sql;
    while let Some((before, marked)) = rest.split_once("{{") {
        let (inside, after) = marked.split_once("}}").unwrap();
        let (times, text) = inside.split_once('|').unwrap();
        out += before;
        out += &text.repeat(times.parse().unwrap());
        rest = after;
    }
    out + rest
}

/// What is different from what should be; empty when nothing is.
async fn differences(served: &Served, case: &Case) -> Vec<String> {
    let (status, body) = served.sql(&expanded(&case.sql)).await;
    let place = &body["position"];
    let column = |c: &Value| format!("{} {}", c["name"].as_str().unwrap(), c["type"].as_str().unwrap());
    let columns = body["columns"].as_array().map(|columns| columns.iter().map(column).collect::<Vec<_>>());
    let detail = body["detail"].as_str().unwrap_or_default();
    let problem = case.problem.as_ref().map(|problem| format!("urn:causeway:problem:{problem}"));
    let rows: Option<Value> = case.rows.as_ref().map(|rows| serde_json::from_str(rows).unwrap());
    let position = format!("{}:{}", place["line"], place["column"]);
    let right = [
        ("problem", body["type"] == json!(problem)),
        ("status", problem.is_none() == (status == 200) && (problem.is_none() || body["status"] == status)),
        ("hint", problem.is_none() || !body["hint"].as_str().unwrap_or_default().is_empty()),
        ("detail", detail.contains(case.detail.as_deref().unwrap_or_default())),
        ("position", case.position.as_ref().is_none_or(|wanted| *wanted == position)),
        ("close names", case.close_names.as_ref().is_none_or(|wanted| body["close_names"] == json!(wanted))),
        ("columns", case.columns.is_none() || case.columns == columns),
        ("rows", rows.is_none_or(|rows| body["rows"] == rows)),
    ];
    let wrong = right.into_iter().filter(|(_, right)| !right);
    wrong.map(|(what, _)| format!("{}: {what} of {body}", case.name)).collect()
}

async fn check_all(file: &str) -> usize {
    let cases: Cases = toml::from_str(file).unwrap();
    let served = Fixture::with_events().await.serve().await;
    let mut wrong = Vec::new();
    for case in &cases.case {
        wrong.extend(differences(&served, case).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cases.case.len()
}

#[tokio::test]
async fn values_are_right_or_refused_by_name() {
    assert!(check_all(include_str!("cases/values.toml")).await >= 100);
}

#[tokio::test]
async fn statements_give_the_rows_or_the_problem_they_should() {
    assert!(check_all(include_str!("cases/sql.toml")).await >= 20);
}

#[tokio::test]
async fn hostile_statements_are_refused_each_for_its_reason_and_the_service_lives_on() {
    assert!(check_all(include_str!("cases/hostile.toml")).await >= 25);
}

#[tokio::test]
async fn subqueries_are_right_in_every_place() {
    assert!(check_all(include_str!("cases/subqueries.toml")).await >= 25);
}

#[tokio::test]
async fn clauses_are_right_or_refused_by_name() {
    assert!(check_all(include_str!("cases/clauses.toml")).await >= 40);
}
