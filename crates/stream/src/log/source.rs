//! The spool directory as a [`Source`]: every partition found under it, also those that appear while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_schema::position::{Message, NextOffset, TopicPartition};

use super::{LogError, LogReader};
use crate::sequencer::{Sequencer, Verdict};
use crate::source::{GapError, LogIdentity, Source, SourceError, SourceEvent, SourceStats, Watermarks};

/// How often a source looks for records: it bounds the delay the directory adds.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often it looks after no record has come for [`QUIET_AFTER`], to use less CPU time on an idle machine.
const LOOK_QUIET_EVERY: Duration = Duration::from_millis(100);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// How often it looks for partitions that were not there before.
const DISCOVER_EVERY: Duration = Duration::from_millis(250);

/// A reader of all partitions of the given topics under one spool directory.
#[derive(Debug)]
pub struct LogSource {
    root: PathBuf,
    topics: Vec<Arc<str>>,
    partitions: BTreeMap<TopicPartition, State>,
    sequencer: Sequencer,
    discovered: Option<Instant>,
    /// When the last record came, or a partition was started.
    active: Instant,
    /// Where the next poll begins, so that a busy partition does not starve the others.
    turn: usize,
}

#[derive(Debug)]
enum State {
    /// Announced; the owner has not named its position yet.
    Assigned,
    Reading {
        reader: LogReader,
        paused: bool,
    },
}

impl LogSource {
    /// A source over `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>, topics: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        Self {
            root: root.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            partitions: BTreeMap::new(),
            sequencer: Sequencer::default(),
            discovered: None,
            active: Instant::now(),
            turn: 0,
        }
    }

    /// Partitions not seen before, if it is time to look.
    fn discover(&mut self) -> Result<Vec<TopicPartition>, LogError> {
        if self.discovered.is_some_and(|at| at.elapsed() < DISCOVER_EVERY) {
            return Ok(Vec::new());
        }
        self.discovered = Some(Instant::now());
        let mut found = Vec::new();
        for topic in &self.topics {
            found.extend(
                list_partitions(&self.root.join(&**topic))?.into_iter().map(|p| TopicPartition::new(topic.clone(), p)),
            );
        }
        found.retain(|at| !self.partitions.contains_key(at));
        self.partitions.extend(found.iter().map(|at| (at.clone(), State::Assigned)));
        Ok(found)
    }

    /// One round over the partitions.
    fn read(&mut self, max_bytes: usize) -> Result<Vec<Message>, SourceError> {
        let mut messages: Vec<Message> = Vec::new();
        let mut budget = max_bytes.max(1);
        let count = self.partitions.len();
        // Round robin: each poll begins one partition further on.
        self.turn = self.turn.wrapping_add(1);
        for index in 0..count {
            let turn = (self.turn + index) % count;
            let Some((at, State::Reading { reader, paused: false })) = self.partitions.iter_mut().nth(turn) else {
                continue;
            };
            let read = match reader.read(budget) {
                Ok(read) => read,
                // What other partitions gave is delivered; the next poll meets the damage again.
                Err(_) if !messages.is_empty() => break,
                Err(error) => return Err(located(at, error)),
            };
            for message in read {
                budget = budget.saturating_sub(message.held_bytes());
                match self.sequencer.admit(at, message.offset) {
                    Verdict::Take => messages.push(message),
                    Verdict::Replay | Verdict::Stale => (),
                    // What was read is delivered. The reader has passed the message, so that the gap shows with the
                    // next one.
                    Verdict::Gap { .. } if !messages.is_empty() => return Ok(messages),
                    Verdict::Gap { expected } => return Err(gap(at, expected, message.offset)),
                }
            }
            if budget == 0 {
                break;
            }
        }
        Ok(messages)
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], value: bool) -> Result<(), SourceError> {
        for at in partitions {
            match self.partitions.get_mut(at) {
                Some(State::Reading { paused, .. }) => *paused = value,
                _ => return Err(SourceError::NotAssigned(at.clone())),
            }
        }
        Ok(())
    }

    fn reader(&mut self, at: &TopicPartition) -> Option<&mut LogReader> {
        match self.partitions.get_mut(at) {
            Some(State::Reading { reader, .. }) => Some(reader),
            _ => None,
        }
    }
}

