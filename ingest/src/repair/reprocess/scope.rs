//! Which rows of a table are made again, and which messages that needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use event_schema::kind::RecordKind;
use lake::{ColumnRange, ScanFile, TableSnapshot, Value};
use tables::registry::{Content, Table};

use super::ledger::{self, FilesByDay, Landed, by_day};
use super::messages::{DAY_US, Messages};
use super::{ReprocessError, Target};
use crate::recover::around;

/// Which rows of a table are made again.
#[derive(Debug)]
pub(super) enum Scope {
    /// Those of the messages, which they name.
    Messages { kind: RecordKind },
    /// Partial aggregates name no message, and a rewrite mixes those of several commits: all of the days that hold
    /// events of the messages, made from every message that the table has landed with events of these days.
    Days { days: BTreeSet<i32>, landed: Messages },
}

impl Scope {
    pub(super) async fn of(
        table: &Table,
        head: &TableSnapshot,
        ledger: &TableSnapshot,
        messages: &Messages,
    ) -> Result<Self, ReprocessError> {
        match table.content {
            Content::Records(kind) => Ok(Self::Messages { kind }),
            Content::OpMinute => {
                let days = ledger::days(ledger, messages).await?;
                Ok(Self::Days { days, landed: Messages::all(head) })
            }
            // What the others are made of is not in bronze: which messages there were, and what became of them.
            Content::Messages | Content::Ledger | Content::DeadLetters => {
                Err(ReprocessError::NotRefined { table: table.def.name.to_string() })
            }
        }
    }

    pub(super) fn is_of_messages(&self) -> bool {
        matches!(self, Self::Messages { .. })
    }

    /// Whether rows of a message are made again. `messages`: those since the time that was given.
    pub(super) fn wants(&self, landed: &Landed, messages: &Messages) -> bool {
        match self {
            // A message has records of one kind.
            Self::Messages { kind } => landed.kind == *kind && messages.contains(&landed.at, landed.offset),
            // Also of messages before the time that was given: their share in the aggregates of the days goes too.
            Self::Days { days, landed: all } => {
                landed.kind == RecordKind::Event
                    && days.range(landed.days()).next().is_some()
                    && all.contains(&landed.at, landed.offset)
            }
        }
    }
}

/// The files of the ledger that may hold messages of which rows are made again.
pub(super) async fn files(ledger: &TableSnapshot, targets: &[Target]) -> Result<FilesByDay, ReprocessError> {
    let mut found: BTreeMap<String, Arc<ScanFile>> = BTreeMap::new();
    for target in targets {
        if let Some(wanted) = narrowed(target) {
            // By location, since two targets may need the same file.
            let files = ledger.plan(&wanted).await.map_err(ReprocessError::unread(ledger))?;
            found.extend(files.into_iter().map(|file| (file.location.clone(), file)));
        }
    }
    Ok(by_day(found.into_values()))
}

/// What narrows a scan of the ledger to the messages of a target; `None` when there are none.
fn narrowed(target: &Target) -> Option<Vec<ColumnRange>> {
    match &target.scope {
        // Without messages there are no bounds, and everything would be read.
        Scope::Messages { .. } => (!target.messages.is_empty()).then(|| around(&target.messages.spans())),
        Scope::Days { days, .. } => {
            let first_us = i64::from(*days.first()?).saturating_mul(DAY_US);
            let end_us = i64::from(*days.last()?).saturating_add(1).saturating_mul(DAY_US);
            // Messages that overlap the days: they end behind the first and begin before the last.
            Some(vec![
                ColumnRange::between("last_ts", Some(Value::Timestamptz(first_us)), None),
                ColumnRange::between("first_ts", None, Some(Value::Timestamptz(end_us))),
            ])
        }
    }
}

/// How many messages and rows of a target landed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(crate) messages: u64,
    pub(crate) rows: u64,
}

/// Counts the messages of a target, and their rows.
pub(super) async fn count(ledger: &TableSnapshot, target: &Target) -> Result<Count, ReprocessError> {
    let mut count = Count::default();
    for file in files(ledger, std::slice::from_ref(target)).await?.into_values().flatten() {
        ledger::read(ledger, &file, |landed| {
            if target.scope.wants(&landed, &target.messages) {
                count.messages += 1;
                count.rows += landed.landed.unsigned_abs();
            }
        })
        .await?;
    }
    Ok(count)
}
