//! The report of each file of an import.

use std::path::Path;

use recordings::{Faults, Imported, Options, Reading};
use serde_json::{Value, json};
use service_kit::run::note;

use crate::output::{self, OutputError, in_line};

/// The result of one file, or why it was not imported.
#[derive(Debug)]
pub(crate) enum Outcome {
    Imported { report: Value, text: String },
    Refused { report: Value, text: String },
}

impl Outcome {
    pub(crate) fn imported(imported: &Imported, options: Options<'_>, is_cluster_named: bool) -> Self {
        let notes = notes(imported, options, is_cluster_named);
        let report = json!({
            "file": imported.path.display().to_string(),
            "schema": imported.schema,
            "nodes": imported.nodes,
            "rows": imported.rows,
            "new_rows": imported.new_rows,
            "null_cells": total(&imported.nulled),
            "skipped_rows": total(&imported.skipped) + imported.unplaced.values().sum::<u64>(),
            "changed_events": imported.tally.differing,
            "notes": notes,
        });
        let mut text = in_line(&summary(imported));
        for note in &notes {
            text += &format!("\n  note: {}", in_line(note));
        }
        Self::Imported { report, text }
    }

    /// An object of a bucket, by its location. `notes` are remarks of the import.
    pub(crate) fn object(location: &str, outcome: &str, rows: Option<u64>, notes: &[String]) -> Self {
        let report = json!({ "file": location, "outcome": outcome, "all_rows": rows, "notes": notes });
        let mut text = in_line(&format!("{location}: {outcome}"));
        if let Some(rows) = rows {
            text += &format!(" ({})", plural(rows, "row", "rows"));
        }
        for note in notes {
            text += &format!("\n  note: {}", in_line(note));
        }
        Self::Imported { report, text }
    }

    pub(crate) fn refused(path: &Path, error: &dyn std::error::Error) -> Self {
        let error = service_kit::run::in_a_line(error);
        let text = format!("error: {}", in_line(&error));
        Self::Refused { report: json!({ "file": path.display().to_string(), "error": error }), text }
    }

    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    fn parts(&self) -> (&Value, &str) {
        let (Self::Imported { report, text } | Self::Refused { report, text }) = self;
        (report, text)
    }
}

/// Prints outcomes in the order of the files.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print(outcomes: &[Outcome], json: bool) -> Result<(), OutputError> {
    // The document has everything. Beside it, errors alone go to standard error, where scripts log them.
    for outcome in outcomes.iter().filter(|outcome| !json || outcome.is_refused()) {
        note(outcome.parts().1);
    }
    if json {
        let reports: Vec<&Value> = outcomes.iter().map(|outcome| outcome.parts().0).collect();
        output::json(&json!(reports))?;
    }
    Ok(())
}

fn summary(imported: &Imported) -> String {
    let rows: Vec<String> = imported.rows.iter().map(|(kind, rows)| format!("{rows} {kind}")).collect();
    let file = imported.path.display();
    if rows.is_empty() {
        return format!("{file}: nothing to import, it has no rows (schema {})", imported.schema);
    }
    let outcome = match imported.new_rows {
        0 => "already imported, nothing new".to_owned(),
        1 => "1 new row".to_owned(),
        new => format!("{new} new rows"),
    };
    let nodes: Vec<&str> = imported.nodes.iter().map(String::as_str).collect();
    let noun = if imported.all_rows() == 1 { "row" } else { "rows" };
    format!("{file}: {outcome} ({} {noun} from {}; schema {})", rows.join(", "), nodes.join(", "), imported.schema)
}

fn notes(imported: &Imported, options: Options<'_>, is_cluster_named: bool) -> Vec<String> {
    let mut notes = Vec::new();
    match imported.reading {
        Reading::InPlace => {}
        Reading::Copy => notes.push("read from a private copy, since it is in write-ahead mode or has a writer".to_owned()),
        Reading::RolledBack => notes.push(
            "read from a private copy, in which a transaction that was not finished was rolled back; the file itself still holds it"
                .to_owned(),
        ),
    }
    match (options.node, &imported.only_node) {
        (None, Some(node)) if imported.is_unnamed && imported.all_rows() > 0 => {
            notes.push(format!(
                "it names no node: its rows belong to `{node}`, a name made of its content; --node names it"
            ));
        }
        // The recording takes precedence: under the name of the flag rows that landed before would land again.
        (Some(given), Some(node)) if !imported.is_unnamed && given != node => {
            notes.push(format!("--node {given} is not used: the recording names its node `{node}`"));
        }
        (Some(given), None) => {
            notes.push(format!("--node {given} is not used: the recording names its nodes"));
        }
        _ => {}
    }
    // Every new row was counted among all rows first (`SecondPass::row`): the difference is never negative.
    let known = imported.all_rows() - imported.new_rows;
    if is_cluster_named && known > 0 {
        notes.push(format!(
            "{} imported before and keep{} the cluster of that time: --cluster {} holds for new rows only",
            plural(known, "row was", "rows were"),
            if known == 1 { "s" } else { "" },
            options.cluster
        ));
    }
    if imported.alternates > 0 {
        notes.push(format!(
            "the events of {} have the numbers of other events that landed of the same node and time: they are kept as those of \
             another recording",
            plural(imported.alternates as u64, "session", "sessions")
        ));
    }
    let tally = imported.tally;
    if tally.differing > 0 {
        notes.push(format!(
            "{} of {} that had landed before hold{} something else now and stay{} as they landed",
            tally.differing,
            plural(tally.compared, "event", "events"),
            if tally.differing == 1 { "s" } else { "" },
            if tally.differing == 1 { "s" } else { "" },
        ));
    }
    notes.extend(imported.unplaced.iter().map(|(table, count)| {
        format!(
            "{} of table `{table}` left out: it is not known which of the recording's nodes {}",
            plural(*count, "row", "rows"),
            if *count == 1 { "it is of" } else { "they are of" }
        )
    }));
    notes.extend(faults(
        &imported.nulled,
        ("cell of", "cells of"),
        ("does not fit and is NULL", "do not fit and are NULL"),
    ));
    notes.extend(faults(&imported.skipped, ("row with", "rows with"), ("was left out", "were left out")));
    notes
}

fn faults(faults: &Faults, nouns: (&str, &str), verbs: (&str, &str)) -> Vec<String> {
    let mut notes = Vec::new();
    for ((table, column), found) in faults {
        let noun = plural(found.count, nouns.0, nouns.1);
        let verb = if found.count == 1 { verbs.0 } else { verbs.1 };
        let (row, misfit) = &found.first;
        notes.push(format!(
            "{noun} column `{column}` of table `{table}` {verb}: {row} holds {}, expected {}",
            misfit.value, misfit.expected
        ));
    }
    notes
}

fn total(faults: &Faults) -> u64 {
    faults.values().map(|found| found.count).sum()
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
