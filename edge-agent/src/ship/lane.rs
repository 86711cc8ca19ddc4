//! One partition of the spool on its way: what is read, sent, acknowledged and noted.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use event_schema::position::{Message, NextOffset, TopicPartition};
use event_schema::wire;
use prometheus_client::metrics::counter::Counter;
use stream::log::{LogError, LogReader};

use crate::halve::halve;
use crate::spool::Input;

/// Bytes read from the spool at once.
const READ_BYTES: usize = 1 << 20;
/// Messages on the way to the broker at once, per topic; bytes are bounded by the producer's queue.
pub(super) const IN_FLIGHT_MAX: usize = 512;

/// One partition of the spool on its way.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) at: TopicPartition,
    pub(super) reader: LogReader,
    /// Read and not yet accepted by the producer.
    pub(super) waiting: VecDeque<Outgoing>,
    /// Sent, in order, and whether it was acknowledged.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Everything below is acknowledged, or refused for good and accounted for.
    pub(super) acked: NextOffset,
    pub(super) noted: NextOffset,
    /// The last attempt to note failed, and was logged.
    pub(super) is_note_failing: bool,
    /// Up to here one message is sent at a time: Kafka has refused a request that held several of these, and only alone
    /// does a message show whether it was the one.
    pub(super) careful_until: NextOffset,
}

/// A message of the spool, or a part of one that was too large.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) key: Option<Bytes>,
    pub(super) payload: Bytes,
    /// Of the whole message.
    pub(super) offset: i64,
    /// Nothing of the message comes after this.
    pub(super) is_last: bool,
}

impl Outgoing {
    /// Where the spool is acknowledged to, once this is.
    pub(super) fn next(&self) -> NextOffset {
        NextOffset(self.offset + i64::from(self.is_last))
    }
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self { key: message.key, payload: message.payload, offset: message.offset, is_last: true }
    }
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) token: usize,
    pub(super) offset: i64,
    pub(super) next: NextOffset,
    pub(super) acked: bool,
    /// What was sent, when it is the only one on its way: a refusal then means this one.
    pub(super) alone: Option<Outgoing>,
}

impl Lane {
    pub(super) fn open(root: &Path, at: &TopicPartition) -> Result<Self, LogError> {
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
        })
    }

    /// Goes back to what was not acknowledged.
    pub(super) fn start_again(&mut self, root: &Path) -> Result<(), LogError> {
        self.reader = LogReader::open(root, &self.at, self.acked)?;
        self.waiting.clear();
        self.in_flight.clear();
        Ok(())
    }

    /// Reads on. What is damaged is passed over and counted: records made from now on must not wait for it.
    pub(super) fn read(&mut self, next_token: &mut usize, damaged: &Counter) -> Result<(), LogError> {
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
            "messages of the spool are lost: shipping goes on behind them"
        );
        damaged.inc_by(messages);
        // The hole in the sequence numbers remains as the trace.
        if messages > 0 {
            self.in_flight.push_back(InFlight {
                token: *next_token,
                offset: next.0 - 1,
                next,
                acked: true,
                alone: None,
            });
            *next_token += 1;
        }
        Ok(())
    }

    /// Notes what was acknowledged. Failing to is no reason to end: it is tried again, and costs at most a repetition.
    pub(super) fn note(&mut self) {
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

    pub(super) fn is_careful(&self) -> bool {
        self.acked < self.careful_until
    }

    pub(super) fn in_flight_max(&self) -> usize {
        if self.is_careful() { 1 } else { IN_FLIGHT_MAX }
    }

    /// Notes what is on its way.
    pub(super) fn sent(&mut self, token: usize, message: Outgoing) {
        let alone = self.is_careful().then(|| message.clone());
        self.in_flight.push_back(InFlight { token, offset: message.offset, next: message.next(), acked: false, alone });
    }

    /// What Kafka never takes goes in halves ahead of all that waits, if it is too large. Else it is lost, counted, and done with.
    pub(super) fn refuse(&mut self, token: usize, message: Outgoing, is_too_large: bool, spool: &SyncSender<Input>) {
        if is_too_large && let Ok(Some([first, second])) = halve(&message.payload) {
            tracing::warn!(bytes = message.payload.len(), "a message is too large for the broker and goes in halves");
            self.waiting.push_front(Outgoing { payload: second, ..message.clone() });
            self.waiting.push_front(Outgoing { payload: first, is_last: false, ..message });
            return;
        }
        account(spool, &message.payload);
        let (offset, next) = (message.offset, message.next());
        self.in_flight.push_back(InFlight { token, offset, next, acked: true, alone: None });
    }

    /// Moves the acknowledged position over the acknowledged head.
    pub(super) fn advance(&mut self) {
        while self.in_flight.front().is_some_and(|sent| sent.acked)
            && let Some(sent) = self.in_flight.pop_front()
        {
            self.acked = sent.next;
        }
    }
}

/// Gives the rows of a lost message back to the account of their stream.
fn account(spool: &SyncSender<Input>, message: &[u8]) {
    match wire::peek(message) {
        Ok(header) => {
            let (rows, epoch) = (u64::from(header.rows), header.epoch);
            tracing::error!(
                rows,
                epoch,
                stream = header.stream.number(),
                "kafka never takes a message: its rows are lost"
            );
            // While draining, the receiver is gone: the hole in the sequence numbers remains as the trace.
            let _ = spool.send(Input::Rejected { epoch, stream: header.stream, rows, losses: header.losses });
        }
        Err(error) => tracing::error!(%error, "a message of the spool is not one of ours"),
    }
}
