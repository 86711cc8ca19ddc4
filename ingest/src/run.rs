//! The task that holds ingest together. It takes what the reader brings, closes a batch every interval and posts it to
//! the tables, and gives partitions up when the group revokes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::Attachment;
use service_kit::clock::Clock;
use service_kit::run::Drain;
use tables::arrival::{Arrival, Skipped};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::{JoinError, JoinHandle};

use crate::batch::{BatchBuffer, Budget, Charged};
use crate::checkpoint;
use crate::dead_letter::DeadLetters;
use crate::dispatch::{Closed, DispatchError, Forward, dispatch};
use crate::error::IngestError;
use crate::former::{Former, Occasion};
use crate::home::{Moved, Residents};
use crate::landed::Tables;
use crate::metrics::{Metrics, PartitionLabel};
use crate::options::{Options, Until};
use crate::ownership::{Admission, Hole, OpenLog, Ownership};
use crate::reader::{FromLog, ToLog};
use crate::recover::{Elsewhere, Memory, Places};
use crate::sink::Sink;
use crate::table_task::{Pace, Report, TableTasks, Urgency};

mod open;

type Dispatched = Result<Vec<Arrival>, DispatchError>;

/// What a run has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Messages that were taken, dead letters among them.
    pub messages: u64,
    /// Rows that were new.
    pub rows: u64,
    /// Rows that an earlier message carried.
    pub duplicate_rows: u64,
    /// Messages that became dead letters.
    pub rejected: u64,
    /// Batches with messages that were closed.
    pub batches: u64,
}

/// Tables that are open, and what a run works with besides.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) sinks: Vec<Sink>,
    pub(crate) tables: Tables,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dead_letters: DeadLetters,
    /// Absent where the log is the spool: an agent and an import keep to one partition there.
    pub(crate) residents: Option<Residents>,
    pub(crate) metrics: Metrics,
}

pub(crate) struct Run {
    tables: Arc<TableTasks>,
    reports: UnboundedReceiver<Report>,
    /// What the tables hold, for logs that are opened.
    history: Tables,
    options: Options,
    clock: Arc<dyn Clock>,
    dead_letters: DeadLetters,
    residents: Option<Residents>,
    metrics: Metrics,
    budget: Budget,
    commands: Sender<ToLog>,
    drain: Drain,
    buffer: BatchBuffer,
    /// The batch that was closed last, until it has been posted to the tables.
    dispatch: Option<JoinHandle<Dispatched>>,
    /// Cancelled when the run is dropped: what is still landing ends with it.
    abandoned: Drain,
    ownership: Ownership,
    /// Logs that are not read yet, because of the logs before them.
    former: Former,
    seen: HashMap<TopicPartition, Memory>,
    /// Messages that are read again and are dead letters in `ops.ledger` because they could not be forwarded.
    refused: Places,
    /// When messages that are read again were read first, unix microseconds.
    arrived: BTreeMap<(TopicPartition, i64), i64>,
    summary: Summary,
}

impl Run {
    /// Starts the tasks of the tables.
    pub(crate) fn new(opened: Opened, budget: Budget, commands: Sender<ToLog>, drain: Drain) -> Self {
        let Opened { sinks, tables: history, options, clock, dead_letters, residents, metrics } = opened;
        let abandoned = Drain::new();
        let pace =
            Pace { commit_interval: options.commit_interval, idle_commit_interval: options.idle_commit_interval };
        let (tables, reports) = TableTasks::start(sinks, pace, &abandoned);
        Self {
            tables: Arc::new(tables),
            reports,
            history,
            options,
            clock,
            dead_letters,
            residents,
            metrics,
            budget,
            commands,
            drain,
            buffer: BatchBuffer::default(),
            dispatch: None,
            abandoned,
            ownership: Ownership::default(),
            former: Former::new(options.former_owner),
            seen: HashMap::new(),
            refused: Places::new(),
            arrived: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    /// Reads until drained or caught up, and lands everything read.
    pub(crate) async fn run_to_end(mut self, mut log: Receiver<FromLog>) -> Result<Summary, IngestError> {
        loop {
            // One batch is dispatched at a time, so that every table gets its shares in the order of the log.
            let due = self.due().filter(|_| self.dispatch.is_none());
            let look = self.former.due().filter(|_| self.dispatch.is_none());
            // The order of the branches is their priority (`biased`). The log comes last: events of a busy log are
            // always there, and would keep the batch from being closed.
            tokio::select! {
                biased;
                () = self.drain.cancelled() => break,
                done = wait(&mut self.dispatch), if self.dispatch.is_some() => self.dispatched(done)?,
                Some(report) = self.reports.recv() => self.take_reports(report)?,
                () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now).into()), if look.is_some() => {
                    self.look_at_former().await?;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.close_batch(Urgency::ByPolicy);
                }
                event = log.recv() => {
                    let is_idle = matches!(event, Some(FromLog::Idle));
                    self.take(event.ok_or(IngestError::ReaderGone)?).await?;
                    if is_idle && self.is_caught_up() {
                        break;
                    }
                }
            }
        }
        self.end().await?;
        Ok(self.summary)
    }

