//! The reader's decisions step by step, over a log that gives what the test has prepared.

use std::sync::Mutex;

use stream::kafka::KafkaError;
use stream::{LogIdentity, SourceStats, Watermarks};

use super::*;
use crate::mark::Mark;

/// What the log gives, and what was asked of it.
#[derive(Default)]
struct Script {
    events: VecDeque<Result<SourceEvent, SourceError>>,
    /// By partition; those not named are of the log `first`.
    identities: BTreeMap<TopicPartition, String>,
    is_away: bool,
    undecided: u64,
    /// Where the log begins.
    low: NextOffset,
    /// Where it begins once it was asked for that the next time: retention goes on behind the answer.
    low_after: Option<NextOffset>,
    held_up: Option<String>,
    pauses: usize,
    reads_on: usize,
    /// How many partitions each call that succeeded has started.
    starts: Vec<usize>,
}

/// A log that follows a script.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

impl Source for Scripted {
    fn poll(&mut self, _: Duration, _: usize) -> Result<SourceEvent, SourceError> {
        self.with(|script| script.events.pop_front().unwrap_or(Ok(SourceEvent::Idle)))
    }

    fn start(&mut self, positions: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        let low = self.with(|script| script.low);
        match positions.iter().find(|(_, next)| *next < low) {
            Some((at, next)) => Err(SourceError::Retention { partition: at.clone(), next: *next, low }),
            None => {
                self.with(|script| script.starts.push(positions.len()));
                Ok(())
            }
        }
    }

    fn pause(&mut self, _: &[TopicPartition]) -> Result<(), SourceError> {
        self.with(|script| script.pauses += 1);
        Ok(())
    }

    fn resume(&mut self, _: &[TopicPartition]) -> Result<(), SourceError> {
        Ok(())
    }

    fn report(&mut self, _: &[(TopicPartition, NextOffset)]) -> Result<(), SourceError> {
        Ok(())
    }

    fn watermarks(&mut self, _: &TopicPartition) -> Result<Watermarks, SourceError> {
        self.with(|script| {
            let low = script.low;
            script.low = script.low_after.take().unwrap_or(low);
            Ok(Watermarks { low, high: NextOffset(9) })
        })
    }

    fn identity(&mut self, at: &TopicPartition) -> Result<LogIdentity, SourceError> {
        self.with(|script| {
            if script.is_away {
                let waited = Duration::from_secs(3);
                return Err(KafkaError::Unreachable { brokers: "b".to_owned(), waited, last_error: None }.into());
            }
            Ok(LogIdentity(script.identities.get(at).cloned().unwrap_or_else(|| "first".to_owned())))
        })
    }

    fn fingerprint(&mut self, _: &TopicPartition, _: NextOffset) -> Result<Option<u32>, SourceError> {
        Ok(None)
    }

    fn undecided(&self) -> Vec<(TopicPartition, u64)> {
        vec![(at(0), self.with(|script| script.undecided))]
    }

    fn read_on(&mut self) {
        self.with(|script| script.reads_on += 1);
    }

    fn held_up(&self) -> Option<String> {
        self.with(|script| script.held_up.clone())
    }

    fn stats(&self) -> SourceStats {
        SourceStats::default()
    }
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// A reader whose steps the test takes.
struct Driven {
    log: Scripted,
    reader: Reader,
    commands: Sender<ToLog>,
    events: tokio_mpsc::Receiver<FromLog>,
    readiness: Readiness,
}

impl Driven {
    /// Reads these partitions.
    fn reading(partitions: &[i32]) -> Self {
        let (log, readiness) = (Scripted::default(), Readiness::new());
        let (commands, obey) = channel();
        let (sender, events) = tokio_mpsc::channel(EVENTS);
        let rules = Rules { on_new_log: OnNewLog::Follow, ..Rules::default() };
        let readable = readiness.condition("log", "");
        let intake = Intake { budget: Budget::new(64 << 20), clock: Arc::new(SystemClock) };
        let reader = Reader::new(Box::new(log.clone()), intake, rules, readable, Channels { obey, events: sender });
        let mut driven = Self { log, reader, commands, events, readiness };
        for partition in partitions {
            driven.start(at(*partition), None);
        }
        driven
    }

    /// Begins to read a log; returns the identity that was found.
    fn start(&mut self, at: TopicPartition, mark: Option<Mark>) -> String {
        let position = Position { at: at.clone(), next: NextOffset(0), held: None, mark, identity: None };
        self.commands.send(ToLog::Start(vec![position])).unwrap();
        self.step().unwrap();
        let started = self.drain().into_iter().find_map(|event| match event {
            FromLog::Started { at: started, identity, .. } if started == at => Some(identity),
            _ => None,
        });
        started.unwrap_or_else(|| panic!("{at} is not read"))
    }

