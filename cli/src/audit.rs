//! `causeway audit`: proves from the tables alone that every message landed once and the ledger closes.

use std::collections::BTreeMap;

use chain_engine::format::printable;
use clap::Args;
use lake::ReadError;
use serde_json::json;
use service_kit::run::{Exit, Fatal};

use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};

mod columns;
mod facts;
mod files;
mod laws;
mod runs;

use facts::FactsError;
use files::FileFacts;
use laws::accounts::open_epochs;
use laws::{Broken, Facts, Law};

/// Proves exactly-once and the ledger offline, from the tables alone, and compares every file with its checksums
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the tables cannot be audited")]
    Facts(#[from] FactsError),
    #[error("the files of the tables cannot be read")]
    Files(#[source] ReadError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for AuditError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Facts(_) | Self::Files(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command: exit 1 when a law is broken.
pub(crate) async fn run(args: &AuditArgs, place: &Place) -> Result<Exit, AuditError> {
    let lake = place.open().await?;
    let files = files::check(&lake).await.map_err(AuditError::Files)?;
    if !files.damaged.is_empty() {
        if args.json {
            output::json(&json!({ "holds": false, "files": files, "laws": [] }))?;
        } else {
            output::text(&files::as_text(&files))?;
        }
        return Ok(Exit::Failed);
    }
    let facts = facts::read(&lake).await?;
    let broken = laws::check(&facts);
    if args.json {
        output::json(&as_json(&facts, &files, &broken))?;
    } else {
        output::text(&as_text(&facts, &files, &broken))?;
    }
    Ok(if broken.is_empty() { Exit::Done } else { Exit::Failed })
}

fn counts(facts: &Facts) -> (usize, i64) {
    let rows = facts.records.iter().flat_map(|records| records.rows.values().flat_map(BTreeMap::values)).sum();
    (facts.ledger.len(), rows)
}

fn as_json(facts: &Facts, files: &FileFacts, broken: &[Broken]) -> serde_json::Value {
    let (messages, rows) = counts(facts);
    let law = |law: Law| {
        let broken: Vec<&Broken> = broken.iter().filter(|b| b.law == law).collect();
        json!({ "law": law, "statement": law.statement(), "holds": broken.is_empty(), "broken": broken })
    };
    json!({
        "holds": broken.is_empty(),
        "messages": messages,
        "rows": rows,
        "tables": facts.tables.len(),
        "files": files,
        "open_epochs": open_epochs(facts).iter().map(ToString::to_string).collect::<Vec<_>>(),
        "laws": Law::ALL.map(law),
    })
}

fn as_text(facts: &Facts, files: &FileFacts, broken: &[Broken]) -> String {
    let (messages, rows) = counts(facts);
    let mut text = String::new();
    for law in Law::ALL {
        let of_law: Vec<&Broken> = broken.iter().filter(|b| b.law == law).collect();
        let verdict = if of_law.is_empty() { "holds " } else { "BROKEN" };
        text += &format!("{verdict}  {}\n", law.statement());
        // Places and what is wrong there name nodes.
        of_law.iter().for_each(|b| {
            text += &format!("        {} {}: {}\n", b.table, printable(&b.place), printable(&b.what));
        });
    }
    if files.without_checksum > 0 {
        text += &format!(
            "note    {} of {} data files carry no checksum: another program or an older version wrote them\n",
            files.without_checksum,
            files.without_checksum + files.sound
        );
    }
    let open = open_epochs(facts).len();
    if open > 0 {
        let (epochs, agents) = if open == 1 {
            ("epoch is not ended: its agent runs, has", "was")
        } else {
            ("epochs are not ended: their agents run, have", "were")
        };
        text += &format!(
            "note    {open} {epochs} not shipped all yet, or {agents} killed with events that were not counted\n"
        );
    }
    let summary = if broken.is_empty() { "audit passed" } else { "audit FAILED" };
    text + &format!("{summary}: {messages} messages, {rows} rows, {} tables\n", facts.tables.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_breaks_no_line_of_the_text() {
        let (table, place, what) = ("silver.events".to_owned(), "n\n1".to_owned(), "2 rows\r of n\n1".to_owned());
        let broken = [Broken { law: Law::Rows, table, place, what }];
        let text = as_text(&Facts::default(), &FileFacts::default(), &broken);
        assert!(text.contains("\n        silver.events n\\n1: 2 rows\\r of n\\n1\n"), "{text}");
    }
}
