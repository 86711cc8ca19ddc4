//! From the spool to Kafka: in order per topic, from where the acknowledgements of the last run ended. After a crash between an
//! acknowledgement and the note of it the same bytes are sent again; the centre drops them by their sequence numbers. What is
//! too large for the broker goes in halves.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, TopicPartition};
use stream::kafka::{Delivery, KafkaConfig, KafkaError, KafkaProducer, Sent};
use stream::log::LogError;

use crate::metrics::Metrics;
use crate::spool::Input;

mod lane;

use lane::{IN_FLIGHT_MAX, Lane};

/// How long the thread waits for an acknowledgement before it looks at the spool again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often acknowledged positions are noted, at most.
const NOTE_EVERY: Duration = Duration::from_millis(200);
/// Pause after Kafka refused something that may pass later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What ends shipping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Goes on for ever.
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
    next_token: usize,
    noted: Instant,
    metrics: Metrics,
    spool: SyncSender<Input>,
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
        let lanes = partitions.iter().map(|at| Lane::open(root, at)).collect::<Result<_, _>>()?;
        Ok(Self {
            root: root.to_owned(),
            config: config.clone(),
            producer: KafkaProducer::open(config)?,
            lanes,
            next_token: 0,
            noted: Instant::now(),
            metrics,
            spool,
        })
    }

    /// Ships until it is to end. `until` is asked at every turn.
    pub(crate) fn run(mut self, until: impl Fn() -> Until) -> Result<(), ShipError> {
        loop {
            let progress = self.turn()?;
            match until() {
                Until::Empty { latest } if self.is_empty()? || Instant::now() >= latest => break,
                _ => {}
            }
            if !progress && let Some(delivery) = self.producer.delivery(LOOK_EVERY) {
                self.settle(delivery)?;
            }
        }
        self.note()
    }

    /// Sends what can be sent and settles what was delivered. True when it got anywhere.
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

    fn send(&mut self, lane: usize) -> Result<bool, ShipError> {
        let Self { lanes, producer, next_token, spool, metrics, .. } = self;
        let lane = &mut lanes[lane];
        if lane.waiting.is_empty() && lane.in_flight.len() < IN_FLIGHT_MAX {
            lane.read(next_token, &metrics.spool_damaged)?;
        }
        let mut progress = false;
        while lane.in_flight.len() < lane.in_flight_max()
            && let Some(message) = lane.waiting.front()
        {
            let sent = producer.send(&lane.at.topic, message.key.as_deref(), &message.payload, &[], *next_token);
            let rejected = match sent {
                Ok(Sent::Full) => break,
                Ok(Sent::Queued) => false,
                Err(KafkaError::TooLarge { .. }) => true,
                // The client has given up for good, as it does when the broker forgot it: a new one can go on.
                Err(error) => {
                    std::thread::sleep(RETRY_AFTER);
                    return self.start_again(&error).map(|()| true);
                }
            };
            let Some(message) = lane.waiting.pop_front() else { break };
            let token = *next_token;
            *next_token += 1;
            if rejected {
                lane.refuse(token, message, true, spool);
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
        let found = self.lanes.iter_mut().find_map(|lane| {
            let at = lane.in_flight.binary_search_by_key(&delivery.token, |sent| sent.token).ok()?;
            Some((lane, at))
        });
        // A delivery of the producer before this one.
        let Some((lane, at)) = found else { return Ok(()) };
        match delivery.result {
            Ok(_) => {
                self.metrics.shipped.inc();
            }
            Err(rejection) if rejection.is_permanent() => {
                let Some(refused) = lane.in_flight[at].alone.take() else {
                    lane.careful_until = NextOffset(lane.in_flight.back().map_or(0, |sent| sent.offset + 1));
                    return self.start_again(&rejection);
                };
                lane.in_flight.clear();
                lane.refuse(delivery.token, refused, rejection.is_too_large(), &self.spool);
                lane.advance();
                return Ok(());
            }
            Err(rejection) => {
                std::thread::sleep(RETRY_AFTER);
                return self.start_again(&rejection);
            }
        }
        lane.in_flight[at].acked = true;
        lane.advance();
        Ok(())
    }

    fn start_again(&mut self, why: &(dyn Error + 'static)) -> Result<(), ShipError> {
        tracing::warn!(error = %why, "kafka refused a message: sending again from the last acknowledged one");
        self.note()?;
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
            unshipped += lane.reader.watermarks()?.high.0 - lane.acked.0;
        }
        self.metrics.unshipped.set(unshipped);
        Ok(())
    }

    fn is_empty(&mut self) -> Result<bool, ShipError> {
        for lane in &mut self.lanes {
            if lane.acked < lane.reader.watermarks()?.high {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
