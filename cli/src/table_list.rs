//! `causeway tables`: the tables and views that can be queried, or one table with its columns and snapshots.

use answers::tables::{Column, Snapshot, TableDescription, TableEntry, TableKind, TableState, Tables};
use clap::{Args, ValueHint};
use serde_json::Value;
use service_kit::run::Exit;

use crate::client::{AskError, Client};
use crate::orphans::OrphanArgs;
use crate::output::table::{TextTable, bytes};
use crate::output::{self, OutputError};
use crate::place::PlaceArgs;

const EXAMPLES: &str = "\
Examples:
  causeway tables
  causeway tables events
  causeway tables silver.events --plan     # which files would be merged, why, and what that costs
  causeway tables silver.events --maintain
  causeway tables silver.events --orphans --older-than 7d
  causeway tables silver.events --tiers";

/// Lists tables and views, describes one, or maintains its files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TablesArgs {
    /// Table to describe, such as `silver.events`
    #[arg(value_hint = ValueHint::Other)]
    pub(crate) name: Option<String>,
    /// Print the server's document as it is; of what works on the lake itself the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show which files of the table would be merged, why, and what that costs; works on the lake itself
    #[arg(long, requires = "name", conflicts_with = "maintain")]
    pub(crate) plan: bool,
    /// Merge the files of the table until nothing is left to do; works on the lake itself
    #[arg(long, requires = "name")]
    pub(crate) maintain: bool,
    /// Show in which storage class of S3 the files lie and what they cost; works on the lake itself
    #[arg(long, conflicts_with_all = ["plan", "maintain", "orphans"])]
    pub(crate) tiers: bool,
    #[command(flatten)]
    pub(crate) orphans: OrphanArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

impl TablesArgs {
    /// Whether the command works on the lake itself and asks no server.
    pub(crate) fn works_on_the_lake(&self) -> bool {
        self.plan || self.maintain || self.orphans.orphans || self.tiers
    }
}

/// Runs the command.
pub(crate) async fn run(args: &TablesArgs, client: &Client) -> Result<Exit, AskError> {
    match &args.name {
        Some(name) => {
            let document = client.document::<TableDescription>(&format!("api/v1/tables/{name}"), &[]).await?;
            print(args.json, &document.json, &described(&document.answer))?;
        }
        None => {
            let document = client.document::<Tables>("api/v1/tables", &[]).await?;
            print(args.json, &document.json, &listed(&document.answer.tables))?;
        }
    }
    Ok(Exit::Done)
}

fn print(as_json: bool, json: &Value, text: &str) -> Result<(), OutputError> {
    if as_json { output::json(json) } else { output::text(text) }
}

/// The tables of a list, one in a line.
pub(crate) fn listed(tables: &[TableEntry]) -> String {
    let mut table = TextTable::new(["table", "kind", "rows", "files", "size", "committed", "what"]).numbers([2, 3, 4]);
    for entry in tables {
        match &entry.kind {
            TableKind::View => table.row([&entry.name, "view", "", "", "", "", &entry.doc]),
            TableKind::Table(state) => {
                // A table whose metadata cannot be read is still listed: one damaged table must not hide the
                // others.
                let what = state.error.as_ref().map_or_else(|| entry.doc.clone(), |error| format!("ERROR: {error}"));
                table.row([
                    entry.name.clone(),
                    "table".to_owned(),
                    shown(state.rows),
                    shown(state.files),
                    state.bytes.map(bytes).unwrap_or_default(),
                    state.committed.clone().unwrap_or_default(),
                    what,
                ]);
            }
        }
    }
    table.render()
}

fn shown(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn described(table: &TableDescription) -> String {
    let mut columns = TextTable::new(["column", "type", "null", "what"]);
    for Column { name, kind, nullable, doc } in &table.columns {
        let null = if *nullable { "yes" } else { "no" };
        columns.row([name.as_str(), kind, null, doc.as_deref().unwrap_or_default()]);
    }
    let mut text = columns.render();
    if let Some(snapshots) = table.snapshots.as_ref().filter(|snapshots| !snapshots.is_empty()) {
        let mut table =
            TextTable::new(["snapshot", "committed", "operation", "added rows", "total rows"]).numbers([0, 3, 4]);
        for Snapshot { snapshot_id, committed, operation, added_rows, total_rows } in snapshots {
            let [committed, operation, added, total] =
                [committed, operation, added_rows, total_rows].map(|text| text.as_deref().unwrap_or_default());
            table.row([&snapshot_id.to_string(), committed, operation, added, total]);
        }
        text += &format!("\n{}", table.render());
    }
    if let TableKind::Table(TableState { metadata_location: Some(location), .. }) = &table.kind {
        // Of a local warehouse the path, which a shell can use as it is.
        let path = location.trim_start_matches("file:");
        text += &format!("\nmetadata: {}\n", path.strip_prefix("//").unwrap_or(path));
    }
    text
}