    /// Lands everything that was read, and ends the tasks of the tables.
    async fn end(&mut self) -> Result<(), IngestError> {
        // What is still buffered, and the offsets of tables that had no rows for a while: the next start need not read
        // it again.
        self.land_all().await?;
        // No dispatch holds the tables any more, since `land_all` has waited for it.
        if let Some(tables) = Arc::get_mut(&mut self.tables) {
            tables.close().await;
        }
        // After the tables: `ops.dlq` is the record, the topic is not.
        self.dead_letters.flush();
        Ok(())
    }

    /// When the batch must be closed; `None` when nothing is buffered.
    fn due(&self) -> Option<Instant> {
        let opened = self.buffer.opened()?;
        let is_full = self.buffer.bytes() >= self.budget.batch_bytes() || self.budget.is_exhausted();
        // A time that is past: a full batch is closed in the next turn. A budget can be used up by what tables hold
        // while the buffer is small; the batch then carries the urgency that frees it (`close_batch`).
        Some(if is_full { opened } else { opened + self.options.commit_interval })
    }

    fn is_caught_up(&self) -> bool {
        self.options.until == Until::CaughtUp && self.former.is_empty() && self.ownership.is_caught_up()
    }

    async fn take(&mut self, event: FromLog) -> Result<(), IngestError> {
        match event {
            FromLog::Assigned(partitions) => self.assigned(partitions).await,
            FromLog::Revoked(partitions) => self.revoked(&partitions).await,
            FromLog::Replaced(at) => self.replaced(at).await,
            FromLog::Started { at, begin, identity, high } => {
                self.started(at, begin, OpenLog { identity, high, since: Instant::now() }).await
            }
            FromLog::Arrivals(arrivals) => {
                let drain = self.drain.clone();
                // Nothing of these is buffered yet: when ingest is to end, a catalog that is away is not waited for.
                let Some(met) = drain.run_until_cancelled(self.meet(&arrivals)).await else { return Ok(()) };
                met?;
                let admitted = arrivals.into_iter().try_for_each(|arrival| self.admit(arrival));
                self.show_buffered();
                admitted
            }
            FromLog::Skipped(range) => self.skipped(range),
            FromLog::Undecided(undecided) => {
                for (at, offsets) in undecided {
                    let offsets = i64::try_from(offsets).unwrap_or(i64::MAX);
                    self.metrics.undecided_offsets.get_or_create(&PartitionLabel::of(&at)).set(offsets);
                }
                Ok(())
            }
            FromLog::Idle => Ok(()),
            FromLog::Failed(error) if error.is_other_log() => {
                // What was read of the log that is gone is nowhere else.
                self.land_all().await?;
                Err(error.into())
            }
            FromLog::Failed(error) => Err(error.into()),
        }
    }

    /// Partitions, by their names in the log, are read from now on: as the newest log that the tables have of each.
    async fn assigned(&mut self, partitions: Vec<TopicPartition>) -> Result<(), IngestError> {
        let drain = self.drain.clone();
        // Nothing of them is buffered: when ingest is to end, a catalog that is away is not waited for.
        let Some(logs) = drain.run_until_cancelled(self.history.newest_logs(&partitions)).await else { return Ok(()) };
        self.open_settled(logs?, Occasion::Assigned).await
    }

