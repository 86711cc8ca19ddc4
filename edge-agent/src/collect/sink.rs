//! What takes records while the rings are read: adds what is known of each process and fills batches.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bpf::{ClassCounters, Counters, Environments, Record};
use event_schema::batch::{Event, MeasuredDuration};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::stream::{EventStream, PerEventStream, Stream};

use super::CollectError;
use super::known::Processes;
use crate::batcher::{Batcher, Cut, Limits, Missed};
use crate::clock;
use crate::discover::{Alive, Untraced};
use crate::metrics::Metrics;
use crate::process::{Process, Ranks, Sighting};
use crate::spool::{HAND_OVER_LIMIT, Input, hand_over};

/// Facts of processes that go in one message.
const FACTS_MAX: usize = 1024;
/// How long events wait for the spool before they are shed (load shedding): longer than a moment's delay, while the
/// rings hold what arrives.
const EVENTS_WAIT: Duration = Duration::from_millis(50);

/// Streams of events on which nothing has come for so long, in nanoseconds, are idle: a beacon is sent at once, by
/// which the centre sees that what it has of them is whole.
const IDLE_NS: i64 = 1_000_000_000;

/// `ncclSuccess`.
const NCCL_SUCCESS: i32 = 0;
/// `ncclInProgress`: the communicator is non-blocking, and its rank is given all the same.
const NCCL_IN_PROGRESS: i32 = 7;

/// What takes records while the tracer is being polled.
#[derive(Debug)]
pub(super) struct Sink {
    batcher: Batcher,
    processes: Processes,
    spool: SyncSender<Input>,
    /// How long events wait for the spool.
    events_wait: Duration,
    metrics: Metrics,
    /// Boot time at which the poll began.
    now_ns: i64,
    /// When the last event of each stream came; absent when none has since its last beacon.
    last_event_ns: PerEventStream<Option<i64>>,
    /// Missed by the probes, per stream, as of the last look at the counters.
    missed: PerEventStream<Missed>,
    /// The first failure, raised after the poll.
    failed: Option<CollectError>,
    /// Processes whose environment is to be read, on a thread that may hang with them: of which none was kept, or that
    /// gave another rank to NCCL than is known of it.
    to_read: Vec<i32>,
}

impl Sink {
    /// `environments` are those that the probes keep.
    pub(super) fn new(
        limits: Limits,
        environments: Option<Environments>,
        spool: SyncSender<Input>,
        metrics: Metrics,
    ) -> Self {
        Self {
            batcher: Batcher::new(limits),
            processes: Processes::new(environments),
            spool,
            events_wait: EVENTS_WAIT,
            metrics,
            now_ns: 0,
            last_event_ns: PerEventStream::default(),
            missed: PerEventStream::default(),
            failed: None,
            to_read: Vec::new(),
        }
    }

    /// Begins a poll at this boot time.
    pub(super) fn begin_poll(&mut self, now_ns: i64) {
        self.now_ns = now_ns;
    }

    /// Takes what the probes have missed so far: the next batch of each stream reports what is new of it.
    pub(super) fn count_missed(&mut self, counters: &Counters) {
        for stream in EventStream::ALL {
            let ClassCounters { ring_drop, sampled_out, untracked, .. } = counters.of_stream(stream);
            self.missed[stream] = Missed { ring_drop, sampled_out, untracked };
        }
    }

