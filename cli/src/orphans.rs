//! `causeway tables NAME --orphans`: the objects of a table that no snapshot needs, and their removal.

use std::time::Duration;

use chrono::DateTime;
use clap::Args;
use lake::TableIdent;
use lake::commit::parse_age;
use maintenance::orphans::{self, OrphanError, Policy, Removed, Report};
use serde_json::json;
use service_kit::run::{Exit, Fatal};

use crate::output::table::{TextTable, bytes};
use crate::output::{self, OutputError};
use crate::place::{Place, PlaceError};

/// Orphans that the text form lists; `--json` has all.
const LISTED: usize = 20;

/// The flags of `causeway tables` that look into the store.
#[derive(Debug, Args)]
pub(crate) struct OrphanArgs {
    /// List the objects that no snapshot of the table needs; works on the lake itself
    #[arg(long, requires = "name", conflicts_with_all = ["plan", "maintain"])]
    pub(crate) orphans: bool,
    /// Only objects that are older, such as `3d` or `36h`: younger ones may be of a commit that is being made
    #[arg(long, value_name = "AGE", default_value = "3d", value_parser = age, requires = "orphans")]
    older_than: Duration,
    /// Remove them; without it nothing is changed
    #[arg(long, requires = "orphans")]
    remove: bool,
    /// At most so many in one run
    #[arg(long, value_name = "N", default_value_t = Policy::default().most, requires = "orphans")]
    limit: usize,
}

fn age(text: &str) -> Result<Duration, String> {
    let ms = parse_age(text).and_then(|ms| u64::try_from(ms).ok());
    ms.map(Duration::from_millis).ok_or_else(|| "write an age as 36h or 3d".to_owned())
}

/// Why orphans were not found or not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrphansError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("`{name}` is no name of a table: write it as `silver.events`")]
    NotATable { name: String },
    #[error("the orphans of {table} cannot be found")]
    Find { table: String, source: OrphanError },
    #[error("the removal of the orphans of {table} did not come to its end: the same command may be given again")]
    Remove { table: String, source: OrphanError },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for OrphansError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::NotATable { .. } | Self::Find { source: OrphanError::TooYoung { .. }, .. } => Exit::Usage,
            Self::Find { .. } | Self::Remove { .. } | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command: exit 1 when an orphan could not be removed, or was needed after all.
pub(crate) async fn run(name: &str, args: &OrphanArgs, place: &Place, as_json: bool) -> Result<Exit, OrphansError> {
    let Some((namespace, table)) = name.split_once('.') else {
        return Err(OrphansError::NotATable { name: name.to_owned() });
    };
    let ident = TableIdent::new(namespace, table);
    let lake = place.open().await?;
    let policy = Policy { older_than: args.older_than, most: args.limit };
    let found = orphans::find(&lake, &ident, &policy).await;
    let found = found.map_err(|source| OrphansError::Find { table: name.to_owned(), source })?;
    let mut removed = None;
    if args.remove {
        let done = orphans::remove(&lake, &ident, &found).await;
        removed = Some(done.map_err(|source| OrphansError::Remove { table: name.to_owned(), source })?);
    }
    if as_json {
        output::json(&json!({ "found": found, "removed": removed }))?;
    } else {
        output::text(&as_text(&found, removed.as_ref()))?;
    }
    let is_clean = removed.is_none_or(|done| done.failed.is_empty() && done.damaged.is_empty());
    Ok(if is_clean { Exit::Done } else { Exit::Failed })
}

fn as_text(found: &Report, removed: Option<&Removed>) -> String {
    let mut table = TextTable::new(["orphan", "size", "written"]).numbers([1]);
    for orphan in found.orphans.iter().take(LISTED) {
        let written = DateTime::from_timestamp_millis(orphan.modified_unix_ms);
        let written = written.map(|time| time.to_rfc3339()).unwrap_or_default();
        table.row([orphan.location.clone(), bytes(orphan.size_bytes), written]);
    }
    let mut text = if found.orphans.is_empty() { String::new() } else { table.render() };
    if found.orphans.len() > LISTED {
        text += &format!("and {} more, which --json lists\n", found.orphans.len() - LISTED);
    }
    let Report { listed, reachable, young, unknown, more, .. } = found;
    text += &format!(
        "{}: {listed} objects, {reachable} needed, {young} younger than the guard, {unknown} of other programs\n",
        found.table
    );
    text += &match removed {
        None if found.orphans.is_empty() => "no orphans\n".to_owned(),
        None => format!("{} orphans of {}; --remove removes them\n", found.orphans.len(), bytes(found.bytes())),
        Some(done) => format!("removed {} orphans of {}\n", done.removed, bytes(done.bytes)),
    };
    if *more > 0 {
        text += &format!("{more} more are left to the next run\n");
    }
    if let Some(Removed { kept, failed, damaged, .. }) = removed {
        for name in kept {
            text += &format!("needed since by a commit, and kept: {name}\n");
        }
        for name in failed {
            text += &format!("NOT removed: {name}\n");
        }
        for name in damaged {
            text += &format!("DAMAGED: a commit needs {name}, which was removed\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_and_what_is_wrong_is_said() {
        let found = Report { table: "silver.events".to_owned(), listed: 9, reachable: 4, more: 3, ..Report::default() };
        assert!(as_text(&found, None).ends_with("no orphans\n3 more are left to the next run\n"));
        let removed = Removed { removed: 1, damaged: vec!["x".to_owned()], ..Removed::default() };
        let text = as_text(&found, Some(&removed));
        assert!(text.starts_with("silver.events: 9 objects, 4 needed, "), "{text}");
        assert!(text.ends_with("DAMAGED: a commit needs x, which was removed\n"), "{text}");
    }

    #[test]
    fn an_age_needs_a_unit() {
        assert_eq!(age("36h"), Ok(Duration::from_secs(36 * 3_600)));
        assert!(age("36").is_err() && age("-3d").is_err());
    }
}
