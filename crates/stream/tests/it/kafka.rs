//! One producer, one consumer, and what can be wrong between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::position::{Message, NextOffset, TopicPartition};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use stream::kafka::{
    KafkaConfig, KafkaError, KafkaProducer, KafkaSource, ProducerRecord, Sent, TopicSpec, ensure_topics, states,
};
use stream::{Beginning, LogState, Source, SourceError, SourceEvent, Watermarks, fingerprint};

use crate::broker::Broker;

const POLL: Duration = Duration::from_millis(100);
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

fn at(config: &KafkaConfig, partition: i32) -> TopicPartition {
    TopicPartition::new(config.topics[0].as_str(), partition)
}

fn produce(config: &KafkaConfig, payloads: impl IntoIterator<Item = String>) {
    let producer = KafkaProducer::open(config).unwrap();
    let mut count = 0;
    for payload in payloads {
        send(&producer, &config.topics[0], "node", payload.as_bytes(), count);
        count += 1;
    }
    assert!(producer.flush(TEST_TIMEOUT));
    for token in 0..count {
        let delivery = producer.delivery(TEST_TIMEOUT).unwrap();
        assert_eq!(delivery.token, token);
        delivery.result.unwrap();
    }
}

/// Joins the group and starts every partition at `next`.
fn join(config: &KafkaConfig, next: i64) -> Result<KafkaSource, SourceError> {
    let mut source = KafkaSource::open(config)?;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while Instant::now() < deadline {
        if let SourceEvent::Assigned(partitions) = source.poll(POLL, 1 << 20)? {
            let positions: Vec<_> = partitions.into_iter().map(|at| (at, NextOffset(next))).collect();
            source.start(&positions)?;
            return Ok(source);
        }
    }
    panic!("no assignment");
}

fn take(source: &mut KafkaSource, count: usize) -> Result<Vec<Message>, SourceError> {
    let mut taken = Vec::new();
    let deadline = Instant::now() + TEST_TIMEOUT;
    while taken.len() < count && Instant::now() < deadline {
        if let SourceEvent::Messages(messages) = source.poll(POLL, 1 << 20)? {
            taken.extend(messages);
        }
    }
    assert_eq!(taken.len(), count);
    Ok(taken)
}

fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap()
}

fn delete_below(config: &KafkaConfig, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&config.topics[0], 0, Offset::Offset(offset)).unwrap();
    let deleted = futures::executor::block_on(admin(config).delete_records(&list, &AdminOptions::new())).unwrap();
    deleted.elements()[0].error().unwrap();
}

#[test]
fn messages_arrive_in_order_with_key_headers_and_offsets_from_the_tables_position() {
    let broker = Broker::shared();
    let config = broker.topic("order", 1);
    let producer = KafkaProducer::open(&config).unwrap();
    let headers = [("codec".to_owned(), Bytes::from_static(b"1"))];
    let first = ProducerRecord { key: Some(b"n"), payload: b"first", headers: &headers };
    assert_eq!(producer.send(&config.topics[0], first, 0).unwrap(), Sent::Queued);
    assert!(producer.flush(TEST_TIMEOUT));
    produce(&config, (1..500).map(|i| format!("message {i}")));
    let messages = take(&mut join(&config, 0).unwrap(), 500).unwrap();
    assert_eq!((messages[0].key.as_deref(), &messages[0].headers[..]), (Some(b"n".as_slice()), &headers[..]));
    assert!(messages[0].timestamp_ms > 1_600_000_000_000);
    for (i, message) in messages.iter().enumerate().skip(1) {
        assert_eq!((message.offset, &message.payload[..]), (i as i64, format!("message {i}").as_bytes()));
    }
    let mut source = join(&config, 498).unwrap();
    assert_eq!(take(&mut source, 2).unwrap()[0].offset, 498);
    source.start(&[(at(&config, 0), NextOffset(490))]).unwrap();
    assert_eq!(take(&mut source, 10).unwrap()[0].offset, 490, "started again at an older position");
}

