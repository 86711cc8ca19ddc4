//! Several members of one group, and a broker that is killed: with positions kept at the table, every message lands once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event_schema::position::{Message, NextOffset, TopicPartition};
use stream::kafka::{KafkaConfig, KafkaProducer, KafkaSource};
use stream::{Source, SourceEvent};

use crate::broker::Broker;
use crate::kafka::send;

const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// What a table is to ingest: positions and what landed, moved together.
#[derive(Debug, Default)]
struct Table(Mutex<BTreeMap<TopicPartition, Vec<String>>>);

impl Table {
    fn positions(&self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, NextOffset)> {
        let table = self.0.lock().unwrap();
        let next = |at| NextOffset(table.get(at).map_or(0, |landed| landed.len() as i64));
        partitions.iter().map(|at| (at.clone(), next(at))).collect()
    }

    /// Lands a batch; what another member has landed meanwhile is trimmed, a hole is a bug.
    fn land(&self, messages: Vec<Message>) {
        let mut table = self.0.lock().unwrap();
        for message in messages {
            let landed = table.entry(message.at.clone()).or_default();
            let next = landed.len() as i64;
            assert!(message.offset <= next, "{} jumped from {next} to {}", message.at, message.offset);
            if message.offset == next {
                landed.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
        }
    }

    fn rows(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }

    fn wait_for(&self, rows: usize) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.rows() < rows {
            assert!(Instant::now() < deadline, "{} of {rows} landed", self.rows());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every number once, and rising within a key.
    fn check(&self, count: usize) {
        let table = self.0.lock().unwrap();
        let mut seen: Vec<usize> = Vec::new();
        for landed in table.values() {
            let mut last: BTreeMap<&str, usize> = BTreeMap::new();
            for payload in landed {
                let (key, number) = payload.split_once(' ').unwrap();
                let number: usize = number.parse().unwrap();
                assert!(last.insert(key, number).is_none_or(|last| last < number), "{payload} out of order");
                seen.push(number);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}

struct Member {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// What a member has read and not landed, and what it is to start.
struct Reading {
    table: Arc<Table>,
    read: Arc<AtomicUsize>,
    unlanded: Vec<Message>,
    assigned: Vec<TopicPartition>,
}

impl Reading {
    fn turn(&mut self, source: &mut KafkaSource) {
        // A broker that is away is asked again, as ingest does it.
        match source.start(&self.table.positions(&self.assigned)) {
            Ok(()) => self.assigned.clear(),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        match source.poll(Duration::from_millis(50), 1 << 16).unwrap() {
            SourceEvent::Assigned(partitions) => self.assigned.extend(partitions),
            SourceEvent::Messages(messages) => {
                self.read.fetch_add(messages.len(), Ordering::Relaxed);
                // Landed one poll later, so that rebalances find messages that have not landed.
                self.table.land(std::mem::replace(&mut self.unlanded, messages));
            }
            SourceEvent::Revoked(partitions) => {
                self.assigned.retain(|at| !partitions.contains(at));
                self.table.land(std::mem::take(&mut self.unlanded));
            }
            SourceEvent::Skipped(_) | SourceEvent::Idle => self.table.land(std::mem::take(&mut self.unlanded)),
        }
    }
}

impl Member {
    fn join(config: &KafkaConfig, table: &Arc<Table>) -> Self {
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), read.clone());
        // Here, as the thread may come to it only when the broker was killed.
        let mut source = KafkaSource::open(config).unwrap();
        let table = table.clone();
        let thread = std::thread::spawn(move || {
            let mut reading = Reading { table, read: count, unlanded: Vec::new(), assigned: Vec::new() };
            while !stopped.load(Ordering::Relaxed) {
                reading.turn(&mut source);
            }
        });
        Self { stop, read, thread }
    }

    fn has_read(&self) -> bool {
        self.read.load(Ordering::Relaxed) > 0
    }

    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[test]
fn three_members_come_and_go_and_every_message_lands_once() {
    let broker = Broker::shared();
    let config = broker.topic("shared", 6);
    let table = Arc::new(Table::default());
    let producer = KafkaProducer::open(&config).unwrap();
    let mut number = 0;
    // Sends until every member given has read something, so that the partitions are shared at that moment.
    let mut send_until_all_read = |members: &[&Member]| {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            for _ in 0..200 {
                let key = format!("node-{}", number % 17);
                send(&producer, &config.topics[0], &key, format!("{key} {number}").as_bytes(), number);
                number += 1;
            }
            if members.iter().all(|member| member.has_read()) {
                return number;
            }
            assert!(Instant::now() < deadline, "a member got no partition");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let (first, second) = (Member::join(&config, &table), Member::join(&config, &table));
    send_until_all_read(&[&first, &second]);
    let third = Member::join(&config, &table);
    let sent = send_until_all_read(&[&first, &second, &third]);
    first.leave();
    assert!(producer.flush(TEST_TIMEOUT));
    table.wait_for(sent);
    second.leave();
    third.leave();
    table.check(sent);
}

/// Starting takes questions to the broker: a member with a backlog has started some of what it was given when another joins.
#[test]
fn a_member_that_loses_what_it_has_not_started_yet_goes_on_with_the_rest() {
    const COUNT: usize = 400;
    let broker = Broker::shared();
    let config = broker.topic("hasty", 4);
    let table = Arc::new(Table::default());
    let mut source = KafkaSource::open(&config).unwrap();
    let deadline = Instant::now() + TEST_TIMEOUT;
    let poll = |source: &mut KafkaSource| {
        assert!(Instant::now() < deadline, "{} of {COUNT} landed", table.rows());
        source.poll(Duration::from_millis(50), 1 << 16).unwrap()
    };
    let mut ours = loop {
        if let SourceEvent::Assigned(partitions) = poll(&mut source) {
            break partitions;
        }
    };
    assert_eq!(ours.len(), 4);
    source.start(&table.positions(&ours[..1])).unwrap();
    let second = Member::join(&config, &table);
    let revoked = loop {
        if let SourceEvent::Revoked(partitions) = poll(&mut source) {
            break partitions;
        }
    };
    assert!(revoked.iter().any(|at| *at != ours[0]), "something that was not started: {revoked:?}");
    let started = ours.remove(0);
    ours.retain(|at| !revoked.contains(at));
    source.start(&table.positions(&ours)).unwrap();
    assert!(!revoked.contains(&started) || !ours.is_empty());

    let producer = KafkaProducer::open(&config).unwrap();
    for number in 0..COUNT {
        let key = format!("node-{}", number % 17);
        send(&producer, &config.topics[0], &key, format!("{key} {number}").as_bytes(), number);
    }
    assert!(producer.flush(TEST_TIMEOUT));
    while table.rows() < COUNT {
        match poll(&mut source) {
            SourceEvent::Assigned(partitions) => source.start(&table.positions(&partitions)).unwrap(),
            SourceEvent::Messages(messages) => table.land(messages),
            SourceEvent::Revoked(_) | SourceEvent::Skipped(_) | SourceEvent::Idle => {}
        }
    }
    second.leave();
    table.check(COUNT);
}

#[test]
fn a_broker_killed_twice_loses_duplicates_and_reorders_nothing() {
    const COUNT: usize = 9000;
    let broker = Broker::own();
    let config = broker.topic("killed", 3);
    let table = Arc::new(Table::default());
    let member = Member::join(&config, &table);
    let producer = KafkaProducer::open(&config).unwrap();
    for number in 0..COUNT {
        let key = format!("node-{}", number % 5);
        send(&producer, &config.topics[0], &key, format!("{key} {number}").as_bytes(), number);
        if number == COUNT / 3 || number == 2 * COUNT / 3 {
            broker.kill();
        }
        if number == COUNT / 2 || number == 5 * COUNT / 6 {
            broker.restart();
        }
    }
    assert!(producer.flush(TEST_TIMEOUT), "{:?}", producer.last_error());
    for token in 0..COUNT {
        let delivery = producer.delivery(TEST_TIMEOUT).unwrap();
        assert!(delivery.token < COUNT && delivery.result.is_ok(), "{token}: {delivery:?}");
    }
    table.wait_for(COUNT);
    member.leave();
    table.check(COUNT);
}
