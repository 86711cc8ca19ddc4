//! The task that holds ingest together: takes what the reader brings, closes a batch every interval, lands it in all tables at
//! once while the next is being collected, and hands partitions over when the group says so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, OffsetRange, TopicPartition};
use lake::Attachment;
use service_kit::clock::Clock;
use service_kit::run::Drain;
use tables::arrival::Arrival;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use crate::checkpoint;
use crate::dead_letter::DeadLetters;
use crate::flush::{Destination, Flushed, Forward, Landed, Notes, flush};
use crate::former::Former;
use crate::hand::{Batch, Budget, Hand};
use crate::home::{Moved, Residents};
use crate::landed::Tables;
use crate::metrics::{Metrics, PartitionLabel};
use crate::note::Note;
use crate::reader::{FromLog, ToLog};
use crate::reading::{OpenLog, Reading, begins};
use crate::recover::{Elsewhere, Memory, Places};
use crate::service::{Ingest, IngestError, Options, Summary, Until};
use crate::sink::{Landing, Sink};

mod open;

pub(crate) struct Run {
    /// Absent while a batch lands: the flush has them.
    sinks: Option<Vec<Sink>>,
    tables: Tables,
    options: Options,
    clock: Arc<dyn Clock>,
    dead_letters: DeadLetters,
    residents: Option<Residents>,
    metrics: Metrics,
    budget: Budget,
    commands: Sender<ToLog>,
    drain: Drain,
    hand: Hand,
    flush: Option<JoinHandle<Flushed>>,
    /// Cancelled when the run is dropped: what is landing ends with it.
    abandoned: Drain,
    partitions: BTreeMap<TopicPartition, Reading>,
    /// Logs that are not read yet, because of the logs before them.
    former: Former,
    /// Former logs of partitions whose end some table misses; their gaps land with the next batch.
    closing: BTreeMap<TopicPartition, NextOffset>,
    seen: HashMap<TopicPartition, Memory>,
    /// Messages that are read again and are dead letters in `ops.ledger` because they could not be forwarded.
    refused: Places,
    /// Since when some table has not been committed up to what was read.
    behind_since: Option<Instant>,
    summary: Summary,
}

impl Run {
    pub(crate) fn new(ingest: Ingest, budget: Budget, commands: Sender<ToLog>, drain: Drain) -> Self {
        let Ingest { sinks, tables, options, clock, dead_letters, residents, metrics, .. } = ingest;
        Self {
            sinks: Some(sinks),
            tables,
            options,
            clock,
            dead_letters,
            residents,
            metrics,
            budget,
            commands,
            drain,
            hand: Hand::default(),
            flush: None,
            abandoned: Drain::new(),
            partitions: BTreeMap::new(),
            former: Former::new(options.former_owner),
            closing: BTreeMap::new(),
            seen: HashMap::new(),
            refused: Places::new(),
            behind_since: None,
            summary: Summary::default(),
        }
    }