#[test]
fn what_partitions_hold_is_the_same_whether_they_are_asked_for_together_or_one_by_one() {
    let broker = Broker::shared();
    let config = broker.topic("together", 3);
    // All of one key, and so in one partition.
    produce(&config, (0..5).map(|i| i.to_string()));
    let mut source = join(&config, 0).unwrap();
    let asked: Vec<_> = [Some(NextOffset(3)), None, Some(NextOffset(0))]
        .into_iter()
        .flat_map(|landed| (0..3).map(move |partition| (partition, landed)))
        .map(|(partition, landed)| (at(&config, partition), landed))
        .collect();
    let mut fingerprints = 0;
    for asked in asked.chunks(3) {
        let together = source.beginnings(asked).unwrap();
        assert_eq!(together.len(), 3);
        for ((at, landed), found) in asked.iter().zip(together) {
            let alone = Beginning {
                state: LogState {
                    identity: source.identity(at).unwrap(),
                    watermarks: source.watermarks(at).unwrap(),
                    fingerprint: landed.and_then(|next| source.fingerprint(at, next).unwrap()),
                },
                end: source.end(at).unwrap(),
            };
            assert_eq!(found, alone, "{at} {landed:?}");
            fingerprints += usize::from(found.state.fingerprint.is_some());
        }
    }
    assert_eq!(fingerprints, 1, "of the third message");
    assert_eq!(source.beginnings(&[]).unwrap(), []);
}

