//! `causeway audit`: proves from the tables alone that every message landed once and the ledger closes. The laws are in
//! the crate `invariants`; here is what is printed, and the exit code.

use chain_engine::format::printable;
use clap::Args;
use invariants::files::{self, Damaged, FileFacts};
use invariants::{Broken, FactsError, Law, Unproved, Verdict};
use lake::ReadError;
use serde_json::json;
use service_kit::run::{Exit, Fatal};

use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};

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

/// Runs the command: exit 1 when a law is broken or cannot be proved.
pub(crate) async fn run(args: &AuditArgs, place: &Place) -> Result<Exit, AuditError> {
    let lake = place.open().await?;
    // Before the laws: rows of a damaged file prove nothing, and a broken law would point away from the file.
    let files = files::check(&lake).await.map_err(AuditError::Files)?;
    if !files.damaged.is_empty() {
        if args.json {
            output::json(&json!({ "holds": false, "files": files, "laws": [] }))?;
        } else {
            output::text(&damage_as_text(&files))?;
        }
        return Ok(Exit::Failed);
    }
    let verdict = invariants::audit(&lake).await?;
    if args.json {
        output::json(&as_json(&verdict, &files))?;
    } else {
        output::text(&as_text(&verdict, &files))?;
    }
    Ok(if verdict.holds() { Exit::Done } else { Exit::Failed })
}

fn as_json(verdict: &Verdict, files: &FileFacts) -> serde_json::Value {
    let mut laws = Vec::new();
    for law in Law::ALL {
        let broken: Vec<&Broken> = verdict.broken.iter().filter(|b| b.law == law).collect();
        let unproved: Vec<String> = unproved(verdict, law).map(ToString::to_string).collect();
        laws.push(json!({
            "law": law,
            "statement": law.statement(),
            "holds": broken.is_empty() && unproved.is_empty(),
            "broken": broken,
            "unproved": unproved,
        }));
    }
    json!({
        "holds": verdict.holds(),
        "messages": verdict.messages,
        "rows": verdict.rows,
        "tables": verdict.tables,
        "files": files,
        "open_epochs": verdict.open_epochs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "laws": laws,
    })
}

/// Why a law cannot be proved; empty where it can.
fn unproved(verdict: &Verdict, law: Law) -> impl Iterator<Item = &Unproved> {
    verdict.unproved.iter().filter(move |unproved| unproved.law == law)
}

/// The report when files are damaged: the laws are not checked then.
fn damage_as_text(files: &FileFacts) -> String {
    let mut text = "BROKEN  every file is what was written to it\n".to_owned();
    for Damaged { table, file, problem } in &files.damaged {
        text += &format!("        {table} {file}: {problem}\n");
    }
    let count = files.damaged.len();
    text + &format!(
        "note    the laws are not checked while files are damaged: restore them, or roll the tables back to a snapshot without \
         them\naudit FAILED: {count} damaged, {} sound, {} without checksums\n",
        files.sound, files.without_checksum
    )
}

fn as_text(verdict: &Verdict, files: &FileFacts) -> String {
    let mut text = String::new();
    for law in Law::ALL {
        let of_law: Vec<&Broken> = verdict.broken.iter().filter(|b| b.law == law).collect();
        let reasons: Vec<&Unproved> = unproved(verdict, law).collect();
        let word = match (of_law.is_empty(), reasons.is_empty()) {
            (true, true) => "holds ",
            (true, false) => "UNPROVED",
            (false, _) => "BROKEN",
        };
        text += &format!("{word}  {}\n", law.statement());
        for reason in reasons {
            text += &format!("        {reason}\n");
        }
        // Both texts contain names of nodes, which are untrusted input for a terminal.
        for Broken { table, place, what, .. } in of_law {
            text += &format!("        {table} {}: {}\n", printable(place), printable(what));
        }
    }
    // A note and no failure: the Iceberg spec requires no checksums of files.
    if files.without_checksum > 0 {
        text += &format!(
            "note    {} of {} data files carry no checksum: another program or an older version wrote them\n",
            files.without_checksum,
            files.without_checksum + files.sound
        );
    }
    // A note and no failure: the tables do not distinguish an agent that was killed from one that still runs.
    let open = verdict.open_epochs.len();
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
    let Verdict { messages, rows, tables, .. } = verdict;
    let summary = if verdict.holds() { "audit passed" } else { "audit FAILED" };
    text + &format!("{summary}: {messages} messages, {rows} rows, {tables} tables\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_that_cannot_be_proved_is_printed_with_the_table_that_is_absent() {
        let unproved = vec![Unproved { law: Law::Ledger, table: "ops.ledger" }];
        let verdict = Verdict { unproved, ..Verdict::default() };
        let text = as_text(&verdict, &FileFacts::default());
        let law = "\nUNPROVED  emitted = landed + counted losses, per node, boot and epoch\n";
        let reason = "        ops.ledger is not in this lake: ";
        assert!(text.contains(&format!("{law}{reason}")) && text.contains("\naudit FAILED: "), "{text}");
        let document = as_json(&verdict, &FileFacts::default());
        let holds: Vec<_> = document["laws"].as_array().unwrap().iter().map(|law| law["holds"] == true).collect();
        assert_eq!(holds, Law::ALL.map(|law| law != Law::Ledger));
        assert_eq!(document["holds"], false);
    }

    #[test]
    fn a_name_breaks_no_line_of_the_text() {
        let broken = Broken {
            law: Law::Rows,
            table: "silver.events".to_owned(),
            place: "n\n1".to_owned(),
            what: "2 rows\r of n\n1".to_owned(),
        };
        let verdict = Verdict { broken: vec![broken], ..Verdict::default() };
        let text = as_text(&verdict, &FileFacts::default());
        assert!(text.contains("\n        silver.events n\\n1: 2 rows\\r of n\\n1\n"), "{text}");
    }
}
