//! From the spool to Kafka: in order per topic, from where the acknowledgements of the last run ended. After a crash
//! between an acknowledgement and the note of it the same bytes are sent again; the centre drops them by their sequence
//! numbers. What is too large for the broker goes in halves.

use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, NextOffset, TopicPartition};
use event_schema::wire::{self, Header};
use prometheus_client::metrics::counter::Counter;
use stream::kafka::{Delivery, KafkaConfig, KafkaError, KafkaProducer, ProducerRecord, Sent};
use stream::log::{LogError, LogReader};

use crate::halve::halve;
use crate::metrics::Metrics;
use crate::spool::Input;

/// Longest wait for an acknowledgement before the spool is read again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often acknowledged positions are noted, at most.
const NOTE_EVERY: Duration = Duration::from_millis(200);
/// Pause after Kafka refused something that may pass later.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes read from the spool at once.
const READ_BYTES: usize = 1 << 20;
/// Messages on the way to the broker at once, per topic; bytes are bounded by the producer's queue.
const IN_FLIGHT_MAX: usize = 512;

/// What ends shipping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The spool may still grow: goes on.
    Stopped,
    /// Ends when all is acknowledged, or at this time at the latest: the rest waits in the spool.
    Empty { latest: Instant },
}

/// Why shipping ended.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// Sends the partitions of one spool.
#[derive(Debug)]
pub(crate) struct Shipper {
    root: PathBuf,
    config: KafkaConfig,
    producer: KafkaProducer,
    lanes: Vec<Lane>,
    /// Of the next message that is sent, over all lanes: a delivery names its message by it.
    next_token: usize,
    /// When acknowledged positions were noted last.
    noted: Instant,
    metrics: Metrics,
}

impl Shipper {
    /// Opens the spool where the last run's acknowledgements ended.
    pub(crate) fn open(
        root: &Path,
        partitions: &[TopicPartition],
        config: &KafkaConfig,
        metrics: Metrics,
        spool: SyncSender<Input>,
    ) -> Result<Self, ShipError> {
        let lanes = partitions.iter().map(|at| Lane::open(root, at, &metrics, &spool)).collect::<Result<_, _>>()?;
        Ok(Self {
            root: root.to_owned(),
            config: config.clone(),
            producer: KafkaProducer::open(config)?,
            lanes,
            next_token: 0,
            noted: Instant::now(),
            metrics,
        })
    }

    /// Ships until `until`, which is called at every turn, ends it.
    pub(crate) fn run(mut self, until: impl Fn() -> Until) -> Result<(), ShipError> {
        loop {
            let progress = self.turn()?;
            match until() {
                Until::Empty { latest } if self.is_empty()? || Instant::now() >= latest => break,
                _ => {}
            }
            // The spool gives no signal of new records: an idle thread polls it.
            if !progress && let Some(delivery) = self.producer.delivery(LOOK_EVERY) {
                self.settle(delivery)?;
            }
        }
        self.note()
    }

    /// Sends what can be sent and settles what was delivered. True when anything was.
    fn turn(&mut self) -> Result<bool, ShipError> {
        let mut progress = false;
        for lane in 0..self.lanes.len() {
            progress |= self.send(lane)?;
        }
        while let Some(delivery) = self.producer.delivery(Duration::ZERO) {
            self.settle(delivery)?;
            progress = true;
        }
        if self.noted.elapsed() >= NOTE_EVERY {
            self.note()?;
        }
        Ok(progress)
    }

