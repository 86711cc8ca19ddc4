//! The Trino protocol as users meet it: through the `trino` client for Python, as published.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::fixture::Fixture;

/// Prints what a cursor gives for each statement: names, types and rows, or the error's name and position.
const PROGRAM: &str = r#"
import json, sys, trino
from urllib.parse import urlsplit
address = urlsplit(sys.argv[1])
connection = trino.dbapi.connect(host=address.hostname, port=address.port, user="tester")
for sql in sys.argv[2:]:
    cursor = connection.cursor()
    try:
        rows = cursor.execute(sql).fetchall()
        columns = [[column.name, column.type_code] for column in cursor.description]
        print(json.dumps({"columns": columns, "rows": rows}, default=str))
    except trino.exceptions.TrinoUserError as error:
        print(json.dumps({"error": error.error_name, "at": error.error_location}, default=str))
"#;

/// The Python that `infra/dev/setup.sh test` prepares.
pub(crate) fn python() -> PathBuf {
    let cache = std::env::var_os("CAUSEWAY_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/causeway"));
    cache.join("venv/bin/python")
}

async fn through_client(base: &str, statements: &[&str]) -> Vec<Value> {
    let mut command = tokio::process::Command::new(python());
    command.args(["-c", PROGRAM, base]).args(statements).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect("run infra/dev/setup.sh test first");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_python_client_runs_a_select_and_sees_an_error_with_its_position() {
    let served = Fixture::with_events().await.serve().await;
    let answers = through_client(
        &served.base,
        &[
            "SELECT node, count(*) AS cnt, avg(duration)/1000 AS avg_us, max(ts) AS last FROM events GROUP BY node ORDER BY node",
            "SELECT rank, comm FROM events LIMIT 1",
            "SELECT node\nFROM evnts",
        ],
    )
    .await;
    let columns =
        json!([["node", "varchar"], ["cnt", "bigint"], ["avg_us", "double"], ["last", "timestamp(6) with time zone"]]);
    assert_eq!(answers[0]["columns"], columns);
    assert_eq!(answers[0]["rows"][2], json!(["gpu-node-03", 1, 40.0, "2026-03-01 00:00:00+00:00"]));
    assert_eq!(answers[0]["rows"].as_array().unwrap().len(), 3);
    assert_eq!(answers[1]["rows"], json!([[null, "python"]]));
    assert_eq!(answers[2], json!({ "error": "TABLE_NOT_FOUND", "at": [2, 6] }));
}
