//! What goes in comes out numbered and accounted for, or is reported as lost.

use std::sync::mpsc::sync_channel;

use event_schema::batch::{Event, EventRows};
use event_schema::identity::first_seq;
use event_schema::position::NextOffset;
use event_schema::wire::{Decoded, Header};
use stream::log::LogReader;
use tempfile::TempDir;

use super::*;
use crate::facts::Session;
use crate::identity::Identity;

fn options(dir: &TempDir, max_bytes: u64) -> SpoolOptions {
    let log = LogOptions { segment_bytes: 2000, max_bytes, fsync: Fsync::Manual };
    SpoolOptions { dir: dir.path().to_owned(), log, shared: false }
}

fn open(options: &SpoolOptions, epoch: i64) -> Spool {
    let identity = Identity { cluster: "c".into(), node: "n".into(), boot_id: "b".into(), epoch, agent: "a".into() };
    Spool::open(options.clone(), Numbering::new(identity), Metrics::default()).unwrap()
}

fn cut(stream: Stream, rows: u64) -> Cut {
    let mut builder = EventRows::new();
    (0..rows).for_each(|i| builder.push(&Event { boot_ns: 1 + i as i64, sample_weight: 1.0, ..Event::default() }));
    let losses = LossCounters { emitted: rows, ..LossCounters::default() };
    Cut { stream, kind: RecordKind::Event, batch: builder.finish().unwrap(), losses }
}

/// Runs the spool thread's body over some inputs.
fn run(spool: Spool, inputs: impl IntoIterator<Item = Input>) {
    let (sender, receiver) = sync_channel(1000);
    inputs.into_iter().chain([Input::End]).for_each(|input| sender.send(input).unwrap());
    spool.run(&receiver);
}

fn read(options: &SpoolOptions, topic: &str) -> Vec<Decoded> {
    let mut reader = LogReader::resume(&options.dir, &TopicPartition::new(topic, 0)).unwrap();
    reader.read(usize::MAX).unwrap().iter().map(|message| wire::decode(&message.payload).unwrap()).collect()
}

/// Rows, and the sum of what the headers report; checks that the numbers are contiguous.
fn account(messages: &[Decoded], epoch: i64, stream: Stream) -> (u64, LossCounters) {
    let (mut next, mut rows, mut reported) = (first_seq(epoch, stream).unwrap(), 0, LossCounters::default());
    let headers = messages.iter().map(|message| &message.header).filter(|h| (h.epoch, h.stream) == (epoch, stream));
    for Header { first_seq, rows: count, losses, .. } in headers {
        assert_eq!(*first_seq, next);
        next += i64::from(*count);
        rows += u64::from(*count);
        reported += *losses;
    }
    (rows, reported)
}

#[test]
fn batches_are_numbered_per_stream_and_go_to_their_topics() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir, 1 << 30);
    run(
        open(&options, 4),
        (1..6).flat_map(|n| [Input::Cut(cut(Stream::Data, n)), Input::Cut(cut(Stream::Critical, 1))]),
    );
    let (events, critical) = (read(&options, topics::EVENTS), read(&options, topics::CRITICAL));
    assert_eq!(account(&events, 4, Stream::Data).0, 15);
    assert_eq!(account(&critical, 4, Stream::Critical).0, 5);
    let header = &events[0].header;
    assert_eq!((header.node.as_str(), header.boot_id.as_str(), header.agent.as_str()), ("n", "b", "a"));
    assert!(header.beacon.wall_ns > 1_600_000_000_000_000_000 && header.beacon.error_ns > 0);
}

#[test]
fn the_next_epoch_keeps_what_the_last_one_left() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir, 1 << 30);
    for epoch in 0..3 {
        run(open(&options, epoch), [Input::Cut(cut(Stream::Data, 7))]);
    }
    let events = read(&options, topics::EVENTS);
    for epoch in 0..3 {
        assert_eq!(account(&events, epoch, Stream::Data).0, 7);
    }
}