    /// Sends what waits in a lane, in order, until the producer or the lane is full. True when anything was sent or
    /// refused.
    fn send(&mut self, lane: usize) -> Result<bool, ShipError> {
        let Self { lanes, producer, next_token, .. } = self;
        let lane = &mut lanes[lane];
        if lane.waiting.is_empty() && lane.has_room() {
            lane.read(next_token)?;
        }
        let mut progress = false;
        while let Some(message) = lane.next_to_send() {
            let sent = producer.send(
                &lane.at.topic,
                ProducerRecord::new(message.key.as_deref(), &message.payload),
                *next_token,
            );
            let rejected = match sent {
                Ok(Sent::Full) => break,
                Ok(Sent::Queued) => false,
                Err(KafkaError::TooLarge { .. }) => true,
                // A fatal error of librdkafka, as when the broker no longer has the producer's id: only a new producer
                // can continue.
                Err(error) => {
                    std::thread::sleep(RETRY_AFTER);
                    return self.start_again(&error).map(|()| true);
                }
            };
            // Only once the producer has taken it: with a full queue it stays first in line.
            let Some(message) = lane.waiting.pop_front() else { break };
            let token = *next_token;
            *next_token += 1;
            if rejected {
                lane.refuse(token, message, true);
            } else {
                lane.sent(token, message);
            }
            progress = true;
        }
        lane.advance();
        Ok(progress)
    }

