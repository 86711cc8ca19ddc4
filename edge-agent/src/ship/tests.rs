//! Shipping to a real broker: all of it, in order, also through kills; what is sent twice is the same bytes.

#[path = "../../../crates/stream/tests/it/broker.rs"]
mod broker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use event_schema::batch::{Event, EventRows};
use event_schema::clock::Beacon;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use stream::log::{Appended, Fsync, LogOptions, LogWriter};
use tempfile::TempDir;

use self::broker::Broker;
use super::*;
use crate::batcher::Cut;
use crate::identity::Identity;
use crate::numbering::Numbering;

const TIME_LIMIT: Duration = Duration::from_secs(60);

struct Bench {
    dir: TempDir,
    config: KafkaConfig,
    at: TopicPartition,
    writer: LogWriter,
    inputs: (SyncSender<Input>, Receiver<Input>),
    metrics: Metrics,
}

impl Bench {
    fn new(config: KafkaConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let at = TopicPartition::new(config.topics[0].as_str(), 0);
        let options = LogOptions { segment_bytes: 4096, max_bytes: 1 << 30, fsync: Fsync::Always };
        let writer = LogWriter::open(dir.path(), &at, options).unwrap();
        Self { dir, config, at, writer, inputs: sync_channel(100), metrics: Metrics::default() }
    }

    fn spool(&mut self, payload: &[u8]) {
        assert!(matches!(self.writer.append(Some(b"node"), payload, 1).unwrap(), Appended::At(_)));
    }

    fn shipper(&self) -> Shipper {
        let (metrics, spool) = (self.metrics.clone(), self.inputs.0.clone());
        Shipper::open(self.dir.path(), std::slice::from_ref(&self.at), &self.config, metrics, spool).unwrap()
    }

    fn lane(&self) -> Lane {
        Lane::open(self.dir.path(), &self.at, &self.metrics, &self.inputs.0).unwrap()
    }

    /// Flips a bit of a payload in the first segment of the spool.
    fn damage(&self, payload: &[u8]) {
        let segment = self.dir.path().join(&*self.at.topic).join("0").join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&segment).unwrap();
        let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
    }

    /// Ships until all is acknowledged.
    fn ship(&self) {
        let latest = Instant::now() + TIME_LIMIT;
        self.shipper().run(|| Until::Empty { latest }).unwrap();
        assert!(Instant::now() < latest, "not everything was shipped");
    }

    fn arrived(&self) -> Vec<String> {
        self.arrived_bytes().into_iter().map(|payload| String::from_utf8(payload).unwrap()).collect()
    }

    fn arrived_bytes(&self) -> Vec<Vec<u8>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.config.brokers)
            .set("group.id", "look")
            .create()
            .unwrap();
        let (low, high) = consumer.fetch_watermarks(&self.at.topic, 0, TIME_LIMIT).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.at.topic, 0, Offset::Offset(low)).unwrap();
        consumer.assign(&list).unwrap();
        let mut payloads = Vec::new();
        while (payloads.len() as i64) < high - low {
            let message = consumer.poll(TIME_LIMIT).unwrap().unwrap();
            assert_eq!(message.key(), Some(b"node".as_slice()));
            payloads.push(message.payload().unwrap().to_vec());
        }
        payloads
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("message {number:050}")).collect()
}

#[test]
fn a_spool_arrives_once_in_order_and_its_segments_may_go() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("ship", 1));
    numbered(0..300).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    bench.ship();
    assert_eq!(bench.arrived(), numbered(0..300));
    assert!(bench.writer.delete_landed().unwrap() > 0);
    numbered(300..310).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    bench.ship();
    assert_eq!(bench.arrived(), numbered(0..310), "a second run sends only what is new");
}

#[test]
fn after_a_crash_between_acknowledgement_and_note_the_same_bytes_are_sent_again() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("again", 1));
    numbered(0..10).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    bench.ship();
    let reader = LogReader::resume(bench.dir.path(), &bench.at).unwrap();
    assert_eq!(reader.position(), NextOffset(10));
    reader.report_landed(NextOffset(7)).unwrap();
    bench.ship();
    assert_eq!(bench.arrived(), [numbered(0..10), numbered(7..10)].concat());
}

#[test]
fn what_cannot_be_noted_is_tried_again_and_ends_nothing() {
    let mut bench = offline();
    numbered(0..100).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    let landed = bench.dir.path().join(&*bench.at.topic).join("0/landed");
    let mut lane = bench.lane();
    std::fs::remove_file(&landed).unwrap();
    std::fs::create_dir(&landed).unwrap();
    lane.acked = NextOffset(100);
    lane.note();
    assert_eq!((lane.noted, lane.is_note_failing), (NextOffset(0), true));
    std::fs::remove_dir(&landed).unwrap();
    lane.note();
    assert_eq!((lane.noted, lane.is_note_failing), (NextOffset(100), false));
    assert!(bench.writer.delete_landed().unwrap() > 0);
}