    /// The log behind a partition is another one: what was read of the former one lands, and the other is read from its
    /// oldest message on, under a name of its own.
    async fn replaced(&mut self, at: TopicPartition) -> Result<(), IngestError> {
        self.land_all().await?;
        // Offsets of a new log begin at 0 again: under the old name they would count as landed.
        let next = at.of_generation(at.generation() + 1);
        tracing::warn!(former = %at, now = %next, "the log was replaced; the new one is read under a name of its own");
        // Read before the partition is given up, which discards it.
        let read_since = self.ownership.read_since(&at);
        self.give_up(std::slice::from_ref(&at));
        self.open_settled(vec![next], Occasion::Replaced { read_since }).await
    }

    /// The reader has begun at `begin`, or behind where the tables stand when the log holds no more than that.
    async fn started(&mut self, at: TopicPartition, begin: NextOffset, log: OpenLog) -> Result<(), IngestError> {
        if let Some(next) = self.ownership.gap_before(&at, begin) {
            self.skip_to(&at, next, begin).await?;
        }
        if self.ownership.started(&at, log) {
            tracing::info!(%at, offset = begin.0, "reading begins");
            // Not before: until the log is known to be the one that was read, its offsets may be those of another.
            self.metrics.next_offset.get_or_create(&PartitionLabel::of(&at)).set(self.tables.landed_up_to(&at).0);
        }
        Ok(())
    }

    /// Goes on at `begin`, which lies behind `next`, where reading was to go on: the offsets in between are a gap in
    /// every table that has not landed them.
    async fn skip_to(&mut self, at: &TopicPartition, next: NextOffset, begin: NextOffset) -> Result<(), IngestError> {
        // What was read before the gap lands first: a batch has no holes.
        self.land_all().await?;
        self.ownership.skip_to(at, begin);
        tracing::warn!(%at, from = next.0, to = begin.0, "the log does not hold these offsets; tables without them record a gap");
        // `gap_before` has found `begin` behind `next`.
        self.metrics.gap_offsets.inc_by((begin.0 - next.0).unsigned_abs());
        self.tables.standings().for_each(|(_, standing)| standing.skip_to(at, begin));
        // Some table may have landed what others miss: its messages were seen all the same.
        let next = BTreeMap::from([(at.clone(), begin)]);
        let Some(known) = self.drain.run_until_cancelled(self.history.look_up(&next)).await else { return Ok(()) };
        let found = known?.seen.remove(at).unwrap_or_default();
        match self.seen.get_mut(at) {
            // What was seen of former logs stays known.
            Some(memory) => memory.seen.extend(&found.seen),
            None => drop(self.seen.insert(at.clone(), found)),
        }
        self.forget_homes();
        Ok(())
    }

    /// What was seen of some partition is another memory now: what landed of moved lanes elsewhere must be read into it
    /// again.
    fn forget_homes(&mut self) {
        if let Some(residents) = &mut self.residents {
            residents.forget();
        }
    }

    /// Partitions, by their names in the log, are no longer ours. What was read of them lands all the same: when the
    /// topic was deleted it is nowhere else. Of one log the offsets decide between us and the next owner; before that
    /// one reads a new log it waits for us ([`Former`]).
    async fn revoked(&mut self, partitions: &[TopicPartition]) -> Result<(), IngestError> {
        for at in partitions {
            tracing::info!(%at, "partition revoked");
        }
        self.former.forget(partitions);
        self.show_awaited();
        // Rows only: a table without rows that stays behind costs the next owner some reading, and no row.
        self.land(Urgency::Rows).await?;
        let logs = self.ownership.logs_of(partitions);
        self.give_up(&logs);
        Ok(())
    }

    /// Forgets logs of which nothing is buffered or landing.
    fn give_up(&mut self, logs: &[TopicPartition]) {
        self.tables.give_up(logs);
        self.ownership.give_up(logs);
        self.forget_homes();
        self.refused.retain(|(log, _)| !logs.contains(log));
        self.arrived.retain(|(log, _), _| !logs.contains(log));
        for at in logs {
            self.seen.remove(at);
            // Another member shows the partition from now on: a gauge that stays would show a lag that only grows.
            self.metrics.next_offset.remove(&PartitionLabel::of(at));
            self.metrics.undecided_offsets.remove(&PartitionLabel::of(at));
        }
    }

