//! Statements with subqueries made at random over small tables with NULLs: the answers are those of another engine
//! (`infra/dev/subqueries.py`). Another seed is tried with `SUBQUERY_SEED`.

use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::fixture::{Fixture, Served};
use crate::trino_client::python;

/// The statements that every run asks.
const SEED: u64 = 20_260_301;
const STATEMENTS: usize = 250;
/// Statements refused by name, of a hundred, at most.
const REFUSED_PERCENT: usize = 3;
/// Statements that the other engine has an answer to, of a hundred, at least.
const ANSWERED_PERCENT: usize = 90;

#[derive(Debug, Deserialize)]
struct Statement {
    sql: String,
    /// In the order of their text; none where the other engine has no answer.
    rows: Option<Vec<Value>>,
}

fn statements(seed: u64) -> Vec<Statement> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/dev/subqueries.py");
    let mut command = Command::new(python());
    command.args([script, "--seed", &seed.to_string(), "--count", &STATEMENTS.to_string()]).stdin(Stdio::null());
    let output = command.output().expect("run infra/dev/setup.sh test first");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What was answered instead of the right rows; `None` when it was these or a refusal by name.
async fn difference(served: &Served, statement: &Statement, refused: &mut usize) -> Option<String> {
    let wanted = statement.rows.as_ref()?;
    let (status, body) = served.sql(&statement.sql).await;
    if body["type"] == "urn:causeway:problem:sql-unsupported" {
        *refused += 1;
        return None;
    }
    let mut rows = body["rows"].as_array().cloned().unwrap_or_default();
    rows.sort_by_key(Value::to_string);
    let mut wanted = wanted.clone();
    wanted.sort_by_key(Value::to_string);
    (status != 200 || rows != wanted)
        .then(|| format!("{}\n  wanted {}\n  answered {status} {body}", statement.sql, Value::from(wanted)))
}

#[tokio::test]
async fn random_subqueries_are_answered_as_another_engine_does_or_refused_by_name() {
    let seed = std::env::var("SUBQUERY_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let served = Fixture::with_events().await.serve().await;
    let statements = statements(seed);
    let answered = statements.iter().filter(|statement| statement.rows.is_some()).count();
    assert!(answered * 100 >= STATEMENTS * ANSWERED_PERCENT, "seed {seed}: {answered} of {STATEMENTS} have rows");
    let mut wrong = Vec::new();
    let mut refused = 0;
    for statement in &statements {
        wrong.extend(difference(&served, statement, &mut refused).await);
    }
    assert!(wrong.is_empty(), "seed {seed}: {} of {STATEMENTS}\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused * 100 <= STATEMENTS * REFUSED_PERCENT, "seed {seed}: {refused} of {STATEMENTS} were refused");
}