#[test]
fn damage_in_the_spool_is_counted_and_passed_over() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("damage", 1));
    numbered(0..300).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    let dir = bench.dir.path().join(&*bench.at.topic).join("0");
    let mut segments: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let base = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<usize>().unwrap();
    let bases: Vec<usize> = segments.iter().map(|path| base(path)).collect();
    assert!(bases.len() >= 5, "{bases:?}");
    // One record, and the whole of another segment.
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&segments[1], bytes).unwrap();
    std::fs::remove_file(&segments[3]).unwrap();
    bench.ship();
    let kept = [numbered(0..bases[1]), numbered(bases[1] + 1..bases[3]), numbered(bases[4]..300)].concat();
    assert_eq!(bench.arrived(), kept);
    assert_eq!(bench.metrics.spool_damaged.get(), 300 - kept.len() as u64);
    assert_eq!(LogReader::resume(bench.dir.path(), &bench.at).unwrap().position(), NextOffset(300));
}

/// A bench whose broker is not asked for anything.
fn offline() -> Bench {
    Bench::new(KafkaConfig { topics: vec!["offline".to_owned()], ..KafkaConfig::default() })
}

#[test]
fn damage_is_counted_once_however_often_shipping_starts_again_in_front_of_it() {
    let mut bench = offline();
    let texts = numbered(0..3);
    texts.iter().for_each(|payload| bench.spool(payload.as_bytes()));
    bench.damage(texts[1].as_bytes());
    let mut lane = bench.lane();
    let mut token = 0;
    for _ in 0..3 {
        lane.start_again(bench.dir.path()).unwrap();
        lane.read(&mut token).unwrap();
        let first = lane.waiting.pop_front().unwrap();
        lane.sent(token, first);
        token += 1;
        lane.read(&mut token).unwrap();
        lane.advance();
        assert_eq!((lane.acked, bench.metrics.spool_damaged.get()), (NextOffset(0), 0));
    }
    // The damage has the token before the next, and the message in front of it the one before that.
    lane.acknowledge(token - 2);
    assert_eq!((lane.acked, bench.metrics.spool_damaged.get()), (NextOffset(2), 1));
}

#[test]
fn rows_of_a_refused_message_are_counted_once_however_often_shipping_starts_again_in_front_of_it() {
    let mut bench = offline();
    let refused = noisy(1).0;
    bench.spool(b"first");
    bench.spool(&refused);
    let mut lane = bench.lane();
    for again in 0..3 {
        lane.start_again(bench.dir.path()).unwrap();
        lane.read(&mut 0).unwrap();
        let first = lane.waiting.pop_front().unwrap();
        lane.sent(2 * again, first);
        let second = lane.waiting.pop_front().unwrap();
        lane.refuse(2 * again + 1, second, true);
        lane.advance();
        assert!(bench.inputs.1.try_recv().is_err(), "{again}");
    }
    lane.acknowledge(4);
    assert_eq!(lane.acked, NextOffset(2));
    assert!(matches!(bench.inputs.1.try_recv(), Ok(Input::Rejected { epoch: 7, rows: 1, .. })));
    assert!(bench.inputs.1.try_recv().is_err(), "counted once");
}

#[test]
fn a_broker_killed_while_shipping_delays_and_loses_nothing() {
    let broker = Broker::own();
    let mut bench = Bench::new(broker.topic("away", 1));
    numbered(0..2000).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    let shipper = bench.shipper();
    let latest = Instant::now() + 2 * TIME_LIMIT;
    let shipped = bench.metrics.shipped.clone();
    let complete = Arc::new(AtomicBool::new(false));
    let until = complete.clone();
    let until = move || if until.load(Ordering::Relaxed) { Until::Empty { latest } } else { Until::Stopped };
    let shipping = std::thread::spawn(move || shipper.run(until));
    while shipped.get() == 0 {
        std::thread::yield_now();
    }
    broker.kill();
    numbered(2000..3000).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    assert!(shipped.get() < 3000);
    complete.store(true, Ordering::Relaxed);
    broker.restart();
    shipping.join().unwrap().unwrap();
    let arrived = bench.arrived();
    let first_wrong = arrived.iter().zip(&numbered(0..3000)).position(|(a, b)| a != b);
    assert_eq!((arrived.len(), first_wrong), (3000, None), "{:?}", first_wrong.map(|at| &arrived[at - 2..at + 2]));
}

#[test]
fn what_kafka_cannot_take_now_waits_in_the_spool_when_the_agent_ends() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("later", 1));
    numbered(0..5).iter().for_each(|payload| bench.spool(payload.as_bytes()));
    let reachable = std::mem::replace(&mut bench.config.brokers, "127.0.0.1:1".to_owned());
    let latest = Instant::now() + Duration::from_millis(300);
    bench.shipper().run(|| Until::Empty { latest }).unwrap();
    bench.config.brokers = reachable;
    bench.ship();
    assert_eq!(bench.arrived(), numbered(0..5));
}

