//! Logs are opened: where the tables stand on them and on those before them, and what was seen.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use event_schema::position::{NextOffset, TopicPartition};
use futures::future::try_join_all;

use super::Run;
use crate::flush::LEDGER;
use crate::former::{Offsets, Standing, before, former_logs};
use crate::landed::Known;
use crate::reader::{Position, ToLog};
use crate::reading::Reading;
use crate::service::IngestError;

impl Run {
    /// Opens logs, each once no other member can land anything of the logs before it. `have_landed` says whether the tables
    /// have seen those that are not first, `read_since` when this process began to read the log before.
    pub(super) async fn open_settled(
        &mut self,
        logs: Vec<TopicPartition>,
        have_landed: bool,
        read_since: Option<Instant>,
    ) -> Result<(), IngestError> {
        let drain = self.drain.clone();
        let former: Vec<_> = logs.iter().flat_map(former_logs).collect();
        let Some(standing) = drain.run_until_cancelled(self.standing(&former)).await else { return Ok(()) };
        let (standing, now) = (standing?, Instant::now());
        let mut settled = Vec::new();
        for log in logs {
            if self.former.admit(&log, before(&log, &standing), have_landed, read_since, now) {
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
        let Some(standing) = drain.run_until_cancelled(self.standing(&former)).await else { return Ok(()) };
        let settled = self.former.look(&standing?, Instant::now());
        if settled.is_empty() {
            return Ok(());
        }
        self.show_awaited();
        self.open(settled).await
    }

    /// Where each table stands on former logs now.
    async fn standing(&mut self, former: &[TopicPartition]) -> Result<Standing, IngestError> {
        if former.is_empty() {
            return Ok(Standing::new());
        }
        try_join_all(self.sinks.iter_mut().flatten().map(|sink| sink.take_over(former))).await?;
        let tables = |at| self.sinks.iter().flatten().map(|sink| (sink.name(), sink.next(at))).collect::<Offsets>();
        let standing = former.iter().map(|at| (at.clone(), tables(at))).collect();
        self.sinks.iter_mut().flatten().for_each(|sink| sink.give_up(former));
        Ok(standing)
    }

    /// Has the reader show what is waited for, as it keeps the condition of the log.
    pub(super) fn show_awaited(&self) {
        // Why a reader is gone is among its events.
        let _ = self.commands.send(ToLog::Awaits(self.former.reason()));
    }

    /// Finds where the tables stand on logs, rebuilds what was seen before that, and starts the reader there.
    async fn open(&mut self, logs: Vec<TopicPartition>) -> Result<(), IngestError> {
        if logs.is_empty() {
            return Ok(());
        }
        let drain = self.drain.clone();
        let Some(found) = drain.run_until_cancelled(self.take_over(&logs)).await else { return Ok(()) };
        let (next, mut known) = found?;
        self.forget_homes();
        let mut positions = Vec::new();
        for (at, next) in next {
            let mut memory = known.seen.remove(&at).unwrap_or_default();
            for former in former_logs(&at) {
                memory.seen.extend(&known.seen.remove(&former).unwrap_or_default().seen);
            }
            self.seen.insert(at.clone(), memory);
            let mark = known.marks.remove(&at);
            self.partitions.insert(at.clone(), Reading::new(next, mark.is_some()));
            let seen_by = self.sinks.iter().flatten().filter(|sink| !sink.is_new(&at));
            let held = seen_by.map(|sink| sink.next(&at)).min();
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
        for sink in self.sinks.iter_mut().flatten() {
            sink.take_over(logs).await?;
            sink.take_over(&former).await?;
        }
        let ends = self.close(&former).await?;
        let next: BTreeMap<_, _> = logs.iter().map(|at| (at.clone(), self.landed_up_to(at))).collect();
        let known = self.tables.look_up(&next.clone().into_iter().chain(ends).collect()).await?;
        if self.residents.is_some() {
            let ranges = self.decided(&next);
            self.refused.extend(self.tables.refused(&ranges).await?);
        }
        Ok((next, known))
    }

    /// The offsets that are read again although `ops.ledger` has what became of them.
    fn decided(&self, next: &BTreeMap<TopicPartition, NextOffset>) -> BTreeMap<TopicPartition, Range<i64>> {
        let ledger = self.sinks.iter().flatten().find(|sink| sink.name() == LEDGER);
        let range = |(at, next): (&TopicPartition, &NextOffset)| {
            let decided = next.0..ledger.map_or(0, |ledger| ledger.next(at).0);
            (!decided.is_empty()).then(|| (at.clone(), decided))
        };
        next.iter().filter_map(range).collect()
    }

    /// Ends the former logs of partitions in every table: what some table has landed of them and another has not can be read
    /// nowhere any more, and is a gap of that table. Returns where they end.
    async fn close(&mut self, former: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, NextOffset>, IngestError> {
        let mut ends = BTreeMap::new();
        for at in former {
            let end = self.sinks.iter().flatten().map(|sink| sink.next(at)).max().unwrap_or_default();
            for sink in self.sinks.iter_mut().flatten().filter(|sink| sink.is_behind(at, end)) {
                tracing::warn!(%at, table = sink.name(), from = sink.next(at).0, to = end.0, "the table misses the end of a log that is gone; it records a gap");
                self.metrics.gap_offsets.inc_by((end.0 - sink.next(at).0).unsigned_abs());
                sink.skip_to(at, end);
                self.closing.insert(at.clone(), end);
            }
            ends.insert(at.clone(), end);
        }
        if !self.closing.is_empty() {
            self.land_all().await?;
            self.closing.clear();
        }
        self.sinks.iter_mut().flatten().for_each(|sink| sink.give_up(former));
        Ok(ends)
    }
}
