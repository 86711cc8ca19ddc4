//! `causeway nodes`: who reports.

use clap::Args;
use serde_json::Value;
use service_kit::run::{Exit, note};

use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, table::TextTable};

/// Lists the nodes that report, and those that fell silent
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Print the server's document as it is
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &NodesArgs, client: &Client) -> Result<Exit, CliError> {
    let document: Value = client.get("api/v1/nodes", &[]).await?;
    if args.json {
        output::json(&document)?;
        return Ok(Exit::Done);
    }
    let nodes = document["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table =
        TextTable::new(["node", "cluster", "status", "rows", "lost", "last seen", "lag", "agent"]).numbers([3, 4, 6]);
    for node in nodes {
        let [name, cluster, status, rows, lost, last, agent] =
            ["node", "cluster", "status", "rows", "lost_events", "last_event", "agent"].map(|key| cell(&node[key]));
        table.row([name, cluster, status, rows, lost, last, lag(node), agent]);
    }
    output::text(&format!("{}{}", table.render(), untraced(&document)))?;
    note(&format!("{} node(s)", nodes.len()));
    Ok(Exit::Done)
}

/// The processes that map a CUDA or NCCL library and are not traced; nothing when there are none.
fn untraced(document: &Value) -> String {
    let processes = document["untraced"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table = TextTable::new(["node", "process", "name", "not traced, because"]).numbers([1]);
    for process in processes {
        table.row(["node", "pid", "name", "reason"].map(|key| cell(&process[key])));
    }
    if processes.is_empty() { String::new() } else { format!("\n{}", table.render()) }
}

/// From the time up to which everything of a node has landed until now; empty for one that makes nothing more.
pub(crate) fn lag(node: &Value) -> String {
    node["lag_ms"].as_f64().map_or_else(String::new, |ms| format!("{:.1} s", ms / 1_000.0))
}

/// A value of a document as a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