#[test]
fn a_full_spool_drops_and_counts_and_tells_when_there_is_room_again() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir, 6000);
    let mut spool = open(&options, 0);
    let metrics = spool.metrics.clone();
    for _ in 0..100 {
        spool.put(&cut(Stream::Data, 10));
    }
    assert_eq!(spool.try_put(&cut(Stream::Data, 10)).unwrap(), Some(FullBy::Limit));
    spool.sync();
    let before = read(&options, topics::EVENTS);
    let kept = before.len() as u64;
    assert!((3..90).contains(&kept), "{kept}");
    assert_eq!((metrics.spooled.get(), metrics.spool_drop.get()), (kept * 10, (100 - kept) * 10));
    let reader = LogReader::resume(&options.dir, &TopicPartition::new(topics::EVENTS, 0)).unwrap();
    reader.report_landed(NextOffset(kept as i64)).unwrap();
    // The end writes one more batch, empty, that reports what was dropped.
    run(spool, []);
    let mut messages = before;
    messages.extend(read(&options, topics::EVENTS));
    let (rows, reported) = account(&messages, 0, Stream::Data);
    assert_eq!((rows, reported.spool_drop), (kept * 10, (100 - kept) * 10));
    assert_eq!(reported.emitted, 1000);
}

#[test]
fn a_queue_that_is_never_empty_does_not_hold_up_readers() {
    const BATCHES: usize = 10_000;
    let dir = TempDir::new().unwrap();
    let mut options = options(&dir, 1 << 30);
    options.log.segment_bytes = 1 << 30;
    let spool = open(&options, 0);
    let spooled = spool.metrics.spooled.clone();
    let (sender, receiver) = sync_channel(BATCHES + 1);
    let cut = cut(Stream::Data, 1);
    (0..BATCHES).for_each(|_| sender.send(Input::Cut(cut.clone())).unwrap());
    sender.send(Input::End).unwrap();
    let mut reader = LogReader::open(&options.dir, &TopicPartition::new(topics::EVENTS, 0), NextOffset(0)).unwrap();
    let spooling = std::thread::spawn(move || spool.run(&receiver));
    let mut at_once = 0;
    while at_once == 0 {
        at_once = reader.read(usize::MAX).unwrap().len();
        assert!(at_once > 0 || spooled.get() < BATCHES as u64 || !spooling.is_finished());
    }
    assert!(at_once < BATCHES, "a reader waits until the queue is empty");
    spooling.join().unwrap();
}

#[test]
fn a_message_refused_later_is_told_as_lost_in_its_own_epoch() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir, 1 << 30);
    let losses = LossCounters { emitted: 12, ring_drop: 2, ..LossCounters::default() };
    let rejected = |epoch| Input::Rejected { epoch, stream: Stream::Data, rows: 10, losses };
    run(open(&options, 5), [rejected(4), rejected(5), Input::Cut(cut(Stream::Data, 3))]);
    let (rows, reported) = account(&read(&options, topics::EVENTS), 5, Stream::Data);
    assert_eq!(
        (rows, reported),
        (3, LossCounters { emitted: 15, ring_drop: 2, spool_drop: 10, ..LossCounters::default() })
    );
}

#[test]
fn a_second_agent_on_the_same_spool_is_refused_unless_the_spool_is_shared() {
    let dir = TempDir::new().unwrap();
    let own = options(&dir, 1 << 30);
    let _first = open(&own, 0);
    let numbering = || Numbering::new(_first.numbering.identity().clone());
    let refused = Spool::open(own.clone(), numbering(), Metrics::default());
    assert!(matches!(refused, Err(LogError::Locked { .. })));
    let shared = SpoolOptions { shared: true, ..own };
    let second = Spool::open(shared, numbering(), Metrics::default()).unwrap();
    assert_eq!(second.partitions().map(|at| at.partition), [1, 1]);
}