    /// The first failure of [`Self::take`] since the last check, which could not return it to the tracer.
    pub(super) fn check(&mut self) -> Result<(), CollectError> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The processes whose environment is to be read, since the last call.
    pub(super) fn take_to_read(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.to_read)
    }

    /// From now on events wait for the spool as long as critical records do.
    pub(super) fn shed_no_more(&mut self) {
        self.events_wait = HAND_OVER_LIMIT;
    }

    /// Takes one record. After a failure takes no more, until it was checked.
    pub(super) fn take(&mut self, record: &Record) {
        if self.failed.is_none()
            && let Err(error) = self.try_take(record)
        {
            self.failed = Some(error);
        }
    }

    fn try_take(&mut self, record: &Record) -> Result<(), CollectError> {
        let Some(stream) = record.class.stream() else { return Ok(()) };
        let op = Op::from_numbers(record.source, record.op);
        let exec = op == Some(Op::ProcessExec);
        let exit = op == Some(Op::ProcessExit);
        let is_another = match self.processes.get(record.pid) {
            None => true,
            // An exiting process has lost its environment: what is known of it is all that can be.
            Some(known) => exec || (!exit && known.was_gone_by(record.boot_ns)),
        };
        if exec {
            // Before the process is met anew: what was read of its former program is dropped by the time of the exec.
            self.processes.note_exec(record.pid, record.boot_ns);
        }
        if is_another {
            if self.processes.meet(record, exec, self.now_ns)? {
                self.to_read.push(record.pid);
            }
            // One poll may bring records of any number of new processes: this bounds the message and the memory.
            if self.processes.waiting_facts() >= FACTS_MAX {
                self.report_facts()?;
            }
        }
        // `arg0` of a fork is the number of the child, which has its parent's facts until it is read itself.
        if op == Some(Op::ProcessFork)
            && let Ok(child) = i32::try_from(record.arg0)
        {
            self.processes.note_fork(record.pid, child, record.boot_ns);
        }
        self.take_nccl_rank(record)?;
        self.last_event_ns[stream] = Some(self.now_ns);
        // Marked, not removed: the critical ring is read first, so that calls made before the exit may still lie in the
        // data ring.
        if exit {
            self.processes.note_exit(record.pid, record.boot_ns);
        }
        let Self { processes, batcher, now_ns, .. } = self;
        // Always present: `meet` has inserted every process that was not there.
        let Some(known) = processes.get(record.pid) else { return Ok(()) };
        if batcher.push(stream, &to_event(record, known.process()), *now_ns) {
            self.cut(stream)?;
        }
        Ok(())
    }

    /// Takes the rank that a process has given to `ncclCommInitRank`.
    fn take_nccl_rank(&mut self, record: &Record) -> Result<(), CollectError> {
        let is_init = Op::from_numbers(record.source, record.op) == Some(Op::NcclCommInitRank);
        if !is_init || !matches!(record.ret_code, Some(NCCL_SUCCESS | NCCL_IN_PROGRESS)) {
            return Ok(());
        }
        // Arguments of another process, which may be anything. -1 lies outside of every range of ranks.
        let [world_size, rank] = [record.arg0, record.arg1].map(|number| i32::try_from(number).unwrap_or(-1));
        if !(0..world_size).contains(&rank) {
            return Ok(());
        }
        // `ncclCommInitRank` has no argument for the rank on the node.
        let ranks = Ranks { rank, local_rank: None, world_size: Some(world_size) };
        if self.processes.take_nccl_ranks(record.pid, ranks, record.boot_ns)? {
            self.to_read.push(record.pid);
        }
        Ok(())
    }

    /// Takes notice of an exec. What is known of the process is read again with its next record, unless it was since.
    pub(super) fn note_exec(&mut self, pid: i32, boot_ns: i64) {
        self.processes.note_exec(pid, boot_ns);
    }

    /// Takes notice of the first call of a process, which may end before its first record is read.
    pub(super) fn note_first_call(&mut self, pid: i32) -> Result<(), CollectError> {
        match Sighting::glance(pid) {
            Some(seen) if self.processes.get(pid).is_none() => self.see(seen),
            _ => Ok(()),
        }
    }

    /// Takes what was seen of a process beside its records.
    pub(super) fn see(&mut self, seen: Sighting) -> Result<(), CollectError> {
        // The poll may have begun before the program did that was seen.
        let now_ns = clock::boot_ns()?;
        Ok(self.processes.see(seen, now_ns)?)
    }

    /// Notes that a process is not traced, or is again.
    pub(super) fn note_untraced(&mut self, untraced: &Untraced) -> Result<(), CollectError> {
        Ok(self.processes.note_untraced(untraced, self.now_ns)?)
    }

    /// Processes that are known.
    pub(super) fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Drops the processes that have been gone for a while.
    pub(super) fn forget_exited(&mut self, alive: &Alive) {
        self.processes.forget_exited(alive, self.now_ns);
    }

    /// What is due at the end of a poll: the facts of processes that were met, and batches that have waited long
    /// enough.
    pub(super) fn cut_due(&mut self) -> Result<(), CollectError> {
        self.report_facts()?;
        for stream in EventStream::ALL {
            if self.batcher.is_due(stream, self.now_ns) {
                self.cut(stream)?;
            }
        }
        Ok(())
    }

    fn report_facts(&mut self) -> Result<(), CollectError> {
        for cut in self.processes.cut_facts()? {
            self.pass_on(cut);
        }
        Ok(())
    }

    /// Facts of the processes that made the events of a batch go before it.
    fn cut(&mut self, stream: EventStream) -> Result<(), CollectError> {
        self.report_facts()?;
        let missed = self.missed[stream];
        if let Some(cut) = self.batcher.cut(stream, missed)? {
            self.pass_on(cut);
        }
        Ok(())
    }

    /// The last batches, each with the account of its stream. The critical one also reports what the data stream no
    /// longer can.
    pub(super) fn finish(&mut self, counters: &Counters) -> Result<(), CollectError> {
        // The data stream ends first: what its last batch loses can then still be reported by the critical batch behind
        // it.
        self.report_epoch_end(EventStream::Data, counters);
        self.cut(EventStream::Data)?;
        self.batcher.report_for(EventStream::Critical, EventStream::Data, self.missed.data);
        self.report_epoch_end(EventStream::Critical, counters);
        self.cut(EventStream::Critical)
    }

    /// Hands a batch to the spool, or counts it.
    fn pass_on(&mut self, cut: Cut) {
        // Backpressure by class: events are shed after a short wait, critical records block this thread, and the
        // kernel's rings buffer meanwhile (ADR 14).
        let limit = if cut.stream == Stream::Data { self.events_wait } else { HAND_OVER_LIMIT };
        let Err(Input::Cut(cut)) = hand_over(&self.spool, Input::Cut(cut), limit) else { return };
        let rows = cut.batch.num_rows() as u64;
        if cut.stream != Stream::Data {
            tracing::error!(
                rows,
                stream = cut.stream.number(),
                "critical records are shed: the spool thread accepts no input"
            );
        }
        self.metrics.shed.inc_by(rows);
        // Counted by the next batch of the stream: emitted = landed + lost holds without this one.
        self.batcher.shed(&cut);
    }

    /// The account of the epoch, from the probes' own counters, as the last event of its stream: no event of the stream
    /// comes after it. The ledger closes by the losses that batches report, without it.
    fn report_epoch_end(&mut self, stream: EventStream, counters: &Counters) {
        let account = counters.of_stream(stream);
        let [attempts, ring_drop, drained] = [account.attempts, account.ring_drop, account.drained].map(saturated);
        let event = own_event(Op::EpochEnd, self.now_ns, [attempts, ring_drop]);
        self.batcher.push(stream, &Event { bytes: Some(drained), ..event }, self.now_ns);
    }

    /// Reports that the agent lives, and how its clocks relate: also where nothing is traced, so that a node without
    /// work is not taken for one that is gone. The beacon also states that everything before it on its stream has been
    /// handed over.
    pub(super) fn report_beacon(&mut self, beacon: &Beacon, streams: &[EventStream]) {
        // An event that was made after the poll began may lie in a ring yet: the beacon is dated to the time before.
        let boot_ns = self.now_ns;
        for stream in streams {
            self.last_event_ns[*stream] = None;
            let event = own_event(Op::Beacon, boot_ns, [beacon.wall_ns_of(boot_ns), beacon.error_ns]);
            self.batcher.push(*stream, &event, self.now_ns);
        }
    }

    /// Streams on which events have come since the last beacon, and none for a second.
    pub(super) fn fallen_idle(&self) -> Vec<EventStream> {
        let mut idle = EventStream::ALL.to_vec();
        idle.retain(|stream| self.last_event_ns[*stream].is_some_and(|last_ns| self.now_ns - last_ns >= IDLE_NS));
        idle
    }
}