    /// Reads until drained or caught up, and lands everything read.
    pub(crate) async fn run_to_end(mut self, mut log: Receiver<FromLog>) -> Result<Summary, IngestError> {
        loop {
            let (due, look) = (self.due(), self.former.due());
            tokio::select! {
                biased;
                () = self.drain.cancelled() => break,
                done = wait(&mut self.flush), if self.flush.is_some() => self.landed(done)?,
                () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now).into()), if look.is_some() && self.flush.is_none() => {
                    self.look_at_former().await?;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() && self.flush.is_none() => {
                    self.land(self.options.idle_commit_interval);
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
        // What is still in hand, and the offsets of tables that had no rows for a while.
        self.land_all().await?;
        self.dead_letters.flush();
        Ok(self.summary)
    }

    /// When the batch in hand must be landed; with none, when tables that saw nothing of the last batches must follow.
    fn due(&self) -> Option<Instant> {
        let Some(opened) = self.hand.opened() else {
            return self.behind_since.map(|since| since + self.options.idle_commit_interval);
        };
        let is_full = self.hand.bytes() >= self.budget.batch_bytes();
        Some(if is_full { opened } else { opened + self.options.commit_interval })
    }

    fn is_caught_up(&self) -> bool {
        let all_read = || self.partitions.values().all(|p| p.log.as_ref().is_some_and(|log| p.next >= log.high));
        self.options.until == Until::CaughtUp && self.former.is_empty() && all_read()
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
                self.tell_in_hand();
                let drain = self.drain.clone();
                // Nothing of these is in hand yet: when ingest is to end, a catalog that is away is not waited for.
                let Some(met) = drain.run_until_cancelled(self.meet(&arrivals)).await else { return Ok(()) };
                met?;
                let admitted = arrivals.into_iter().try_for_each(|arrival| self.admit(arrival));
                self.tell_in_hand();
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

    /// Lands everything in hand.
    async fn land_all(&mut self) -> Result<(), IngestError> {
        self.settle().await?;
        self.land(Duration::ZERO);
        self.settle().await
    }

    /// Partitions, by their names in the log, are read from now on: as the newest log that the tables know of each.
    async fn assigned(&mut self, partitions: Vec<TopicPartition>) -> Result<(), IngestError> {
        self.settle().await?;
        let drain = self.drain.clone();
        // Nothing of them is in hand: when ingest is to end, a catalog that is away is not waited for.
        let Some(logs) = drain.run_until_cancelled(self.tables.newest_logs(&partitions)).await else { return Ok(()) };
        self.open_settled(logs?, true, None).await
    }

    /// The log behind a partition is another one: what was read of the former one lands, and the other is read from its oldest
    /// message on, under a name of its own.
    async fn replaced(&mut self, at: TopicPartition) -> Result<(), IngestError> {
        self.land_all().await?;
        let next = at.of_generation(at.generation() + 1);
        tracing::warn!(former = %at, now = %next, "the log was replaced; the new one is read under a name of its own");
        let read_since = self.partitions.get(&at).and_then(|reading| Some(reading.log.as_ref()?.since));
        self.give_up(std::slice::from_ref(&at));
        self.open_settled(vec![next], false, read_since).await
    }

    /// Where the table that is furthest behind stands.
    fn landed_up_to(&self, at: &TopicPartition) -> NextOffset {
        self.sinks.iter().flatten().map(|sink| sink.next(at)).min().unwrap_or_default()
    }

    /// The reader has begun at `begin`, or behind where the tables stand when the log holds no more than that.
    async fn started(&mut self, at: TopicPartition, begin: NextOffset, log: OpenLog) -> Result<(), IngestError> {
        if self.partitions.get(&at).is_some_and(|reading| begin > reading.next) {
            self.skip_to(&at, begin).await?;
        }
        let Some(reading) = self.partitions.get_mut(&at) else { return Ok(()) };
        tracing::info!(%at, offset = begin.0, "reading begins");
        reading.log = Some(log);
        // Not before: until the log is known to be the one that was read, its offsets may be those of another.
        self.metrics.next_offset.get_or_create(&PartitionLabel::of(&at)).set(self.landed_up_to(&at).0);
        Ok(())
    }

    /// Goes on at `begin`, which lies behind what was read last: the offsets in between are a gap in every table that has not
    /// landed them.
    async fn skip_to(&mut self, at: &TopicPartition, begin: NextOffset) -> Result<(), IngestError> {
        // What was read before the gap lands first: a batch has no holes.
        self.land_all().await?;
        let Some(reading) = self.partitions.get_mut(at) else { return Ok(()) };
        let next = std::mem::replace(&mut reading.next, begin);
        reading.last = None;
        tracing::warn!(%at, from = next.0, to = begin.0, "the log does not hold these offsets; tables without them record a gap");
        self.metrics.gap_offsets.inc_by((begin.0 - next.0).unsigned_abs());
        self.sinks.iter_mut().flatten().for_each(|sink| sink.skip_to(at, begin));
        // Some table may have landed what others miss: its messages were seen all the same.
        let next = BTreeMap::from([(at.clone(), begin)]);
        let Some(known) = self.drain.run_until_cancelled(self.tables.look_up(&next)).await else { return Ok(()) };
        let found = known?.seen.remove(at).unwrap_or_default();
        match self.seen.get_mut(at) {
            // What was seen of former logs stays known.
            Some(memory) => memory.seen.extend(&found.seen),
            None => drop(self.seen.insert(at.clone(), found)),
        }
        self.forget_homes();
        Ok(())
    }

    /// What was seen of some partition is another memory now: what landed of moved lanes elsewhere must be read into it again.
    fn forget_homes(&mut self) {
        if let Some(residents) = &mut self.residents {
            residents.forget();
        }
    }

    /// Partitions, by their names in the log, are no longer ours. What was read of them lands all the same: when the topic was
    /// deleted it is nowhere else. Of one log the offsets decide between us and the next owner; before that one reads a new log
    /// it waits for us ([`Former`]).
    async fn revoked(&mut self, partitions: &[TopicPartition]) -> Result<(), IngestError> {
        for at in partitions {
            tracing::info!(%at, "partition revoked");
        }
        self.former.forget(partitions);
        self.show_awaited();
        self.settle().await?;
        self.land(self.options.idle_commit_interval);
        self.settle().await?;
        let is_revoked = |at: &&TopicPartition| partitions.contains(&at.without_generation());
        let logs: Vec<_> = self.partitions.keys().filter(is_revoked).cloned().collect();
        self.give_up(&logs);
        Ok(())
    }

    /// Forgets logs of which nothing is in hand or landing.
    fn give_up(&mut self, logs: &[TopicPartition]) {
        for sink in self.sinks.iter_mut().flatten() {
            sink.give_up(logs);
        }
        self.forget_homes();
        for at in logs {
            self.partitions.remove(at);
            self.seen.remove(at);
            self.refused.retain(|(log, _)| log != at);
            self.metrics.next_offset.remove(&PartitionLabel::of(at));
            self.metrics.undecided_offsets.remove(&PartitionLabel::of(at));
        }
    }

    /// Finds the homes of agents' runs that these are the first messages of.
    async fn meet(&mut self, arrivals: &[Arrival]) -> Result<(), IngestError> {
        let Some(residents) = &mut self.residents else { return Ok(()) };
        let moved = residents.meet(arrivals).await?;
        let is_ours = |moved: &Moved| self.seen.keys().any(|at| at.without_generation() == moved.at);
        let ours: Vec<Moved> = moved.into_iter().filter(is_ours).collect();
        if ours.is_empty() {
            return Ok(());
        }
        for Elsewhere { home, stream, rows } in self.tables.landed_elsewhere(&ours).await? {
            for (_, memory) in self.seen.iter_mut().filter(|(at, _)| at.without_generation() == home) {
                memory.seen.note(stream.clone(), rows.start, rows.end);
            }
        }
        Ok(())
    }

    /// Decides what of a message is new, or that it belongs to another partition.
    fn judge(&mut self, arrival: Arrival) -> Arrival {
        let header = arrival.header();
        let home = header.and_then(|header| self.residents.as_ref()?.home_of(header));
        if let Some(home) = home.filter(|home| **home != arrival.message.at.without_generation()).cloned() {
            return arrival.forward(home);
        }
        match self.seen.get_mut(&arrival.message.at) {
            Some(memory) => arrival.admit(&mut memory.seen),
            None => arrival,
        }
    }

    fn admit(&mut self, arrival: Arrival) -> Result<(), IngestError> {
        let at = &arrival.message.at;
        let Some(reading) = self.partitions.get_mut(at) else {
            // Read before a revocation was noticed.
            self.budget.release(crate::hand::bytes_of(&arrival));
            return Ok(());
        };
        let (offset, expected) = (arrival.message.offset, reading.next.0);
        if offset > expected {
            return Err(IngestError::Hole { at: at.clone(), expected, offset });
        }
        if offset < expected {
            // Of a partition that was started anew: it was read before.
            self.budget.release(crate::hand::bytes_of(&arrival));
            return Ok(());
        }
        reading.next = NextOffset(arrival.message.offset + 1);
        reading.last = Some((reading.next, stream::fingerprint(&arrival.message)));
        let arrival = self.judge(arrival);
        let rows = arrival.fresh_rows();
        let announced = arrival.header().filter(|_| arrival.forwarded_to.is_none());
        let duplicates = announced.map_or(0, |header| u64::from(header.rows)) - rows;
        self.metrics.messages.inc();
        self.metrics.payload_bytes.inc_by(arrival.message.payload.len() as u64);
        self.metrics.rows.inc_by(rows);
        self.metrics.duplicate_rows.inc_by(duplicates);
        self.summary.messages += 1;
        self.summary.rows += rows;
        self.summary.duplicate_rows += duplicates;
        if let Err(rejection) = &arrival.outcome {
            self.summary.rejected += 1;
            self.dead_letters.take(&arrival, rejection);
        }
        self.hand.add(arrival);
        Ok(())
    }

    /// Passes offsets that hold no message; `ops.ledger` has a row of them.
    fn skipped(&mut self, range: OffsetRange) -> Result<(), IngestError> {
        let Some(reading) = self.partitions.get_mut(&range.at) else { return Ok(()) };
        let expected = reading.next.0;
        if range.start > expected {
            return Err(IngestError::Hole { at: range.at, expected, offset: range.start });
        }
        let rest = OffsetRange::new(range.at, expected, range.end);
        if !rest.is_empty() {
            reading.next = NextOffset(rest.end);
            self.metrics.skipped_offsets.inc_by(rest.len());
            self.hand.skip(rest);
        }
        Ok(())
    }

    /// Begins to land the batch in hand.
    fn land(&mut self, idle_after: Duration) {
        let Some(sinks) = self.sinks.take() else { return };
        let read = self.partitions.iter().map(|(at, reading)| (at.clone(), reading.next));
        let closing = self.closing.iter().map(|(at, end)| (at.clone(), *end));
        let batch = self.hand.take(read.chain(closing).collect());
        let how = Landing { ingested_us: self.clock.now_ns().div_euclid(1_000), idle_after };
        let notes = Notes { marks: self.marks(&batch), checkpoints: self.checkpoints(&batch) };
        self.summary.batches += u64::from(!batch.arrivals.is_empty());
        let forwarder = self.residents.as_ref().map(Residents::forwarder);
        let begins = begins(&mut self.partitions);
        let forward = Forward { forwarder, refused: self.refused.clone() };
        let destination = Destination { sinks, begins, forward, how, abandoned: self.abandoned.clone() };
        self.flush = Some(tokio::spawn(flush(destination, batch, notes)));
    }

    /// What `bronze.messages` is to remember of the logs of this batch.
    fn marks(&self, batch: &Batch) -> Vec<Note> {
        let mark = |at: &TopicPartition| self.partitions.get(at)?.mark(at);
        batch.ends.keys().filter_map(mark).collect()
    }

    /// The checkpoints that are due.
    fn checkpoints(&mut self, batch: &Batch) -> Vec<Attachment> {
        let mut drafts = Vec::new();
        for (at, end) in &batch.ends {
            let Some(memory) = self.seen.get_mut(at) else { continue };
            let kept = memory.checkpoint.map_or(0, |next| next.0);
            if end.0 - kept < i64::from(self.options.checkpoint_every) {
                continue;
            }
            match checkpoint::draft(at, *end, &memory.seen) {
                Ok(draft) => {
                    memory.checkpoint = Some(*end);
                    drafts.push(draft);
                }
                Err(error) => tracing::warn!(%error, %at, "no checkpoint is kept"),
            }
        }
        drafts
    }

    fn tell_in_hand(&self) {
        self.metrics.in_hand_bytes.set(i64::try_from(self.budget.used_bytes()).unwrap_or(i64::MAX));
    }

    /// Waits until no batch is landing.
    async fn settle(&mut self) -> Result<(), IngestError> {
        if self.flush.is_some() {
            let done = wait(&mut self.flush).await;
            self.landed(done)?;
        }
        Ok(())
    }

    fn landed(&mut self, done: Result<Flushed, tokio::task::JoinError>) -> Result<(), IngestError> {
        self.flush = None;
        let Landed { sinks, bytes, refused } = done.map_err(IngestError::Flush)??;
        for (arrival, rejection) in
            refused.iter().filter_map(|arrival| Some((arrival, arrival.outcome.as_ref().err()?)))
        {
            self.summary.rejected += 1;
            self.dead_letters.take(arrival, rejection);
        }
        self.budget.release(bytes);
        self.tell_in_hand();
        let mut positions = Vec::new();
        let mut is_behind = false;
        self.sinks = Some(sinks);
        for (at, reading) in &self.partitions {
            let next = self.landed_up_to(at);
            if reading.log.is_some() {
                self.metrics.next_offset.get_or_create(&PartitionLabel::of(at)).set(next.0);
            }
            is_behind |= next < reading.next;
            positions.push((at.clone(), next));
        }
        self.behind_since = is_behind.then(Instant::now);
        // The reader may be gone already when ingest is ending; its positions are a courtesy.
        let _ = self.commands.send(ToLog::Landed(positions));
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.abandoned.cancel();
    }
}

async fn wait(flush: &mut Option<JoinHandle<Flushed>>) -> Result<Flushed, tokio::task::JoinError> {
    match flush {
        Some(flush) => flush.await,
        None => std::future::pending().await,
    }
}
