//! `causeway tables`: what there is to query, or one table with its columns and snapshots.

use clap::{Args, ValueHint};
use serde_json::Value;
use service_kit::run::Exit;

use crate::client::Client;
use crate::error::CliError;
use crate::nodes::cell;
use crate::output;
use crate::output::table::{TextTable, bytes};

const EXAMPLES: &str = "\
Examples:
  causeway tables
  causeway tables events";

/// Lists tables and views, or describes one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TablesArgs {
    /// Table to describe, such as `silver.events`
    #[arg(value_hint = ValueHint::Other)]
    name: Option<String>,
    /// Print the server's document as it is
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &TablesArgs, client: &Client) -> Result<Exit, CliError> {
    let path = match &args.name {
        Some(name) => format!("api/v1/tables/{name}"),
        None => "api/v1/tables".to_owned(),
    };
    let document: Value = client.get(&path, &[]).await?;
    if args.json {
        output::json(&document)?;
    } else if args.name.is_some() {
        output::text(&described(&document))?;
    } else {
        output::text(&listed(&document))?;
    }
    Ok(Exit::Done)
}

fn list(document: &Value) -> &[Value] {
    document.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn listed(document: &Value) -> String {
    let mut table = TextTable::new(["table", "kind", "rows", "files", "size", "committed", "what"]).numbers([2, 3, 4]);
    for entry in list(&document["tables"]) {
        let size = entry["bytes"].as_u64().map(bytes).unwrap_or_default();
        let [name, kind, rows, files] = ["name", "kind", "rows", "files"].map(|key| cell(&entry[key]));
        let what = entry["error"].as_str().map_or_else(|| cell(&entry["doc"]), |error| format!("ERROR: {error}"));
        table.row([name, kind, rows, files, size, cell(&entry["committed"]), what]);
    }
    table.render()
}

fn described(document: &Value) -> String {
    let mut columns = TextTable::new(["column", "type", "null", "what"]);
    for column in list(&document["columns"]) {
        let null = if column["nullable"] == Value::Bool(false) { "no" } else { "yes" };
        columns.row([cell(&column["name"]), cell(&column["type"]), null.to_owned(), cell(&column["doc"])]);
    }
    let mut text = columns.render();
    let snapshots = list(&document["snapshots"]);
    if !snapshots.is_empty() {
        let mut table =
            TextTable::new(["snapshot", "committed", "operation", "added rows", "total rows"]).numbers([0, 3, 4]);
        for snapshot in snapshots {
            let keys = ["snapshot_id", "committed", "operation", "added_rows", "total_rows"];
            table.row(keys.map(|key| cell(&snapshot[key])));
        }
        text += &format!("\n{}", table.render());
    }
    if let Some(location) = document["metadata_location"].as_str() {
        text += &format!("\nmetadata: {}\n", location.trim_start_matches("file://"));
    }
    text
}
