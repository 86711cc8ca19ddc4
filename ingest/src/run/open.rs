//! Opening logs: where the tables stand on them and on the logs before them, and what was seen.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use event_schema::position::{NextOffset, TopicPartition};
use tables::registry::Content;

use super::Run;
use crate::error::IngestError;
use crate::former::{Occasion, Offsets, Standing, before, former_logs};
use crate::landed::Known;
use crate::reader::{Position, ToLog};
use crate::sink::SinkError;
use crate::table_task::TableTasks;

impl Run {
    /// Opens logs, each once no other member can land anything of the logs before it.
    pub(super) async fn open_settled(
        &mut self,
        logs: Vec<TopicPartition>,
        occasion: Occasion,
    ) -> Result<(), IngestError> {
        let drain = self.drain.clone();
        let former: Vec<_> = logs.iter().flat_map(former_logs).collect();
        let Some(found) = drain.run_until_cancelled(standing(&self.tables, &former)).await else { return Ok(()) };
        let found = found?;
        let now = Instant::now();
        let mut settled = Vec::new();
        for log in logs {
            if self.former.admit(&log, before(&log, &found), occasion, now) {
                settled.push(log);
            }
        }
        self.show_awaited();
        self.open(settled).await
    }

    /// Looks whether logs that wait can be opened.
    pub(super) async fn look_at_former(&mut self) -> Result<(), IngestError> {
        let waiting = self.former.logs();
        let former: Vec<_> = waiting.iter().flat_map(former_logs).collect();
        let drain = self.drain.clone();
        let Some(found) = drain.run_until_cancelled(standing(&self.tables, &former)).await else { return Ok(()) };
        let settled = self.former.look(&found?, Instant::now());
        if settled.is_empty() {
            return Ok(());
        }
        self.show_awaited();
        self.open(settled).await
    }

    /// Passes what is waited for to the reader, which keeps the condition of the log.
    pub(super) fn show_awaited(&self) {
        // A reader that has ended has put the reason into its events.
        let _ = self.commands.send(ToLog::Awaits(self.former.reason()));
    }

    /// Finds where the tables stand on logs, rebuilds what was seen before that, and starts the reader there.
    async fn open(&mut self, logs: Vec<TopicPartition>) -> Result<(), IngestError> {
        if logs.is_empty() {
            return Ok(());
        }
        let drain = self.drain.clone();
        // Nothing of these logs is buffered: when ingest is to end, a catalog that is away is not waited for.
        let Some(found) = drain.run_until_cancelled(self.take_over(&logs)).await else { return Ok(()) };
        let (next, mut known) = found?;
        self.forget_homes();
        let mut positions = Vec::new();
        for (at, next) in next {
            let mut memory = known.seen.remove(&at).unwrap_or_default();
            // An agent may repeat in the new log what the former one held: duplicates are found across the logs of a
            // partition.
            for former in former_logs(&at) {
                memory.seen.extend(&known.seen.remove(&former).unwrap_or_default().seen);
            }
            self.seen.insert(at.clone(), memory);
            let mark = known.marks.remove(&at);
            self.ownership.open(at.clone(), next, mark.is_some());
            // A table that is new begins wherever the log begins. Of the others none may miss what lies above the
            // lowest offset.
            let seen_by = self.tables.standings().filter(|(_, standing)| !standing.is_new(&at));
            let held = seen_by.map(|(_, standing)| standing.next(&at)).min();
            positions.push(Position { mark, at, next, held, identity: None });
        }
        self.commands.send(ToLog::Start(positions)).map_err(|_| IngestError::ReaderGone)
    }

    /// Where the tables stand on logs, and what is known of them and of those before them in their partitions.
    async fn take_over(
        &mut self,
        logs: &[TopicPartition],
    ) -> Result<(BTreeMap<TopicPartition, NextOffset>, Known), IngestError> {
        let former: Vec<_> = logs.iter().flat_map(former_logs).collect();
        let all: Vec<_> = logs.iter().chain(&former).cloned().collect();
        // One reading of each table for all logs.
        self.tables.take_over(&all).await?;
        // Before the rest: the gaps of former logs land, so that they end at one offset in all tables.
        let ends = self.close(&former).await?;
        let next: BTreeMap<_, _> = logs.iter().map(|at| (at.clone(), self.tables.landed_up_to(at))).collect();
        let known = self.history.look_up(&next.clone().into_iter().chain(ends).collect()).await?;
        // Only where messages are forwarded can one have failed to be.
        if self.residents.is_some() {
            let decided = self.held_by(Content::Ledger, &next);
            self.refused.extend(self.history.refused(&decided).await?);
        }
        let arrived = self.held_by(Content::Messages, &next);
        self.arrived.extend(self.history.arrival_times(&arrived).await?);
        Ok((next, known))
    }

    /// The offsets that are read again although the table with this content holds them.
    fn held_by(
        &self,
        content: Content,
        next: &BTreeMap<TopicPartition, NextOffset>,
    ) -> BTreeMap<TopicPartition, Range<i64>> {
        let mut held = BTreeMap::new();
        for (at, next) in next {
            // Reading resumes at the lowest offset of all tables: up to its own, this one holds what is read again.
            let range = next.0..self.tables.next_of(content, at).map_or(0, |held| held.0);
            if !range.is_empty() {
                held.insert(at.clone(), range);
            }
        }
        held
    }

    /// Ends the former logs of partitions in every table: what some table has landed of them and another has not can be
    /// read nowhere any more, and is a gap of that table. Returns where they end.
    async fn close(&mut self, former: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, NextOffset>, IngestError> {
        let mut ends = BTreeMap::new();
        for at in former {
            // The table that is furthest on has the most of a log that cannot be read any more.
            let end = self.tables.standings().map(|(_, standing)| standing.next(at)).max().unwrap_or_default();
            for (table, standing) in self.tables.standings().filter(|(_, standing)| standing.next(at) < end) {
                let next = standing.next(at);
                tracing::warn!(%at, table, from = next.0, to = end.0, "the table misses the end of a log that is gone; it records a gap");
                // `end` is the maximum of all tables: it lies behind `next` here.
                self.metrics.gap_offsets.inc_by((end.0 - next.0).unsigned_abs());
                standing.skip_to(at, end);
                self.ownership.close(at, end);
            }
            ends.insert(at.clone(), end);
        }
        // The gaps land as ends of a batch without messages; `Ownership::ends` has them until then.
        if self.ownership.is_closing() {
            self.land_all().await?;
            self.ownership.closed();
        }
        self.tables.give_up(former);
        Ok(ends)
    }
}

/// Where each table stands on former logs now.
async fn standing(tables: &TableTasks, former: &[TopicPartition]) -> Result<Standing, SinkError> {
    let mut found = Standing::new();
    if former.is_empty() {
        return Ok(found);
    }
    tables.take_over(former).await?;
    for at in former {
        let offsets = tables.standings().map(|(table, standing)| (table, standing.next(at)));
        found.insert(at.clone(), Offsets::from_iter(offsets));
    }
    // Only looked at: a former log is not among the partitions that are read.
    tables.give_up(former);
    Ok(found)
}
