use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use service_kit::admin::Readiness;
use service_kit::clock::SystemClock;
use staged::Staged;
use stream::SourceError;
use stream::log::{LogOptions, LogSource, LogWriter};

mod driven;

use super::*;

#[path = "../../tests/it/staged.rs"]
mod staged;

fn spawned(source: Staged) -> Result<ReaderThread, ReaderError> {
    let readable = Readiness::new().condition("log", "");
    spawn(Box::new(source), Budget::new(64 << 20), Arc::new(SystemClock), Rules::default(), readable)
}

#[test]
fn the_log_is_polled_however_long_the_service_is_busy_and_nothing_is_lost_meanwhile() {
    const MESSAGES: usize = 4 * EVENTS;
    let dir = tempfile::tempdir().unwrap();
    let at = TopicPartition::new("t", 0);
    let mut writer = LogWriter::open(dir.path(), &at, LogOptions::default()).unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let poll = move |log: &mut LogSource, timeout, max_bytes| {
        counted.fetch_add(1, Ordering::Relaxed);
        log.poll(timeout, max_bytes)
    };
    let source = Staged { poll: Box::new(poll), ..Staged::new(dir.path().to_owned(), ["t", "u"]) };
    let ReaderThread { commands, mut events, thread } = spawned(source).unwrap();
    while !matches!(events.blocking_recv().unwrap(), FromLog::Assigned(_)) {}
    commands
        .send(ToLog::Start(vec![Position { at, next: NextOffset(0), held: None, mark: None, identity: None }]))
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The events are not taken: one message per poll is more of them than the channel holds.
    for i in 0..MESSAGES {
        writer.append(None, &i.to_le_bytes(), 0).unwrap();
        writer.sync().unwrap();
        let before = polls.load(Ordering::Relaxed);
        while polls.load(Ordering::Relaxed) == before {
            assert!(Instant::now() < deadline, "the log is no longer polled after {before} times");
            std::thread::yield_now();
        }
    }
    let mut offsets = Vec::new();
    while offsets.len() < MESSAGES {
        match events.blocking_recv().unwrap() {
            FromLog::Arrivals(arrivals) => {
                offsets.extend(arrivals.iter().map(|charged| charged.arrival.message.offset))
            }
            FromLog::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(offsets, (0..MESSAGES as i64).collect::<Vec<_>>());
    drop((commands, events));
    thread.join().unwrap();
}

/// A group that changes while a partition is being started says so once: nothing is lost or skipped by it.
#[test]
fn a_start_refused_by_a_rebalance_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = TopicPartition::new("t", 0);
    let mut writer = LogWriter::open(dir.path(), &at, LogOptions::default()).unwrap();
    for i in 0..5u8 {
        writer.append(None, &[i], 0).unwrap();
    }
    writer.sync().unwrap();
    let mut starts = 0;
    let start = move |log: &mut LogSource, positions: &[_]| {
        starts += 1;
        if starts == 1 { Err(SourceError::Rebalanced) } else { log.start(positions) }
    };
    let source = Staged { start: Box::new(start), ..Staged::new(dir.path().to_owned(), ["t", "u"]) };
    let ReaderThread { commands, mut events, thread } = spawned(source).unwrap();
    while !matches!(events.blocking_recv().unwrap(), FromLog::Assigned(_)) {}
    commands
        .send(ToLog::Start(vec![Position { at, next: NextOffset(0), held: None, mark: None, identity: None }]))
        .unwrap();
    let (mut offsets, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    while offsets.len() < 5 {
        assert!(Instant::now() < deadline, "only {offsets:?} came");
        match events.blocking_recv().unwrap() {
            FromLog::Arrivals(arrivals) => {
                offsets.extend(arrivals.iter().map(|charged| charged.arrival.message.offset))
            }
            FromLog::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    drop((commands, events));
    thread.join().unwrap();
}