/// An event of the agent's own.
fn own_event(op: Op, boot_ns: i64, [arg0, arg1]: [i64; 2]) -> Event<'static> {
    let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
    let event = Event {
        boot_ns,
        pid: own_pid,
        tid: own_pid,
        comm: Some("causeway-agent"),
        arg0,
        arg1,
        sample_weight: 1.0,
        ..Event::default()
    };
    event.with_op(op)
}

fn saturated(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn to_event<'a>(record: &'a Record, process: &'a Process) -> Event<'a> {
    let is_wait = Op::from_numbers(record.source, record.op) == Some(Op::RunnableWait);
    // Thread 0 is an idle CPU, on which no task ran. Of a blocked wait the peer is the waker, whose thread is `arg1`
    // already.
    let peer = record.peer.as_ref().filter(|peer| is_wait && peer.tid != 0);
    Event {
        boot_ns: record.boot_ns,
        source: record.source,
        op: record.op,
        duration: record.duration.map(|d| MeasuredDuration { ns: d.ns, weight: d.events as f32 }),
        pid: record.pid,
        tid: record.tid,
        comm: Some(record.comm.as_str()),
        process: process.info(record.cgroup_id),
        arg0: record.arg0,
        arg1: record.arg1,
        bytes: record.bytes,
        ret_code: record.ret_code,
        sample_weight: 1.0,
        peer_comm: peer.map(|peer| peer.comm.as_str()),
        peer_pid: peer.map(|peer| peer.pid),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests;