/// Rows without a pattern, which do not compress.
fn noisy(rows: i64) -> (Bytes, LossCounters) {
    let mut builder = EventRows::new();
    let noise = |i: i64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).rotate_left(17);
    (1..=rows).for_each(|i| builder.push(&Event { boot_ns: i, arg0: noise(i), arg1: noise(-i), ..Event::default() }));
    let losses = LossCounters { emitted: rows as u64 + 5, ring_drop: 5, ..LossCounters::default() };
    let cut = Cut { stream: Stream::Data, kind: RecordKind::Event, batch: builder.finish().unwrap(), losses };
    let identity = Identity { cluster: "c".into(), node: "n".into(), boot_id: "b".into(), epoch: 7, agent: "a".into() };
    let mut numbering = Numbering::new(identity);
    let draft = numbering.draft(&cut, Beacon::default()).unwrap();
    let first_seq = numbering.next_seq(cut.stream).unwrap();
    (wire::encode(&draft, first_seq, &cut.batch).unwrap(), losses)
}

#[test]
fn a_message_too_large_for_the_broker_arrives_in_parts_and_loses_nothing() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("large", 1));
    set_max_message_bytes(&bench, "3000");
    let (large, losses) = noisy(400);
    assert!(large.len() > 6000);
    let small = numbered(0..1).remove(0);
    for payload in [small.as_bytes(), &large, small.as_bytes()] {
        bench.spool(payload);
    }
    bench.ship();
    let arrived = bench.arrived_bytes();
    assert!(arrived.len() >= 2 + 4, "{} messages", arrived.len());
    assert!([arrived.first(), arrived.last()].into_iter().flatten().all(|payload| *payload == small.as_bytes()));
    let whole = wire::decode(&large).unwrap().header;
    let (mut next, mut reported) = (whole.first_seq, LossCounters::default());
    for part in &arrived[1..arrived.len() - 1] {
        let header = wire::decode(part).unwrap().header;
        assert_eq!((header.first_seq, header.epoch), (next, 7));
        next = header.end_seq();
        reported += header.losses;
    }
    assert_eq!((next, reported), (whole.end_seq(), losses));
    assert!(bench.inputs.1.try_recv().is_err(), "nothing is lost");
    bench.ship();
    assert_eq!(bench.arrived_bytes().len(), arrived.len(), "a second run sends nothing");
}

#[test]
fn a_message_in_parts_is_acknowledged_when_its_last_part_is() {
    let mut bench = Bench::new(Broker::shared().topic("parts", 1));
    let large = noisy(40).0;
    bench.spool(&large);
    let mut shipper = bench.shipper();
    let lane = &mut shipper.lanes[0];
    let whole = Outgoing { key: None, payload: large, offset: 0, is_last: true };
    lane.refuse(0, whole, true);
    for (token, acked) in [(1, 0), (2, 1)] {
        let part = lane.waiting.pop_front().unwrap();
        lane.sent(token, part);
        lane.in_flight[0].acked = true;
        lane.advance();
        assert_eq!(lane.acked, NextOffset(acked));
    }
}

#[test]
fn a_row_that_kafka_never_takes_is_counted_and_the_rest_goes_on() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("refused", 1));
    set_max_message_bytes(&bench, "300");
    let (large, losses) = noisy(4);
    let small = numbered(0..1).remove(0);
    for payload in [small.as_bytes(), &large, small.as_bytes(), &[b'x'; 2000], small.as_bytes()] {
        bench.spool(payload);
    }
    bench.ship();
    assert_eq!(bench.arrived(), [small.clone(), small.clone(), small]);
    let (mut lost, mut reported) = (0, LossCounters::default());
    for input in bench.inputs.1.try_iter() {
        let Input::Rejected { epoch: 7, stream: Stream::Data, rows, losses } = input else { panic!("{input:?}") };
        (lost, reported) = (lost + rows, reported + losses);
    }
    assert_eq!((lost, reported), (4, losses));
}

#[test]
fn damage_behind_a_message_that_kafka_never_takes_is_passed_as_well() {
    let broker = Broker::shared();
    let mut bench = Bench::new(broker.topic("refused-then-damage", 1));
    set_max_message_bytes(&bench, "300");
    let texts = numbered(0..2);
    let damaged = texts[1].as_bytes();
    for payload in [texts[0].as_bytes(), &[b'x'; 2000], damaged] {
        bench.spool(payload);
    }
    // The last record of the spool: nothing that comes later moves the position over it.
    bench.damage(damaged);
    bench.ship();
    assert_eq!(bench.arrived(), numbered(0..1));
    assert_eq!(LogReader::resume(bench.dir.path(), &bench.at).unwrap().position(), NextOffset(3));
}

fn set_max_message_bytes(bench: &Bench, bytes: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    let admin: AdminClient<rdkafka::client::DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &bench.config.brokers).create().unwrap();
    let config = AlterConfig::new(ResourceSpecifier::Topic(&bench.at.topic)).set("max.message.bytes", bytes);
    let altered = futures::executor::block_on(admin.alter_configs([&config], &AdminOptions::new()));
    altered.unwrap().remove(0).unwrap();
}