#[test]
fn a_stream_that_has_used_up_its_numbers_goes_on_in_a_new_epoch() {
    let dir = TempDir::new().unwrap();
    let options = options(&dir, 1 << 30);
    let mut spool = open(&options, 4);
    spool.numbering.use_up(Stream::Data, 10);
    let cuts = [(Stream::Data, 7), (Stream::Critical, 1), (Stream::Data, 3), (Stream::Data, 5), (Stream::Critical, 2)];
    let facts = Session::read(1, "a", String::new()).record(1, None).unwrap();
    let cuts = cuts.map(|(stream, rows)| Input::Cut(cut(stream, rows)));
    run(spool, [Input::Cut(facts)].into_iter().chain(cuts));
    let (events, critical) = (read(&options, topics::EVENTS), read(&options, topics::CRITICAL));
    let epoch = events[2].header.epoch;
    assert!(epoch > 4);
    assert_eq!([&events[0], &events[1]].map(|message| message.header.epoch), [4, 4]);
    assert_eq!(Some(events[1].header.end_seq()), first_seq(4, Stream::Critical), "to the last number");
    assert_eq!(account(&events, epoch, Stream::Data), (5, LossCounters { emitted: 5, ..LossCounters::default() }));
    assert_eq!((account(&critical, 4, Stream::Critical).0, account(&critical, epoch, Stream::Critical).0), (1, 2));
    let sessions = critical.iter().filter(|message| message.header.kind == RecordKind::Session);
    assert_eq!(sessions.map(|message| message.header.epoch).collect::<Vec<_>>(), [4, epoch]);
}

/// A file system of one MiB, gone with the value.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with a word, when it cannot be mounted.
    fn mount() -> Option<Self> {
        use std::io::Write;
        let dir = TempDir::new().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(dir.path())
            .output()
            .is_ok_and(|mount| mount.status.success());
        if !mounted {
            // Past the test runner, which keeps what is printed to itself.
            let _ = writeln!(std::io::stderr(), "skipped: mounting a small disk needs root");
        }
        mounted.then_some(Self(dir))
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(self.0.path().join("filler")).unwrap();
        for bytes in [4096, 1] {
            while std::io::Write::write_all(&mut file, &vec![0; bytes]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn root_an_agent_starts_on_a_disk_full_of_its_spool_and_makes_room() {
    // With one record per segment it is the next segment that there is no room for.
    for segment_bytes in [50_000, 1] {
        let Some(disk) = SmallDisk::mount() else { return };
        let log = LogOptions { segment_bytes, max_bytes: 1 << 30, fsync: Fsync::Manual };
        let options = SpoolOptions { log, ..options(&disk.0, 0) };
        let establish = || Identity::establish("c", Some("n"), disk.0.path()).unwrap();
        let first = establish();
        let mut spool = Spool::open(options.clone(), Numbering::new(first.clone()), Metrics::default()).unwrap();
        while spool.metrics.spool_drop.get() == 0 {
            spool.put(&cut(Stream::Data, 100));
        }
        assert_eq!(spool.try_put(&cut(Stream::Data, 100)).unwrap(), Some(FullBy::Disk));
        spool.sync();
        disk.fill();
        drop(spool);
        let second = establish();
        assert!(second.epoch > first.epoch);
        let mut spool = Spool::open(options.clone(), Numbering::new(second.clone()), Metrics::default()).unwrap();
        let mut reader = LogReader::resume(&options.dir, &TopicPartition::new(topics::EVENTS, 0)).unwrap();
        let high = reader.watermarks().unwrap().high;
        reader.report_landed(high).unwrap();
        spool.put(&cut(Stream::Data, 3));
        spool.sync();
        assert_eq!(account(&read(&options, topics::EVENTS), second.epoch, Stream::Data).0, 3);
        // One whose epoch was never recorded here has no room for that either.
        std::fs::remove_file(disk.0.path().join("epoch")).unwrap();
        disk.fill();
        assert!(establish().epoch > 0);
        assert_eq!(std::fs::read(disk.0.path().join("epoch")).unwrap(), b"");
    }
}
