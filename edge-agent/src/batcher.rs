//! Events become batches: cut by rows, bytes or age, per stream, each with what was lost since the one before. Pure:
//! time is an argument.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use event_schema::batch::{Event, EventRows};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::{EventStream, PerEventStream, Stream};

/// Bytes of a row besides its text.
const ROW_BYTES: usize = 120;

/// When a batch is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most rows of a batch.
    pub rows: usize,
    /// Estimated bytes in memory; on the wire it is about a fifth.
    pub bytes: usize,
    /// Longest time that the first row of a batch waits.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Below 4k rows a batch compresses badly; at 8k any batch stays under Kafka's default message limit.
        Self { rows: 8192, bytes: 2 << 20, age: Duration::from_millis(250) }
    }
}

/// Cumulative counts of what the probes did not deliver, for one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missed {
    /// Records that a full ring of the kernel had no room for.
    pub ring_drop: u64,
    /// Waits below the threshold.
    pub sampled_out: u64,
    /// Could not be followed because a table of the probes was full: reported as shed.
    pub untracked: u64,
}

/// A closed batch, not yet numbered.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The stream that numbers its rows and carries its losses.
    pub stream: Stream,
    /// What its rows are.
    pub kind: RecordKind,
    /// Its rows, of the wire schema of `kind`.
    pub batch: RecordBatch,
    /// Since the cut before, `emitted` included: rows of this batch plus all that is counted as lost here.
    pub losses: LossCounters,
}

impl Cut {
    /// A batch of records other than events, of which none is ever lost before this point.
    pub fn of_records(kind: RecordKind, batch: RecordBatch) -> Self {
        let losses = LossCounters { emitted: batch.num_rows() as u64, ..LossCounters::default() };
        Self { stream: Stream::of(kind), kind, batch, losses }
    }

    /// How many numbers of its stream the batch takes: one for each row.
    pub fn numbers(&self) -> i64 {
        i64::try_from(self.batch.num_rows()).unwrap_or(i64::MAX)
    }

    /// What is to be counted when this batch cannot be passed on.
    pub fn shed(&self) -> LossCounters {
        // `emitted` is kept as it is: the rows were made, and move from landed to lost.
        LossCounters { shed: self.losses.shed + self.batch.num_rows() as u64, ..self.losses }
    }
}

/// Open batches of the event streams.
#[derive(Debug)]
pub struct Batcher {
    limits: Limits,
    open: PerEventStream<Open>,
}

/// The batch of one stream that is being filled.
#[derive(Debug, Default)]
struct Open {
    rows: EventRows,
    bytes: usize,
    /// Time of the first row.
    since_ns: i64,
    /// Missed by the probes, as of the last cut.
    missed: Missed,
    /// Losses that the next cut reports: of batches that could not be passed on.
    carried: LossCounters,
}

impl Batcher {
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: PerEventStream::default() }
    }

    /// Adds an event at time `now_ns`; true when its batch is full and should be cut now.
    pub fn push(&mut self, stream: EventStream, event: &Event<'_>, now_ns: i64) -> bool {
        let limits = self.limits;
        let open = &mut self.open[stream];
        if open.rows.is_empty() {
            open.since_ns = now_ns;
        }
        open.rows.push(event);
        // All other texts of a row are dictionary-encoded: words that repeat add next to nothing.
        open.bytes += ROW_BYTES + event.source_id.map_or(0, str::len);
        open.rows.len() >= limits.rows || open.bytes >= limits.bytes
    }

    /// True when the stream's batch has waited long enough.
    pub fn is_due(&self, stream: EventStream, now_ns: i64) -> bool {
        let open = &self.open[stream];
        let age_ns = i64::try_from(self.limits.age.as_nanos()).unwrap_or(i64::MAX);
        !open.rows.is_empty() && now_ns - open.since_ns >= age_ns
    }

    /// Closes the batch of a stream. `None` when it has no row: a batch without rows has no sequence number by which a
    /// repetition of it is recognised, so what was lost waits for the next row.
    ///
    /// # Errors
    /// Only if the catalogue and the row builder disagree.
    pub fn cut(&mut self, stream: EventStream, missed: Missed) -> Result<Option<Cut>, ArrowError> {
        let open = &mut self.open[stream];
        if open.rows.is_empty() {
            return Ok(None);
        }
        let rows = open.rows.len() as u64;
        let batch = open.rows.finish()?;
        open.bytes = 0;
        let mut losses = open.unreported(missed);
        // The law of the ledger is emitted = landed + lost: a batch announces its own rows beside the losses since the
        // cut before.
        losses.emitted += rows;
        Ok(Some(Cut { stream: stream.into(), kind: RecordKind::Event, batch, losses }))
    }

    /// Moves the unreported losses of `stream` to `reporter`: at the end of an epoch, when `stream` has no further
    /// batch.
    pub fn report_for(&mut self, reporter: EventStream, stream: EventStream, missed: Missed) {
        let unreported = self.open[stream].unreported(missed);
        self.open[reporter].carried += unreported;
    }

    /// Takes back a cut that could not be passed on: its rows are shed, and the next cut of the stream reports them.
    /// Losses of records other than events are reported by the data stream.
    pub fn shed(&mut self, cut: &Cut) {
        let reporter = cut.stream.of_events().unwrap_or(EventStream::Data);
        self.open[reporter].carried += cut.shed();
    }
}

impl Open {
    /// Losses since the previous call, those carried over from shed batches included.
    fn unreported(&mut self, missed: Missed) -> LossCounters {
        // The kernel's counters are cumulative. The difference to the last cut is reported once, by this cut.
        let before = std::mem::replace(&mut self.missed, missed);
        let ring_drop = missed.ring_drop.saturating_sub(before.ring_drop);
        let sampled_out = missed.sampled_out.saturating_sub(before.sampled_out);
        let shed = missed.untracked.saturating_sub(before.untracked);
        // Lost records were made as well: they count on both sides of the law.
        let emitted = ring_drop + sampled_out + shed;
        let lost = LossCounters { emitted, ring_drop, sampled_out, shed, ..LossCounters::default() };
        std::mem::take(&mut self.carried) + lost
    }
}

#[cfg(test)]
mod tests;
