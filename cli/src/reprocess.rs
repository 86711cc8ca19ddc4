//! `causeway reprocess`: makes the rows of silver and gold again from bronze, beside ingest, and replaces them by one
//! commit for each table (ADR 50). The work is in `ingest::repair::reprocess`.

use answers::time::{TimeError, parse_time};
use clap::{Args, ValueHint};
use event_schema::position::OffsetRange;
use ingest::repair::reprocess::{Report, Reprocess, ReprocessError, reprocess};
use serde_json::json;
use service_kit::clock::{Clock, SystemClock};
use service_kit::run::{Drain, Exit, Fatal};
use tables::registry::{self, Table};

use crate::output::table::TextTable;
use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};

const EXAMPLES: &str = "\
Examples:
  causeway reprocess --since 2026-03-01 --dry-run
  causeway reprocess --since 12h --table silver.events --table gold.op_minute";

/// Makes the rows of silver and gold again from the messages in bronze, and replaces them at once
///
/// For rows that an older version made in another way. Every message that ingest has read since the time is decoded by
/// this version; what had landed of it takes the place of its former rows, and nothing else changes. Ingest may run
/// meanwhile. Each table changes by one commit; a run that ends before it changes nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReprocessArgs {
    /// Messages that ingest read since then: a time, or a duration back from now (`90s`, `5m`, `12h`, `30d`)
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other)]
    since: String,
    /// Only this table, such as `silver.events`; may be given several times [default: all of silver and gold]
    #[arg(long = "table", value_name = "TABLE", value_hint = ValueHint::Other)]
    tables: Vec<String>,
    /// Show which files, rows and messages it would be, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Why rows were not made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReprocessCommandError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Time(#[from] TimeError),
    #[error("{name} is no table of silver or gold whose rows are made of messages: {}", names(&refined()))]
    NotRefined { name: String },
    #[error(transparent)]
    Reprocess(#[from] ReprocessError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for ReprocessCommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Time(_) | Self::NotRefined { .. } => Exit::Usage,
            Self::Reprocess(ReprocessError::Interrupted) => Exit::Interrupted,
            Self::Reprocess(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: &ReprocessArgs, place: &Place, drain: &Drain) -> Result<Exit, ReprocessCommandError> {
    // First: a mistake of the command line is reported without opening anything.
    let since_us = parse_time(&args.since, SystemClock.now_ms())?.saturating_mul(1_000);
    let tables = chosen(&args.tables)?;
    let lake = place.open().await?;
    if args.dry_run {
        let preview = async { Reprocess::plan(&lake, &tables, since_us).await?.preview().await };
        let Some(reports) = drain.run_until_cancelled(preview).await else { return Ok(Exit::Interrupted) };
        print(args, &reports?)?;
        return Ok(Exit::Done);
    }
    let mut reports = Vec::new();
    let ended = reprocess(&lake, tables, since_us, drain, &mut reports).await;
    // Before the error: tables that are done stay so.
    print(args, &reports)?;
    ended?;
    Ok(Exit::Done)
}

fn refined() -> Vec<&'static Table> {
    registry::all().iter().filter(|table| table.is_refined()).collect()
}

fn names(tables: &[&Table]) -> String {
    tables.iter().map(|table| table.def.name.to_string()).collect::<Vec<_>>().join(", ")
}

/// The tables that are meant, each once.
fn chosen(names: &[String]) -> Result<Vec<&'static Table>, ReprocessCommandError> {
    let mut tables = refined();
    if names.is_empty() {
        return Ok(tables);
    }
    for name in names {
        if !tables.iter().any(|table| table.def.name.to_string() == *name) {
            return Err(ReprocessCommandError::NotRefined { name: name.clone() });
        }
    }
    // In the order of the registry, and each once, however often it was given.
    tables.retain(|table| names.contains(&table.def.name.to_string()));
    Ok(tables)
}

fn print(args: &ReprocessArgs, reports: &[Report]) -> Result<(), OutputError> {
    if args.json {
        let documents: Vec<_> = reports.iter().map(document).collect();
        return output::json(&json!({ "dry_run": args.dry_run, "tables": documents }));
    }
    output::text(&as_text(args.dry_run, reports))
}

fn document(report: &Report) -> serde_json::Value {
    json!({
        "table": report.table,
        "refine_version": report.refine_version,
        "former_versions": report.former_versions,
        "ranges": report.ranges.iter().map(range).collect::<Vec<_>>(),
        "messages": report.messages,
        "rows": report.rows,
        "former_rows": report.former_rows,
        "carried_rows": report.carried_rows,
        "former_files": report.former_files,
        "files": report.files,
        "snapshot": report.snapshot,
    })
}

fn range(range: &OffsetRange) -> serde_json::Value {
    json!({ "log": range.at.to_string(), "start": range.start, "end": range.end })
}

fn as_text(is_dry: bool, reports: &[Report]) -> String {
    let heading = ["table", "messages", "rows", "rows before", "files before", "carried rows", "version", "snapshot"];
    let mut table = TextTable::new(heading).numbers([1, 2, 3, 4, 5]);
    for report in reports {
        table.row([
            report.table.clone(),
            report.messages.to_string(),
            report.rows.map(|rows| rows.to_string()).unwrap_or_default(),
            report.former_rows.to_string(),
            report.former_files.to_string(),
            report.carried_rows.to_string(),
            versions(report),
            report.snapshot.map_or_else(|| unchanged(is_dry).to_owned(), |snapshot| snapshot.to_string()),
        ]);
    }
    table.render()
}

fn unchanged(is_dry: bool) -> &'static str {
    if is_dry { "none yet" } else { "unchanged" }
}

/// The versions that made the former rows, and the one that makes them now.
fn versions(report: &Report) -> String {
    let former =
        report.former_versions.iter().map(|version| version.map_or("?".to_owned(), |version| version.to_string()));
    format!("{} -> {}", former.collect::<Vec<_>>().join("+"), report.refine_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_whose_rows_are_made_of_messages_are_taken() {
        assert_eq!(
            names(&chosen(&["gold.op_minute".to_owned(), "gold.op_minute".to_owned()]).unwrap()),
            "gold.op_minute"
        );
        assert_eq!(chosen(&[]).unwrap().len(), registry::all().len() - 3);
        for name in ["bronze.messages", "ops.ledger", "ops.dlq", "events", ""] {
            let refused = chosen(&[name.to_owned()]).unwrap_err();
            assert!(refused.to_string().contains("silver.events"), "{refused}");
        }
    }
}