impl Source for LogSource {
    fn poll(&mut self, timeout: Duration, max_bytes: usize) -> Result<SourceEvent, SourceError> {
        let deadline = Instant::now() + timeout;
        loop {
            // A directory has no group: every partition that appears is ours.
            let found = self.discover()?;
            if !found.is_empty() {
                return Ok(SourceEvent::Assigned(found));
            }
            let messages = self.read(max_bytes)?;
            if !messages.is_empty() {
                self.active = Instant::now();
                return Ok(SourceEvent::Messages(messages));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(SourceEvent::Idle);
            }
            let is_quiet = self.active.elapsed() >= QUIET_AFTER;
            // The writer may be another process: there is nothing to be woken by.
            std::thread::sleep(left.min(if is_quiet { LOOK_QUIET_EVERY } else { LOOK_EVERY }));
        }
    }

    fn start(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        for (at, next) in positions {
            let Some(state) = self.partitions.get_mut(at) else { return Err(SourceError::NotAssigned(at.clone())) };
            let reader = LogReader::open(&self.root, at, *next).map_err(|error| located(at, error))?;
            *state = State::Reading { reader, paused: false };
            self.sequencer.assign(at.clone(), *next);
        }
        self.active = Instant::now();
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceError> {
        self.set_paused(partitions, false)
    }

    fn report(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        for (at, next) in positions {
            let Some(reader) = self.reader(at) else { return Err(SourceError::NotAssigned(at.clone())) };
            reader.report_landed(*next)?;
        }
        Ok(())
    }

    fn watermarks(&mut self, at: &TopicPartition) -> Result<Watermarks, SourceError> {
        if let Some(reader) = self.reader(at) {
            return Ok(reader.watermarks()?);
        }
        Ok(super::reader::watermarks(&self.root, at)?)
    }

    fn end(&mut self, at: &TopicPartition) -> Result<NextOffset, SourceError> {
        Ok(super::reader::end_with_unsynced(&self.root, at)?)
    }

    fn identity(&mut self, at: &TopicPartition) -> Result<LogIdentity, SourceError> {
        Ok(super::sidecar::read_identity(&super::partition_dir(&self.root, at))?)
    }

    fn fingerprint(&mut self, at: &TopicPartition, next: NextOffset) -> Result<Option<u32>, SourceError> {
        // Through a reader of its own: the position of the one that is read from stays.
        Ok(super::reader::fingerprint_below(&self.root, at, next)?)
    }

    fn stats(&self) -> SourceStats {
        self.sequencer.stats()
    }
}

fn gap(at: &TopicPartition, expected: NextOffset, got: i64) -> SourceError {
    GapError { partition: at.clone(), expected, got, low_watermark: None }.into()
}

/// The same words for the spool as for Kafka when a position is not in the log.
fn located(at: &TopicPartition, error: LogError) -> SourceError {
    match error {
        LogError::BelowLowWatermark { next, low, .. } => SourceError::Retention { partition: at.clone(), next, low },
        LogError::AboveEnd { next, high, .. } => SourceError::Truncated { partition: at.clone(), next, high },
        error => error.into(),
    }
}

/// Numbered directories of a topic. A directory without an identity is one that a writer is just making.
pub(super) fn list_partitions(topic: &Path) -> Result<Vec<i32>, LogError> {
    let entries = match fs::read_dir(topic) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::io("list", topic)(error)),
    };
    let mut partitions = Vec::new();
    for entry in entries {
        let entry = entry.map_err(LogError::io("list", topic))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()).filter(|number| *number >= 0);
        // A writer makes the identity before the first segment.
        if super::sidecar::has_identity(&entry.path()) {
            partitions.extend(number);
        }
    }
    partitions.sort_unstable();
    Ok(partitions)
}
