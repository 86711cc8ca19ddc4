//! `causeway status`: is it well, is it complete, how far behind is it.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};
use service_kit::run::Exit;

use crate::client::Client;
use crate::error::CliError;
use crate::nodes::{cell, lag};
use crate::output::table::TextTable;
use crate::{output, table_list};

/// Says whether the server is ready, how complete its answers are and how far they lag
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command: exit 1 when the server is not ready.
pub(crate) async fn run(args: &StatusArgs, client: &Client) -> Result<Exit, CliError> {
    let (is_ready, reason) = client.readiness().await?;
    let completeness: Value = client.get("api/v1/completeness", &[]).await?;
    let tables: Value = client.get("api/v1/tables", &[]).await?;
    let nodes: Value = client.get("api/v1/nodes", &[]).await?;
    if args.json {
        output::json(&json!({
            "server": client.server(),
            "ready": is_ready,
            "reason": if is_ready { Value::Null } else { json!(reason) },
            "completeness": completeness,
            "slowest": slowest(&nodes),
            "tables": tables["tables"],
        }))?;
    } else {
        output::text(&summary(client.server(), (is_ready, &reason), &completeness, slowest(&nodes)))?;
        output::text(&format!("\n{}", table_list::listed(&only_tables(tables))))?;
    }
    Ok(if is_ready { Exit::Done } else { Exit::Failed })
}

/// The reporting node that lags most; a silent node is listed as missing.
fn slowest(nodes: &Value) -> Option<&Value> {
    let nodes = nodes["nodes"].as_array().into_iter().flatten();
    nodes.filter(|node| node["status"] == "reporting").max_by_key(|node| node["lag_ms"].as_i64())
}

fn summary(server: &str, (is_ready, reason): (bool, &str), completeness: &Value, slowest: Option<&Value>) -> String {
    let missing: Vec<String> = completeness["missing"].as_array().into_iter().flatten().map(cell).collect();
    let nodes = format!("{} of {}", cell(&completeness["nodes_reporting"]), cell(&completeness["nodes_expected"]));
    let mut table = TextTable::new(["status", "value"]);
    table.row(["server", server]);
    let mut lines = if is_ready { "yes" } else { reason }.lines();
    table.row(["ready", lines.next().unwrap_or("no")]);
    lines.for_each(|line| table.row(["", line.trim()]));
    table.row(["nodes reporting", &nodes]);
    table.row(["missing", if missing.is_empty() { "none" } else { "" }.to_owned().as_str()]);
    missing.iter().for_each(|node| table.row(["", node]));
    table.row(["lost events", &cell(&completeness["lost_events"])]);
    let lag = slowest.map_or_else(|| "none".to_owned(), |node| format!("{} ({})", lag(node), cell(&node["node"])));
    table.row(["lag", &lag]);
    let complete_to = cell(&completeness["complete_to"]);
    table.row(["complete to", if complete_to.is_empty() { "no live node" } else { &complete_to }]);
    let as_of = cell(&completeness["as_of"]);
    let age = DateTime::parse_from_rfc3339(&as_of).map(|at| Utc::now().signed_duration_since(at).num_seconds());
    table.row(["newest commit", &age.map_or_else(|_| "none".to_owned(), |age| format!("{as_of} ({age} s ago)"))]);
    table.render()
}

fn only_tables(document: Value) -> Value {
    let tables: Vec<Value> =
        document["tables"].as_array().into_iter().flatten().filter(|t| t["kind"] == "table").cloned().collect();
    json!({ "tables": tables })
}