#[test]
fn a_paused_partition_goes_on_where_it_was() {
    let broker = Broker::shared();
    let config = broker.topic("pause", 1);
    produce(&config, (0..50).map(|i| i.to_string()));
    let mut source = join(&config, 0).unwrap();
    let SourceEvent::Messages(first) = source.poll(TEST_TIMEOUT, 1).unwrap() else { panic!("no message") };
    source.pause(&[at(&config, 0)]).unwrap();
    let mut paused = Vec::new();
    while let SourceEvent::Messages(messages) = source.poll(POLL, 1 << 20).unwrap() {
        paused.extend(messages);
    }
    source.resume(&[at(&config, 0)]).unwrap();
    let rest = take(&mut source, 50 - first.len() - paused.len()).unwrap();
    let offsets: Vec<_> = first.iter().chain(&paused).chain(&rest).map(|message| message.offset).collect();
    assert_eq!(offsets, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_wrong_address_is_named_within_the_connect_timeout() {
    let config = KafkaConfig {
        brokers: "127.0.0.1:1".to_owned(),
        topics: vec!["any".to_owned()],
        connect_timeout_ms: 1500,
        ..KafkaConfig::default()
    };
    let began = Instant::now();
    let spec = TopicSpec { name: "any".to_owned(), partitions: 1, replication: 1, retention_ms: -1 };
    let errors = [
        KafkaSource::open(&config).map(drop).unwrap_err(),
        futures::executor::block_on(ensure_topics(&config, &[spec])).unwrap_err(),
        states(&config, &[(at(&config, 0), NextOffset(0))]).unwrap_err(),
    ];
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for error in errors {
        assert!(matches!(error, KafkaError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}

#[test]
fn a_topic_that_does_not_exist_is_named() {
    let broker = Broker::shared();
    let mut config = broker.topic("exists", 1);
    config.topics.push("no-such-topic".to_owned());
    assert!(
        matches!(KafkaSource::open(&config), Err(KafkaError::UnknownTopic { topic, .. }) if topic == "no-such-topic")
    );
}

/// The mock cluster makes topics as brokers with `auto.create.topics.enable` do, where the client allows it.
#[test]
fn asking_for_a_topic_by_name_does_not_make_it() {
    let cluster = MockCluster::new(1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let config = KafkaConfig { brokers, topics: vec!["deleted".to_owned()], ..KafkaConfig::default() };
    let producer = KafkaProducer::open(&config).unwrap();
    for _ in 0..2 {
        let counted = producer.partitions("deleted");
        assert!(matches!(counted, Err(KafkaError::UnknownTopic { .. })), "{counted:?}");
    }
    let opened = KafkaSource::open(&config);
    assert!(matches!(opened, Err(KafkaError::UnknownTopic { .. })), "{opened:?}");
    cluster.create_topic("deleted", 3, 1).unwrap();
    assert_eq!(producer.partitions("deleted").unwrap(), 3, "it is counted once it is made");
}

#[test]
fn a_full_queue_is_a_value_and_memory_stays_bounded() {
    let config = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), send_queue_kib: 64, ..KafkaConfig::default() };
    let producer = KafkaProducer::open(&config).unwrap();
    let sent = (0..1000)
        .take_while(|i| producer.send("t", ProducerRecord::new(None, &[0; 1024]), *i).unwrap() == Sent::Queued)
        .count();
    assert!((60..=64).contains(&sent), "{sent}");
}

#[test]
fn what_retention_deleted_is_named_at_the_start_and_while_reading() {
    let broker = Broker::shared();
    let config = broker.topic("retention", 1);
    produce(&config, (0..20).map(|i| i.to_string()));
    let mut source = join(&config, 0).unwrap();
    source.pause(&[at(&config, 0)]).unwrap();
    while source.poll(POLL, 1 << 20).unwrap() != SourceEvent::Idle {}
    delete_below(&config, 15);
    source.start(&[(at(&config, 0), NextOffset(15))]).unwrap();
    assert_eq!(take(&mut source, 5).unwrap()[0].offset, 15, "starting ends a pause");
    let error = source.start(&[(at(&config, 0), NextOffset(3))]).unwrap_err();
    assert!(matches!(error, SourceError::Retention { next: NextOffset(3), low: NextOffset(15), .. }), "{error}");
    let error = source.start(&[(at(&config, 0), NextOffset(21))]).unwrap_err();
    assert!(matches!(error, SourceError::Truncated { high: NextOffset(20), .. }), "{error}");
}

#[test]
fn what_partitions_are_and_hold_is_known_without_a_group_and_of_one_that_is_absent_nothing() {
    let broker = Broker::shared();
    let config = broker.topic("states", 1);
    produce(&config, (0..20).map(|i| i.to_string()));
    delete_below(&config, 15);
    let absent = TopicPartition::new(format!("{}-absent", config.topics[0]), 0);
    let asked = [absent, at(&config, 1), at(&config, 0), at(&config, 0), at(&config, 0)];
    let asked: Vec<_> = asked.into_iter().zip([18, 18, 15, 18, 21].map(NextOffset)).collect();
    let found = states(&config, &asked).unwrap();
    let mut source = join(&config, 15).unwrap();
    let identity = source.identity(&at(&config, 0)).unwrap();
    let read = take(&mut source, 5).unwrap();
    let state = |fingerprint| {
        let watermarks = Watermarks { low: NextOffset(15), high: NextOffset(20) };
        Some(LogState { identity: identity.clone(), watermarks, fingerprint })
    };
    // Retention has deleted the message below 15, and none was written below 21.
    assert_eq!(found, [None, None, state(None), state(Some(fingerprint(&read[2]))), state(None)]);
}

#[test]
fn retention_that_overtakes_a_reader_is_an_error_and_not_a_jump() {
    let broker = Broker::shared();
    let config = broker.topic("overtaken", 1);
    let mut source = join(&config, 0).unwrap();
    source.pause(&[at(&config, 0)]).unwrap();
    assert_eq!(source.poll(POLL, 1 << 20).unwrap(), SourceEvent::Idle);
    produce(&config, (0..20).map(|i| i.to_string()));
    delete_below(&config, 15);
    source.resume(&[at(&config, 0)]).unwrap();
    let error = take(&mut source, 1).unwrap_err();
    match error {
        SourceError::Retention { next, low, .. } => assert_eq!((next, low), (NextOffset(0), NextOffset(15))),
        SourceError::Gap(gap) => assert_eq!((gap.expected, gap.low_watermark), (NextOffset(0), Some(NextOffset(15)))),
        error => panic!("{error}"),
    }
}

/// As after an unclean leader election: the log was shorter for a moment, and holds the position again when it is asked.
#[test]
fn a_position_refused_although_the_log_holds_it_is_told_and_not_waited_for() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("refused", 1, 1).unwrap();
    let config = KafkaConfig {
        brokers: cluster.bootstrap_servers(),
        topics: vec!["refused".to_owned()],
        ..KafkaConfig::default()
    };
    let mut source = join(&config, 0).unwrap();
    assert_eq!(source.poll(POLL, 1 << 20).unwrap(), SourceEvent::Idle);
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    let error = take(&mut source, 1).unwrap_err();
    assert!(matches!(error, SourceError::Refused), "{error}");
    drop(source);
    produce(&config, (0..5).map(|i| i.to_string()));
    assert_eq!(take(&mut join(&config, 0).unwrap(), 5).unwrap().len(), 5);
}

/// Reads five messages and pauses the partition behind them.
fn paused_behind_five(config: &KafkaConfig) -> KafkaSource {
    produce(config, (0..5).map(|i| format!("old {i}")));
    let mut source = join(config, 0).unwrap();
    assert_eq!(take(&mut source, 5).unwrap().len(), 5);
    source.pause(&[at(config, 0)]).unwrap();
    source
}

#[test]
fn a_log_that_was_written_anew_while_its_partition_was_paused_is_noticed_however_far_it_has_grown() {
    let broker = Broker::shared();
    let config = broker.topic("rewritten", 1);
    let mut source = paused_behind_five(&config);
    // Dropped before the answer, the client would never give it.
    let admin = admin(&config);
    let deleted = admin.delete_topics(&[&config.topics[0]], &AdminOptions::new());
    futures::executor::block_on(deleted).unwrap().remove(0).unwrap();
    recreate(&config);
    produce(&config, (0..10).map(|i| format!("new {i}")));
    source.resume(&[at(&config, 0)]).unwrap();
    let error = take(&mut source, 1).unwrap_err();
    assert!(matches!(error, SourceError::Rewritten { next: NextOffset(5), .. }), "{error}");
}

#[test]
fn a_paused_partition_goes_on_although_retention_has_deleted_all_that_was_read_of_it() {
    let broker = Broker::shared();
    let config = broker.topic("deleted-behind", 1);
    let mut source = paused_behind_five(&config);
    produce(&config, ["new".to_owned()]);
    delete_below(&config, 5);
    source.resume(&[at(&config, 0)]).unwrap();
    assert_eq!(take(&mut source, 1).unwrap()[0].offset, 5);
}

#[test]
fn a_topic_made_anew_has_another_identity_and_fingerprint() {
    let broker = Broker::shared();
    let config = broker.topic("anew", 1);
    produce(&config, ["a".to_owned(), "b".to_owned()]);
    let mut source = join(&config, 0).unwrap();
    let messages = take(&mut source, 2).unwrap();
    let identity = source.identity(&at(&config, 0)).unwrap();
    assert_eq!(source.identity(&at(&config, 0)).unwrap(), identity);
    assert_eq!(source.fingerprint(&at(&config, 0), NextOffset(2)).unwrap(), Some(fingerprint(&messages[1])));
    assert_eq!(source.fingerprint(&at(&config, 0), NextOffset(0)).unwrap(), None);
    drop(source);
    let admin = admin(&config);
    let deleted = futures::executor::block_on(admin.delete_topics(&[&config.topics[0]], &AdminOptions::new()));
    deleted.unwrap().remove(0).unwrap();
    recreate(&config);
    produce(&config, ["c".to_owned(), "d".to_owned()]);
    let mut source = join(&config, 2).unwrap();
    assert_ne!(source.identity(&at(&config, 0)).unwrap(), identity);
    assert_ne!(source.fingerprint(&at(&config, 0), NextOffset(2)).unwrap(), Some(fingerprint(&messages[1])));
}

/// The broker deletes in the background: until it has, the name is taken.
fn recreate(config: &KafkaConfig) {
    let spec = TopicSpec { name: config.topics[0].clone(), partitions: 1, replication: 1, retention_ms: -1 };
    let deadline = Instant::now() + TEST_TIMEOUT;
    while Instant::now() < deadline {
        futures::executor::block_on(ensure_topics(config, std::slice::from_ref(&spec))).unwrap();
        if KafkaSource::open(config).is_ok() {
            return;
        }
    }
    panic!("the topic did not come back");
}

/// A producer of transactions, with what it sends for partition 0 of the topic.
struct Transactions {
    producer: BaseProducer,
    topic: String,
}

impl Transactions {
    fn new(config: &KafkaConfig) -> Self {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &config.brokers).set("transactional.id", format!("id-{}", config.topics[0]));
        let producer: BaseProducer = client.create().unwrap();
        producer.init_transactions(TEST_TIMEOUT).unwrap();
        Self { producer, topic: config.topics[0].clone() }
    }

    fn begin(&self, payloads: &[&str]) {
        self.producer.begin_transaction().unwrap();
        for payload in payloads {
            self.producer.send(BaseRecord::<(), str>::to(&self.topic).partition(0).payload(payload)).unwrap();
        }
        self.producer.flush(TEST_TIMEOUT).unwrap();
    }

    fn commit(&self, payloads: &[&str]) {
        self.begin(payloads);
        self.producer.commit_transaction(TEST_TIMEOUT).unwrap();
    }

    /// A transaction with one message in each of the partitions.
    fn commit_in(&self, partitions: std::ops::Range<i32>) {
        self.producer.begin_transaction().unwrap();
        for partition in partitions {
            self.producer.send(BaseRecord::<(), str>::to(&self.topic).partition(partition).payload("m")).unwrap();
        }
        self.producer.commit_transaction(TEST_TIMEOUT).unwrap();
    }

    fn abort(&self) {
        self.producer.abort_transaction(TEST_TIMEOUT).unwrap();
    }
}

/// Polls until offset `end` is passed; returns offset and payload of the messages, and the offsets that were skipped.
fn read_up_to(source: &mut KafkaSource, end: i64) -> (Vec<(i64, String)>, Vec<i64>) {
    let (mut messages, mut skipped, mut next) = (Vec::new(), Vec::new(), 0);
    let deadline = Instant::now() + TEST_TIMEOUT;
    while next < end {
        assert!(Instant::now() < deadline, "{messages:?} {skipped:?}");
        match source.poll(POLL, 1 << 20).unwrap() {
            SourceEvent::Messages(read) => {
                for message in read {
                    next = message.offset + 1;
                    messages.push((message.offset, String::from_utf8(message.payload.to_vec()).unwrap()));
                }
            }
            SourceEvent::Skipped(range) => {
                next = range.end;
                skipped.extend(range.start..range.end);
            }
            _ => {}
        }
    }
    (messages, skipped)
}

#[test]
fn markers_and_aborted_messages_of_transactions_are_skipped_and_told() {
    let broker = Broker::shared();
    let config = broker.topic("transactions", 1);
    let transactions = Transactions::new(&config);
    produce(&config, ["0".to_owned()]);
    transactions.commit(&["1", "2"]);
    transactions.begin(&["4", "5"]);
    transactions.abort();
    produce(&config, ["7".to_owned()]);
    let mut source = join(&config, 0).unwrap();
    let (messages, skipped) = read_up_to(&mut source, 8);
    let expected = [0, 1, 2, 7].map(|offset| (offset, offset.to_string()));
    assert_eq!((messages, skipped), (expected.to_vec(), vec![3, 4, 5, 6]));
    transactions.commit(&["8"]);
    let (messages, skipped) = read_up_to(&mut source, 10);
    assert_eq!((messages, skipped), (vec![(8, "8".to_owned())], vec![9]), "nothing follows the marker");
    assert_eq!(source.fingerprint(&at(&config, 0), NextOffset(10)).unwrap(), None, "a marker has none");
    assert_eq!(source.stats().replayed, 0);
}

#[test]
fn what_an_open_transaction_holds_back_is_counted_and_read_once_it_has_ended() {
    let broker = Broker::shared();
    let config = broker.topic("open-transaction", 1);
    let transactions = Transactions::new(&config);
    let mut source = join(&config, 0).unwrap();
    transactions.begin(&["0"]);
    produce(&config, ["1".to_owned()]);
    let deadline = Instant::now() + TEST_TIMEOUT;
    while source.undecided() != [(at(&config, 0), 2)] {
        assert!(Instant::now() < deadline, "{:?}", source.undecided());
        assert_eq!(source.poll(POLL, 1 << 20).unwrap(), SourceEvent::Idle, "nothing of it is decided");
    }
    transactions.abort();
    let (messages, skipped) = read_up_to(&mut source, 3);
    assert_eq!((messages, skipped), (vec![(1, "1".to_owned())], vec![0, 2]));
    while source.undecided() != [(at(&config, 0), 0)] {
        assert!(Instant::now() < deadline, "{:?}", source.undecided());
        source.poll(POLL, 1 << 20).unwrap();
    }
}

/// A transaction for each message leaves a hole behind each.
#[test]
fn many_small_transactions_are_read_without_asking_for_each_hole() {
    let broker = Broker::shared();
    let config = broker.topic("small-transactions", 1);
    let transactions = Transactions::new(&config);
    const COUNT: i64 = 60;
    (0..COUNT).for_each(|i| transactions.commit(&[&i.to_string()]));
    let mut source = join(&config, 0).unwrap();
    let began = Instant::now();
    let (messages, skipped) = read_up_to(&mut source, 2 * COUNT);
    eprintln!("{COUNT} transactions read in {:?}", began.elapsed());
    assert_eq!(messages, (0..COUNT).map(|i| (2 * i, i.to_string())).collect::<Vec<_>>());
    assert_eq!(skipped, (0..COUNT).map(|i| 2 * i + 1).collect::<Vec<_>>());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Each partition has a hole behind each message. While messages come, their owner pauses and resumes all partitions between
/// the polls.
#[test]
fn holes_in_several_partitions_are_passed_while_their_owner_pauses_and_resumes_them() {
    const PARTITIONS: i32 = 4;
    const COUNT: i64 = 10;
    let broker = Broker::shared();
    let config = broker.topic("holes", PARTITIONS);
    let transactions = Transactions::new(&config);
    (0..COUNT).for_each(|_| transactions.commit_in(0..PARTITIONS));
    let mut source = join(&config, 0).unwrap();
    let all: Vec<_> = (0..PARTITIONS).map(|partition| at(&config, partition)).collect();
    let mut read: BTreeMap<TopicPartition, (Vec<i64>, Vec<i64>)> = BTreeMap::new();
    let (deadline, mut is_paused) = (Instant::now() + TEST_TIMEOUT, false);
    let total = COUNT as usize * all.len();
    loop {
        let messages: usize = read.values().map(|(messages, _)| messages.len()).sum();
        let skipped: usize = read.values().map(|(_, skipped)| skipped.len()).sum();
        if (messages, skipped) == (total, total) {
            break;
        }
        assert!(Instant::now() < deadline, "{read:?}");
        is_paused = !is_paused && messages < total;
        if is_paused { source.pause(&all) } else { source.resume(&all) }.unwrap();
        match source.poll(POLL, 1).unwrap() {
            SourceEvent::Messages(found) => {
                found.into_iter().for_each(|message| read.entry(message.at).or_default().0.push(message.offset));
            }
            SourceEvent::Skipped(range) => read.entry(range.at).or_default().1.extend(range.start..range.end),
            _ => {}
        }
    }
    let expected = ((0..COUNT).map(|i| 2 * i).collect(), (0..COUNT).map(|i| 2 * i + 1).collect());
    for at in all {
        assert_eq!(read[&at], expected, "{at}");
    }
    assert_eq!(source.held_up(), None);
}

#[test]
#[expect(unsafe_code, reason = "only a foreign client can send such a name; the safe interface cannot")]
fn a_header_name_that_is_not_utf8_does_not_stop_the_reader() {
    let broker = Broker::shared();
    let config = broker.topic("hostile-header", 1);
    let producer = KafkaProducer::open(&config).unwrap();
    // SAFETY: the string is only passed on to librdkafka as bytes and is never used as text.
    let name = unsafe { String::from_utf8_unchecked(vec![b'x', 0xff, b'y']) };
    let headers = [(name, Bytes::from_static(b"1")), ("good".to_owned(), Bytes::from_static(b"2"))];
    producer.send(&config.topics[0], ProducerRecord { key: None, payload: b"payload", headers: &headers }, 0).unwrap();
    assert!(producer.flush(TEST_TIMEOUT));
    let message = take(&mut join(&config, 0).unwrap(), 1).unwrap().remove(0);
    assert_eq!((&message.payload[..], &message.headers[..]), (b"payload".as_slice(), &headers[1..]));
}

/// Sends one message, waiting while the queue is full.
pub(crate) fn send(producer: &KafkaProducer, topic: &str, key: &str, payload: &[u8], token: usize) {
    while producer.send(topic, ProducerRecord::new(Some(key.as_bytes()), payload), token).unwrap() == Sent::Full {
        std::thread::sleep(Duration::from_millis(5));
    }
}