    /// Finds the homes of agents' runs that these are the first messages of.
    async fn meet(&mut self, arrivals: &[Charged]) -> Result<(), IngestError> {
        let Some(residents) = &mut self.residents else { return Ok(()) };
        let moved = residents.meet(arrivals.iter().map(|charged| &charged.arrival)).await?;
        // What other members have moved concerns the partitions that they read.
        let is_ours = |moved: &Moved| self.seen.keys().any(|at| at.without_generation() == moved.at);
        let ours: Vec<Moved> = moved.into_iter().filter(is_ours).collect();
        if ours.is_empty() {
            return Ok(());
        }
        for Elsewhere { home, stream, rows } in self.history.landed_elsewhere(&ours).await? {
            for (_, memory) in self.seen.iter_mut().filter(|(at, _)| at.without_generation() == home) {
                memory.seen.note(stream.clone(), rows.start, rows.end);
            }
        }
        Ok(())
    }

    /// Decides what of a message is new, or that it belongs to another partition.
    fn judge(&mut self, mut arrival: Arrival) -> Arrival {
        let place = (arrival.message.at.clone(), arrival.message.offset);
        // Rows are a function of the message (ADR 40): a message that is read again keeps the time of its first
        // arrival.
        if let Some(arrived_us) = self.arrived.remove(&place) {
            arrival.arrived_us = arrived_us;
        }
        let header = arrival.header();
        let home = header.and_then(|header| self.residents.as_ref()?.home_of(header));
        // Before its rows are compared: those of a stray are not noted as seen here, because they land from the copy at
        // its home.
        if let Some(home) = home.filter(|home| **home != place.0.without_generation()).cloned() {
            return arrival.forward(home);
        }
        // Deduplication, in log order. `open` has put a memory there for every partition that is read.
        match self.seen.get_mut(&place.0) {
            Some(memory) => arrival.admit(&mut memory.seen),
            None => arrival,
        }
    }

    fn admit(&mut self, charged: Charged) -> Result<(), IngestError> {
        let message = &charged.arrival.message;
        match self.ownership.admit(message) {
            Admission::Take => {}
            Admission::Drop => return Ok(()),
            Admission::Hole { expected } => {
                let at = message.at.clone();
                return Err(IngestError::Hole { at, expected: expected.0, offset: message.offset });
            }
        }
        let charged = charged.map(|arrival| self.judge(arrival));
        self.count(&charged.arrival);
        self.buffer.add(charged);
        Ok(())
    }

    fn count(&mut self, arrival: &Arrival) {
        let rows = arrival.fresh_rows();
        let announced = arrival.header().filter(|_| arrival.forwarded_to.is_none());
        // Fresh rows are a part of the rows of the header, so that the difference is never negative. A stray has
        // neither.
        let duplicates = announced.map_or(0, |header| u64::from(header.rows)) - rows;
        self.metrics.messages.inc();
        self.metrics.payload_bytes.inc_by(arrival.message.payload.len() as u64);
        self.metrics.rows.inc_by(rows);
        self.metrics.duplicate_rows.inc_by(duplicates);
        self.summary.messages += 1;
        self.summary.rows += rows;
        self.summary.duplicate_rows += duplicates;
        self.reject(arrival);
    }

    /// Sends a message that did not decode, or could not be forwarded, to the dead letters.
    fn reject(&mut self, arrival: &Arrival) {
        if let Err(rejection) = &arrival.outcome {
            self.summary.rejected += 1;
            self.dead_letters.take(arrival, rejection);
        }
    }

    /// Passes offsets that hold no message; `ops.ledger` has a row of them.
    fn skipped(&mut self, range: OffsetRange) -> Result<(), IngestError> {
        let passed = self.ownership.pass(range);
        let passed =
            passed.map_err(|Hole { at, expected, offset }| IngestError::Hole { at, expected: expected.0, offset })?;
        if let Some(range) = passed {
            self.metrics.skipped_offsets.inc_by(range.len());
            self.buffer.skip(Skipped { range, arrived_us: self.now_us() });
        }
        Ok(())
    }

    fn now_us(&self) -> i64 {
        self.clock.now_ns().div_euclid(1_000)
    }

    /// Lands everything that was read.
    async fn land_all(&mut self) -> Result<(), IngestError> {
        self.land(Urgency::All).await
    }

    /// Lands what was read, and waits for it.
    async fn land(&mut self, urgency: Urgency) -> Result<(), IngestError> {
        // The batch before comes first, since one is dispatched at a time. Then this one is posted and landed.
        self.settle().await?;
        self.close_batch(urgency);
        self.settle().await?;
        let settled = self.tables.settled().await;
        while let Ok(report) = self.reports.try_recv() {
            self.take_reports(report)?;
        }
        self.show_buffered();
        // After the reports: the report of a table that failed has the reason.
        settled.map_err(|_| IngestError::TableGone)
    }