    fn step(&mut self) -> Result<(), ReaderError> {
        self.reader.step().map(|going| assert!(going.is_ok(), "the service is gone"))
    }

    fn drain(&mut self) -> Vec<FromLog> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Polls an error, then asks for the identities.
    fn fail(&mut self, error: SourceError) -> Result<(), ReaderError> {
        self.log.with(|script| script.events.push_back(Err(error)));
        self.reader.poll()?;
        self.reader.confirm()
    }

    fn identify(&self, partition: i32, identity: &str) {
        self.log.with(|script| script.identities.insert(at(partition), identity.to_owned()));
    }

    fn shown(&self) -> String {
        self.readiness.unmet().into_iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
    }
}

fn login_refused() -> SourceError {
    KafkaError::Refused { brokers: "b".to_owned(), last_error: None }.into()
}

#[test]
fn retention_that_goes_on_while_a_partition_is_started_is_met_as_one_that_had_gone_on_before() {
    let gap = Some(NextOffset(0));
    let no_gap = Some(NextOffset(4));
    for (held, on_gap, is_read) in
        [(gap, OnGap::Record, true), (gap, OnGap::Stop, false), (no_gap, OnGap::Stop, true), (None, OnGap::Stop, true)]
    {
        let mut driven = Driven::reading(&[]);
        driven.reader.rules.on_gap = on_gap;
        driven.log.with(|script| script.low_after = Some(NextOffset(4)));
        let position = Position { at: at(0), next: NextOffset(0), held, mark: None, identity: None };
        driven.commands.send(ToLog::Start(vec![position])).unwrap();
        let stepped = driven.step().and_then(|()| driven.step());
        let begin = driven.drain().into_iter().find_map(|event| match event {
            FromLog::Started { begin, .. } => Some(begin),
            _ => None,
        });
        assert_eq!(begin, is_read.then_some(NextOffset(4)), "{held:?} {on_gap:?} {stepped:?}");
        let is_overtaken = matches!(stepped, Err(ReaderError::Overtaken { low: NextOffset(4), .. }));
        assert_eq!((stepped.is_ok(), is_overtaken), (is_read, !is_read), "{held:?} {on_gap:?} {stepped:?}");
    }
}

#[test]
fn partitions_that_are_assigned_together_are_started_together_and_by_themselves_where_one_cannot_be() {
    for (second, starts) in [("first", vec![3]), ("another", vec![1, 1])] {
        let mut driven = Driven::reading(&[]);
        driven.identify(1, second);
        let position = |partition| {
            let mark = Mark { next: NextOffset(0), fingerprint: None, identity: "first".to_owned() };
            let held = Some(NextOffset(0));
            Position { at: at(partition), next: NextOffset(0), held, mark: Some(mark), identity: None }
        };
        driven.commands.send(ToLog::Start((0..3).map(position).collect())).unwrap();
        let mut events = Vec::new();
        // One step for all, and one for each when that has failed.
        for _ in 0..4 {
            driven.step().unwrap();
            events.extend(driven.drain());
        }
        assert_eq!(driven.log.with(|script| script.starts.clone()), starts, "{second}");
        let is_started = |event: &&FromLog| matches!(event, FromLog::Started { .. });
        assert_eq!(events.iter().filter(is_started).count(), starts.iter().sum::<usize>(), "{second}");
        let is_replaced = |event: &FromLog| matches!(event, FromLog::Replaced(log) if *log == at(1));
        assert_eq!(events.iter().any(is_replaced), second == "another", "{second}");
        assert!(driven.reader.waiting.is_empty(), "{second}");
    }
}

/// Two partitions are replaced; one by one the new logs are read, or the partition is gone.
#[test]
fn a_refused_position_is_passed_over_while_a_replaced_log_is_not_read_yet_and_no_longer() {
    let mut driven = Driven::reading(&[0, 1, 2]);
    for partition in [0, 1] {
        driven.identify(partition, "second");
    }
    driven.fail(SourceError::Refused).unwrap();
    assert_eq!(driven.log.with(|script| script.reads_on), 1, "the other partitions are read on");
    driven.start(at(0).of_generation(2), None);
    driven.fail(SourceError::Refused).unwrap();
    driven.reader.revoked(vec![at(1)]);
    let refused = driven.fail(SourceError::Refused).unwrap_err();
    assert!(refused.is_refused_position(), "{refused}");
}

#[test]
fn only_a_refused_position_is_passed_over_while_a_log_is_replaced() {
    let mut driven = Driven::reading(&[0, 1]);
    driven.identify(0, "second");
    driven.fail(SourceError::Refused).unwrap();
    let refused = driven.fail(login_refused()).unwrap_err();
    assert!(refused.to_string().contains("the log cannot be read"), "{refused}");
}

/// What truncated one partition may have truncated the other.
#[test]
fn a_refused_position_is_not_passed_over_while_a_truncated_log_waits_to_be_read_anew() {
    let mut driven = Driven::reading(&[1]);
    let next = NextOffset(12);
    let mark = Mark { next, fingerprint: None, identity: "first".to_owned() };
    let position = Position { at: at(0), next, held: Some(next), mark: Some(mark), identity: None };
    driven.commands.send(ToLog::Start(vec![position])).unwrap();
    driven.step().unwrap();
    assert_eq!(driven.reader.replaced.front().map(|(log, _)| log), Some(&at(0)));
    let refused = driven.fail(SourceError::Refused).unwrap_err();
    assert!(refused.is_refused_position(), "{refused}");
}

#[test]
fn a_login_that_is_refused_ends_reading_although_no_identity_is_answered() {
    let mut driven = Driven::reading(&[0]);
    driven.log.with(|script| script.is_away = true);
    driven.fail(SourceError::Refused).unwrap();
    assert!(driven.shown().contains("kafka refused a position"), "{}", driven.shown());
    driven.step().unwrap();
    driven.fail(login_refused()).unwrap_err();
}

#[test]
fn what_is_handed_over_at_once_does_not_pause_the_log() {
    let mut driven = Driven::reading(&[0]);
    driven.log.with(|script| script.undecided = 5);
    driven.reader.check.forget();
    driven.step().unwrap();
    let undecided = |event: &FromLog| matches!(event, FromLog::Undecided(found) if found[..] == [(at(0), 5)]);
    assert!(driven.drain().iter().any(undecided));
    assert_eq!(driven.log.with(|script| script.pauses), 0);
}

#[test]
fn brokers_that_begin_or_cease_to_give_identities_do_not_replace_a_log() {
    let mut driven = Driven::reading(&[]);
    let mark = Mark { next: NextOffset(0), fingerprint: None, identity: "first".to_owned() };
    let unmarked = Mark { identity: LogIdentity::UNKNOWN.to_owned(), ..mark.clone() };
    driven.identify(0, LogIdentity::UNKNOWN);
    driven.identify(1, "second");
    assert_eq!(driven.start(at(0), Some(mark)), "first", "what is known stays known");
    assert_eq!(driven.start(at(1), Some(unmarked)), "second");
    driven.identify(0, "first");
    driven.identify(1, LogIdentity::UNKNOWN);
    driven.reader.confirm().unwrap();
    assert_eq!(driven.reader.started.len(), 2);
    driven.identify(1, "third");
    driven.reader.confirm().unwrap();
    assert_eq!(driven.reader.started.keys().collect::<Vec<_>>(), [&at(0)]);
}

#[test]
fn identities_that_come_under_way_are_those_of_the_log_from_then_on() {
    let mut driven = Driven::reading(&[]);
    driven.identify(0, LogIdentity::UNKNOWN);
    driven.start(at(0), None);
    for (identity, is_read) in [("first", true), ("first", true), ("second", false)] {
        driven.identify(0, identity);
        driven.reader.confirm().unwrap();
        assert_eq!(driven.reader.started.contains_key(&at(0)), is_read, "{identity}");
    }
}

#[test]
fn what_the_log_and_the_service_wait_for_is_shown_until_it_is_over() {
    let mut driven = Driven::reading(&[0]);
    driven.step().unwrap();
    assert!(driven.readiness.is_ready());
    driven.commands.send(ToLog::Awaits(Some("another member".to_owned()))).unwrap();
    driven.step().unwrap();
    assert_eq!(driven.shown(), "log: another member");
    driven.log.with(|script| script.held_up = Some("a second reading".to_owned()));
    driven.step().unwrap();
    assert_eq!(driven.shown(), "log: a second reading");
    driven.log.with(|script| script.held_up = None);
    driven.commands.send(ToLog::Awaits(None)).unwrap();
    driven.step().unwrap();
    assert!(driven.readiness.is_ready());
}