    /// Takes one delivery. A refusal that may pass starts again from the last acknowledged message, in order.
    fn settle(&mut self, delivery: Delivery) -> Result<(), ShipError> {
        let token = delivery.token;
        // Tokens are never reused: a delivery of what was taken back belongs to no lane.
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.find(token).is_some()) else { return Ok(()) };
        match delivery.result {
            Ok(_) => {
                self.metrics.shipped.inc();
                lane.acknowledge(token);
                Ok(())
            }
            Err(rejection) if rejection.is_permanent() => match lane.take_alone(token) {
                Some(refused) => {
                    lane.refuse(token, refused, rejection.is_too_large());
                    lane.advance();
                    Ok(())
                }
                // librdkafka sends messages in batches and reports a refusal for each message of the batch. Sent one at
                // a time, the next refusal concerns its message alone.
                None => {
                    lane.be_careful();
                    self.start_again(&rejection)
                }
            },
            // What was sent behind it may have arrived: it is sent again (at-least-once), and the centre deduplicates.
            Err(rejection) => {
                std::thread::sleep(RETRY_AFTER);
                self.start_again(&rejection)
            }
        }
    }

    /// Opens a new producer: what the one before had in its queue would arrive behind what is sent again.
    fn start_again(&mut self, why: &(dyn Error + 'static)) -> Result<(), ShipError> {
        tracing::warn!(error = %why, "kafka refused a message: sending again from the last acknowledged one");
        self.note()?;
        // The former one is dropped with its queue: nothing of it arrives behind what is sent again.
        self.producer = KafkaProducer::open(&self.config)?;
        for lane in &mut self.lanes {
            lane.start_again(&self.root)?;
        }
        Ok(())
    }

    /// Notes what was acknowledged, for the next run and for the deletion of old segments.
    fn note(&mut self) -> Result<(), ShipError> {
        self.noted = Instant::now();
        let mut unshipped = 0;
        for lane in &mut self.lanes {
            lane.note();
            unshipped += lane.unshipped()?;
        }
        self.metrics.unshipped.set(unshipped);
        Ok(())
    }

    fn is_empty(&mut self) -> Result<bool, ShipError> {
        for lane in &mut self.lanes {
            if lane.unshipped()? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// One partition of the spool on its way.
#[derive(Debug)]
struct Lane {
    at: TopicPartition,
    reader: LogReader,
    /// Read and not yet accepted by the producer.
    waiting: VecDeque<Outgoing>,
    /// Sent, in order, and whether it was acknowledged.
    in_flight: VecDeque<InFlight>,
    /// Everything below is acknowledged, or refused for good and accounted for.
    acked: NextOffset,
    /// The acknowledged position that the spool was last given.
    noted: NextOffset,
    /// The last attempt to note failed, and was logged.
    is_note_failing: bool,
    /// Up to here one message is sent at a time: Kafka has refused a request that held several of these, and only alone
    /// does a message show whether it was the one.
    careful_until: NextOffset,
    /// Messages of the spool that were damaged or missing.
    damaged: Counter,
    /// Where rows that Kafka refused are accounted for.
    spool: SyncSender<Input>,
}

/// A message of the spool, or a part of one that was too large.
#[derive(Debug, Clone)]
struct Outgoing {
    key: Option<Bytes>,
    payload: Bytes,
    /// Of the whole message.
    offset: i64,
    /// Nothing of the message comes after this.
    is_last: bool,
}

impl Outgoing {
    /// Where the spool is acknowledged to, once this is.
    fn next(&self) -> NextOffset {
        NextOffset(self.offset + i64::from(self.is_last))
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self { key: message.key, payload: message.payload, offset: message.offset, is_last: true }
    }
}

/// A message, or a part of one, that was sent or is done with.
#[derive(Debug)]
struct InFlight {
    token: usize,
    offset: i64,
    /// Where the lane is acknowledged to, once this and all before it are.
    next: NextOffset,
    acked: bool,
    /// What was sent, when it is the only one on its way: a refusal then means this one.
    alone: Option<Outgoing>,
    /// What never arrives.
    lost: Option<Lost>,
}

/// Messages that never arrive. They are counted once the lane is acknowledged past them: until then it may start again
/// in front of them, and meets them a second time.
#[derive(Debug)]
enum Lost {
    /// So many are damaged in the spool, or missing there.
    Damaged(u64),
    /// Kafka has refused this one for good.
    Refused(Bytes),
}

impl Lane {
    fn open(root: &Path, at: &TopicPartition, metrics: &Metrics, spool: &SyncSender<Input>) -> Result<Self, LogError> {
        let reader = LogReader::resume(root, at)?;
        let acked = reader.position();
        Ok(Self {
            at: at.clone(),
            reader,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            acked,
            noted: acked,
            is_note_failing: false,
            careful_until: NextOffset(0),
            damaged: metrics.spool_damaged.clone(),
            spool: spool.clone(),
        })
    }

    /// Goes back to what was not acknowledged.
    fn start_again(&mut self, root: &Path) -> Result<(), LogError> {
        self.reader = LogReader::open(root, &self.at, self.acked)?;
        self.waiting.clear();
        self.in_flight.clear();
        Ok(())
    }

    /// Reads on. What is damaged is passed over: records made from now on must not wait for it.
    fn read(&mut self, next_token: &mut usize) -> Result<(), LogError> {
        let error = match self.reader.read(READ_BYTES) {
            Ok(messages) => {
                self.waiting.extend(messages.into_iter().map(Outgoing::from));
                return Ok(());
            }
            Err(error) => error,
        };
        use LogError::{BelowLowWatermark, Corrupt, MissingSegment};
        if !matches!(error, Corrupt { .. } | MissingSegment { .. } | BelowLowWatermark { .. }) {
            return Err(error);
        }
        let from = self.reader.position();
        let next = self.reader.pass_damaged()?;
        let messages = u64::try_from(next.0 - from.0).unwrap_or_default();
        tracing::error!(
            error = &error as &dyn Error,
            partition = %self.at,
            messages,
            "messages of the spool are damaged or missing: shipping continues after them"
        );
        // As an acknowledged entry, so that the position passes the hole in order, after what was sent before it. The
        // gap in the sequence numbers remains as the trace.
        if messages > 0 {
            self.in_flight.push_back(InFlight {
                token: *next_token,
                offset: next.0 - 1,
                next,
                acked: true,
                alone: None,
                lost: Some(Lost::Damaged(messages)),
            });
            *next_token += 1;
        }
        Ok(())
    }

    /// Notes what was acknowledged. A failure does not end shipping: the note is tried again, and costs at most a
    /// repetition.
    fn note(&mut self) {
        if self.acked == self.noted {
            return;
        }
        let noted = self.reader.report_landed(self.acked);
        let was_failing = std::mem::replace(&mut self.is_note_failing, noted.is_err());
        match noted {
            Ok(()) => self.noted = self.acked,
            Err(error) if !was_failing => tracing::warn!(
                error = &error as &dyn Error,
                partition = %self.at,
                "what was shipped cannot be noted, so that the spool does not shrink: tried again"
            ),
            Err(_) => {}
        }
    }

    /// Messages of the spool that are not acknowledged, those not read yet included.
    fn unshipped(&mut self) -> Result<i64, LogError> {
        Ok(self.reader.watermarks()?.high.0 - self.acked.0)
    }

    fn is_careful(&self) -> bool {
        self.acked < self.careful_until
    }

    /// Sends one message at a time from now on, until all that is in flight now is settled.
    fn be_careful(&mut self) {
        self.careful_until = NextOffset(self.in_flight.back().map_or(0, |sent| sent.offset + 1));
    }

    /// Whether more may be read or sent now.
    fn has_room(&self) -> bool {
        // For reading as well: damage is entered among what is in flight, and behind a message sent alone it would be
        // taken back with it.
        let most = if self.is_careful() { 1 } else { IN_FLIGHT_MAX };
        self.in_flight.len() < most
    }

    /// The first message that waits, if it may be sent now.
    fn next_to_send(&self) -> Option<&Outgoing> {
        self.waiting.front().filter(|_| self.has_room())
    }

    /// Where a message is among those on their way. Tokens only grow.
    fn find(&self, token: usize) -> Option<usize> {
        self.in_flight.binary_search_by_key(&token, |sent| sent.token).ok()
    }

    /// Takes the acknowledgement of a message.
    fn acknowledge(&mut self, token: usize) {
        if let Some(at) = self.find(token) {
            self.in_flight[at].acked = true;
        }
        self.advance();
    }

    /// Takes back a message that was sent alone. `None`, and nothing is taken back, when there were others with it.
    fn take_alone(&mut self, token: usize) -> Option<Outgoing> {
        let at = self.find(token)?;
        let message = self.in_flight[at].alone.take()?;
        // It is the only entry: until it is settled, `has_room` lets none follow.
        self.in_flight.clear();
        Some(message)
    }

    /// Notes what is on its way.
    fn sent(&mut self, token: usize, message: Outgoing) {
        let alone = self.is_careful().then(|| message.clone());
        self.in_flight.push_back(InFlight {
            token,
            offset: message.offset,
            next: message.next(),
            acked: false,
            alone,
            lost: None,
        });
    }

    /// Handles a message that Kafka refused for good. One that is too large goes in halves, ahead of all that waits.
    /// Any other is lost, counted, and passed.
    fn refuse(&mut self, token: usize, message: Outgoing, is_too_large: bool) {
        if is_too_large && let Ok(Some([first, second])) = halve(&message.payload) {
            tracing::warn!(bytes = message.payload.len(), "a message is too large for the broker and goes in halves");
            // The second half goes in first, to come out last. The first does not move the position: after a crash
            // between the two, the whole is sent and halved again, into the same bytes.
            self.waiting.push_front(Outgoing { payload: second, ..message.clone() });
            self.waiting.push_front(Outgoing { payload: first, is_last: false, ..message });
            return;
        }
        // Entered as acknowledged: a message that is never taken must not hold up those behind it.
        self.in_flight.push_back(InFlight {
            token,
            offset: message.offset,
            next: message.next(),
            acked: true,
            alone: None,
            lost: Some(Lost::Refused(message.payload)),
        });
    }

    /// Moves the acknowledged position over the acknowledged head, and counts what is lost there.
    fn advance(&mut self) {
        while self.in_flight.front().is_some_and(|sent| sent.acked)
            && let Some(sent) = self.in_flight.pop_front()
        {
            self.acked = sent.next;
            match sent.lost {
                Some(Lost::Damaged(messages)) => {
                    self.damaged.inc_by(messages);
                }
                Some(Lost::Refused(payload)) => account(&self.spool, &payload),
                None => {}
            }
        }
    }
}

/// Returns the rows of a lost message to the account of their stream.
fn account(spool: &SyncSender<Input>, message: &[u8]) {
    match wire::peek(message) {
        Ok(header) => account_rows(spool, &header),
        Err(error) => tracing::error!(%error, "a message of the spool is not in the wire format"),
    }
}

fn account_rows(spool: &SyncSender<Input>, header: &Header) {
    let rows = u64::from(header.rows);
    let epoch = header.epoch;
    tracing::error!(
        rows,
        epoch,
        stream = header.stream.number(),
        "kafka refused a message for good: its rows are lost and counted"
    );
    // While draining, the receiver is gone: the gap in the sequence numbers remains as the trace.
    let _ = spool.send(Input::Rejected { epoch, stream: header.stream, rows, losses: header.losses });
}

#[cfg(test)]
mod tests;