    /// Closes the batch, and begins to hand it to the tables.
    fn close_batch(&mut self, urgency: Urgency) {
        // Backpressure: tables that wait by their policy hold memory. Above half of the budget every table with rows
        // commits.
        let urgency = if self.budget.has_room() { urgency } else { urgency.max(Urgency::Rows) };
        // The ends of all partitions, also of quiet ones: tables without rows follow them.
        let batch = self.buffer.take(self.ownership.ends());
        self.summary.batches += u64::from(!batch.arrivals.is_empty());
        let forwarder = self.residents.as_ref().map(Residents::forwarder);
        let closed = Closed {
            marks: self.ownership.marks(),
            checkpoints: self.checkpoints(&batch.ends),
            begins: self.ownership.begins(),
            forward: Forward { forwarder, refused: self.refused.clone() },
            batch,
            urgency,
        };
        self.dispatch = Some(tokio::spawn(dispatch(Arc::clone(&self.tables), closed, self.abandoned.clone())));
    }

    /// The checkpoints that are due.
    fn checkpoints(&mut self, ends: &BTreeMap<TopicPartition, NextOffset>) -> Vec<Attachment> {
        let mut drafts = Vec::new();
        for (at, end) in ends {
            let Some(memory) = self.seen.get_mut(at) else { continue };
            // The buffer has just been taken: what was seen is that of the messages below `end`, neither more nor less.
            let kept = memory.checkpoint.map_or(0, |next| next.0);
            if end.0 - kept < i64::from(self.options.checkpoint_every) {
                continue;
            }
            match checkpoint::draft(at, *end, &memory.seen) {
                Ok(draft) => {
                    // Taken as kept although it has not landed: where its commit is lost, the next one follows an
                    // interval later, and recovery reads more of the ledger.
                    memory.checkpoint = Some(*end);
                    drafts.push(draft);
                }
                Err(error) => tracing::warn!(%error, %at, "no checkpoint is kept"),
            }
        }
        drafts
    }

    fn show_buffered(&self) {
        self.metrics.buffered_bytes.set(i64::try_from(self.budget.used_bytes()).unwrap_or(i64::MAX));
    }

    /// Waits until the batch that was closed last is with the tables.
    async fn settle(&mut self) -> Result<(), IngestError> {
        if self.dispatch.is_some() {
            let done = wait(&mut self.dispatch).await;
            self.dispatched(done)?;
        }
        Ok(())
    }

    fn dispatched(&mut self, done: Result<Dispatched, JoinError>) -> Result<(), IngestError> {
        self.dispatch = None;
        match done.map_err(IngestError::Dispatch)? {
            Ok(refused) => refused.iter().for_each(|arrival| self.reject(arrival)),
            Err(_) => {
                // The task of a table has ended: its report has the reason, and `TableGone` stands where there is none.
                while let Ok(report) = self.reports.try_recv() {
                    self.take_reports(report)?;
                }
                return Err(IngestError::TableGone);
            }
        }
        Ok(())
    }

    /// Takes a report, and those that have come since.
    fn take_reports(&mut self, first: Report) -> Result<(), IngestError> {
        let mut next = Some(first);
        while let Some(report) = next {
            if let Report::Failed(error) = report {
                return Err(error.into());
            }
            next = self.reports.try_recv().ok();
        }
        self.show_buffered();
        let mut positions = Vec::new();
        for (at, is_open) in self.ownership.partitions() {
            // The lowest offset of all tables: below it the log is needed by none.
            let next = self.tables.landed_up_to(at);
            if is_open {
                self.metrics.next_offset.get_or_create(&PartitionLabel::of(at)).set(next.0);
            }
            positions.push((at.clone(), next));
        }
        // A reader that has ended at the end of ingest needs no positions: they serve lag tools and the deletion of
        // spool segments.
        let _ = self.commands.send(ToLog::Landed(positions));
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.abandoned.cancel();
    }
}

async fn wait(dispatch: &mut Option<JoinHandle<Dispatched>>) -> Result<Dispatched, JoinError> {
    match dispatch {
        Some(dispatch) => dispatch.await,
        // The branch of `select!` is off then; should it be polled all the same, it never completes.
        None => std::future::pending().await,
    }
}
