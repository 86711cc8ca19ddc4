//! `causeway audit`: proves from the tables alone that every message landed once and the ledger closes.

use clap::Args;
use serde_json::json;
use service_kit::run::{Exit, Fatal};

use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};

mod columns;
mod facts;
mod laws;
mod runs;

use facts::FactsError;
use laws::accounts::open_epochs;
use laws::{Broken, Facts, Law};

/// Proves exactly-once and the ledger offline, from the tables alone
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
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for AuditError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Facts(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command: exit 1 when a law is broken.
pub(crate) async fn run(args: &AuditArgs, place: &Place) -> Result<Exit, AuditError> {
    let lake = place.open().await?;
    let facts = facts::read(&lake).await?;
    let broken = laws::check(&facts);
    if args.json {
        output::json(&as_json(&facts, &broken))?;
    } else {
        output::text(&as_text(&facts, &broken))?;
    }
    Ok(if broken.is_empty() { Exit::Done } else { Exit::Failed })
}

fn counts(facts: &Facts) -> (usize, i64) {
    let rows = facts.records.iter().flat_map(|records| records.rows.values()).sum();
    (facts.ledger.len(), rows)
}

fn as_json(facts: &Facts, broken: &[Broken]) -> serde_json::Value {
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
        "open_epochs": open_epochs(facts).iter().map(ToString::to_string).collect::<Vec<_>>(),
        "laws": Law::ALL.map(law),
    })
}

fn as_text(facts: &Facts, broken: &[Broken]) -> String {
    let (messages, rows) = counts(facts);
    let mut text = String::new();
    for law in Law::ALL {
        let of_law: Vec<&Broken> = broken.iter().filter(|b| b.law == law).collect();
        let verdict = if of_law.is_empty() { "holds " } else { "BROKEN" };
        text += &format!("{verdict}  {}\n", law.statement());
        of_law.iter().for_each(|b| text += &format!("        {} {}: {}\n", b.table, b.place, b.what));
    }
    let open = open_epochs(facts).len();
    if open > 0 {
        text += &format!(
            "note    {open} epochs are not ended: their agents run, have not shipped all yet, or were killed with events nobody counted\n"
        );
    }
    let summary = if broken.is_empty() { "audit passed" } else { "audit FAILED" };
    text + &format!("{summary}: {messages} messages, {rows} rows, {} tables\n", facts.tables.len())
}
