//! A spool with a fault that a spool alone does not have.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_schema::position::{NextOffset, TopicPartition};
use stream::log::LogSource;
use stream::{LogIdentity, Source, SourceError, SourceEvent, SourceStats, Watermarks};

type Poll = dyn FnMut(&mut LogSource, Duration, usize) -> Result<SourceEvent, SourceError> + Send;
type Start = dyn FnMut(&mut LogSource, &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> + Send;

pub(crate) struct Staged {
    pub(crate) log: LogSource,
    /// What stands for a poll.
    pub(crate) poll: Box<Poll>,
    /// What stands for a start.
    pub(crate) start: Box<Start>,
    /// The log ends here, whatever the spool says.
    pub(crate) high: Option<NextOffset>,
    /// Another log that takes the place of this one, as a topic that is made anew: reading goes on in it at the old offset.
    pub(crate) successor: Arc<Mutex<Option<PathBuf>>>,
    pub(crate) topics: [String; 2],
    pub(crate) started: BTreeMap<TopicPartition, NextOffset>,
}

impl Staged {
    /// The spool as it is.
    pub(crate) fn new(spool: PathBuf, topics: [&str; 2]) -> Self {
        let poll = |log: &mut LogSource, timeout, max_bytes| log.poll(timeout, max_bytes);
        let start = |log: &mut LogSource, positions: &[_]| log.start(positions);
        Self {
            log: LogSource::new(spool, topics),
            poll: Box::new(poll),
            start: Box::new(start),
            high: None,
            successor: Arc::default(),
            topics: topics.map(str::to_owned),
            started: BTreeMap::new(),
        }
    }

    fn succeed(&mut self) -> Result<(), SourceError> {
        let Some(spool) = self.successor.lock().unwrap().take() else { return Ok(()) };
        self.log = LogSource::new(spool, self.topics.clone());
        self.log.poll(Duration::ZERO, 1)?;
        for (at, next) in &self.started {
            let end = self.log.end(at)?;
            // Kafka waits at the end of a log that is too short yet.
            self.log.start(&[(at.clone(), (*next).min(end))])?;
        }
        Ok(())
    }
}

impl Source for Staged {
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<SourceEvent, SourceError> {
        self.succeed()?;
        let event = (self.poll)(&mut self.log, timeout, max_bytes)?;
        if let SourceEvent::Messages(messages) = &event {
            self.started.extend(messages.iter().map(|message| (message.at.clone(), NextOffset(message.offset + 1))));
        }
        Ok(event)
    }

    fn start(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        (self.start)(&mut self.log, positions)?;
        self.started.extend(positions.iter().cloned());
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.log.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.log.resume(partitions)
    }

    fn report(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        self.log.report(positions)
    }

    fn watermarks(&mut self, at: &TopicPartition) -> Result<Watermarks, SourceError> {
        let found = self.log.watermarks(at)?;
        Ok(Watermarks { high: self.high.unwrap_or(found.high), ..found })
    }

    fn end(&mut self, at: &TopicPartition) -> Result<NextOffset, SourceError> {
        self.high.map_or_else(|| self.log.end(at), Ok)
    }

    fn identity(&mut self, at: &TopicPartition) -> Result<LogIdentity, SourceError> {
        self.log.identity(at)
    }

    fn fingerprint(&mut self, at: &TopicPartition, next: NextOffset) -> Result<Option<u32>, SourceError> {
        if self.high.is_some_and(|high| next > high) { Ok(None) } else { self.log.fingerprint(at, next) }
    }

    fn stats(&self) -> SourceStats {
        self.log.stats()
    }
}
