//! `causeway status`: is it well, is it complete, how far behind is it.

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};
use service_kit::run::Exit;

use crate::client::Client;
use crate::error::CliError;
use crate::nodes::cell;
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
    if args.json {
        output::json(&json!({
            "server": client.server(),
            "ready": is_ready,
            "reason": if is_ready { Value::Null } else { json!(reason) },
            "completeness": completeness,
            "tables": tables["tables"],
        }))?;
    } else {
        output::text(&summary(client.server(), (is_ready, &reason), &completeness))?;
        output::text(&format!("\n{}", table_list::listed(&only_tables(tables))))?;
    }
    Ok(if is_ready { Exit::Done } else { Exit::Failed })
}

fn summary(server: &str, (is_ready, reason): (bool, &str), completeness: &Value) -> String {
    let missing: Vec<String> = completeness["missing"].as_array().into_iter().flatten().map(cell).collect();
    let nodes = format!("{} of {}", cell(&completeness["nodes_reporting"]), cell(&completeness["nodes_expected"]));
    let mut table = TextTable::new(["status", ""]);
    table.row(["server", server]);
    table.row(["ready", if is_ready { "yes" } else { reason }]);
    table.row(["nodes reporting", &nodes]);
    table.row(["missing", if missing.is_empty() { "none" } else { "" }.to_owned().as_str()]);
    missing.iter().for_each(|node| table.row(["", node]));
    table.row(["lost events", &cell(&completeness["lost_events"])]);
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
