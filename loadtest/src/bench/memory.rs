//! The memory of ingest under floods of large messages: many partitions, messages of one to eight megabytes, decodable
//! or not.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_schema::batch::{Event, EventRows, MeasuredDuration};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::identity::first_seq;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::TopicPartition;
use event_schema::stream::Stream;
use event_schema::topics;
use event_schema::wire::{HeaderDraft, encode};
use lake::Lake;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use stream::kafka::{KafkaProducer, ProducerRecord, Sent};

use super::BenchError;
use super::ingest::has_reached;
use super::report::Report;
use super::setup::{Kafka, lake_in, service};
use crate::child::Program;
use crate::out::{OutError, unix_ns};
use fleet_sim::FleetError;

/// Partitions of the topic.
const PARTITIONS: i32 = 64;
/// The unit of a message's size; messages have one to [`SIZES`] of it.
const MEGABYTE: usize = 1_000_000;
const SIZES: usize = 8;
/// Longest that a flood may take to land.
const LIMIT: Duration = Duration::from_secs(1_200);
/// How long a broker may take to acknowledge.
const ACKNOWLEDGE: Duration = Duration::from_secs(120);
/// Bytes of a row of random values, packed.
const ROW_BYTES: usize = 168;
/// Random characters in a row.
const TEXT: usize = 128;

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Undecodable,
    Valid,
    Mixed,
}

impl Flood {
    const ALL: [Self; 3] = [Self::Undecodable, Self::Valid, Self::Mixed];

    const fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Valid => "valid",
            Self::Mixed => "mixed",
        }
    }

    const fn is_valid(self, nth: usize) -> bool {
        match self {
            Self::Undecodable => false,
            Self::Valid => true,
            // Each size occurs in both kinds.
            Self::Mixed => (nth / SIZES).is_multiple_of(2),
        }
    }
}

/// Runs the bench in `dir`: three floods of `messages` messages each, with the default configuration.
///
/// # Errors
/// When a server or program cannot be started, or a flood does not land in time.
pub async fn run(dir: &Path, messages: usize) -> Result<Report, BenchError> {
    let mut report = Report::new("memory");
    report.add("messages of 1 to 8 MB over 64 partitions, each flood", messages as f64, "", "");
    for flood in Flood::ALL {
        let dir = dir.join(flood.name());
        let measured = measure(&dir, flood, messages).await?;
        report.add(format!("{}: peak memory of ingest", flood.name()), measured.peak_rss_mib as f64, "MiB", "<= 600");
        report.add(format!("{}: landed in", flood.name()), measured.wall.as_secs_f64(), "s", "");
        // Gigabytes of Kafka's log; the next flood needs the disk.
        std::fs::remove_dir_all(&dir)
            .map_err(|source| BenchError::io(format!("removing {}", dir.display()), source))?;
    }
    Ok(report)
}

struct Measured {
    wall: Duration,
    peak_rss_mib: u64,
}

async fn measure(dir: &Path, flood: Flood, messages: usize) -> Result<Measured, BenchError> {
    std::fs::create_dir_all(dir).map_err(|source| BenchError::io(format!("making {}", dir.display()), source))?;
    let kafka = Kafka::start(dir)?;
    kafka.make_topics(PARTITIONS).await?;
    produce(&kafka, flood, messages)?;

    let mut command = service("causeway-ingest", dir, &kafka);
    command.args(["--log", "off"]);
    let started = Instant::now();
    let program = Program::start(command)?;
    let lake = Lake::open(lake_in(dir)).await?;
    for table in tables::registry::all() {
        while !has_reached(&lake, table, messages).await {
            if started.elapsed() > LIMIT {
                let what = format!("landing {messages} messages in {}", table.def.name);
                return Err(BenchError::Timeout { what, seconds: LIMIT.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let measured = Measured { wall: started.elapsed(), peak_rss_mib: program.peak_rss_mib() };
    program.drain()?;
    Ok(measured)
}

fn produce(kafka: &Kafka, flood: Flood, messages: usize) -> Result<(), BenchError> {
    let producer = KafkaProducer::open(&kafka.config())?;
    let mut rng = StdRng::seed_from_u64(1);
    // A node per partition: its numbers must not repeat, or rows would be dropped as repetitions.
    let mut next_seq = vec![first_seq(0, Stream::Data).unwrap_or(0); PARTITIONS as usize];
    let mut pending = 0;
    for nth in 0..messages {
        let partition = nth % next_seq.len();
        // Up to 8,000,000 bytes: below the limit of a message, 8 MiB.
        let bytes = MEGABYTE * (1 + nth % SIZES);
        let payload = match flood.is_valid(nth) {
            true => valid(&mut rng, partition, &mut next_seq[partition], bytes)?,
            false => garbage(&mut rng, bytes),
        };
        let at = TopicPartition::new(topics::EVENTS, i32::try_from(partition).unwrap_or(0));
        // The partition is chosen, not hashed from a key: the messages of each node go to one of its own.
        while producer.send_to(&at, ProducerRecord::new(None, &payload), nth)? == Sent::Full {
            pending -= acknowledged(&producer)?;
        }
        pending += 1;
    }
    while pending > 0 {
        pending -= acknowledged(&producer)?;
    }
    Ok(())
}

fn acknowledged(producer: &KafkaProducer) -> Result<usize, BenchError> {
    let late = OutError::Unacknowledged { messages: 1, seconds: ACKNOWLEDGE.as_secs() };
    producer.delivery(ACKNOWLEDGE).ok_or(late)?.result.map_err(OutError::Refused)?;
    Ok(1)
}

fn garbage(rng: &mut StdRng, bytes: usize) -> Bytes {
    let mut payload = vec![0; bytes];
    // Random bytes begin with no header of the wire format.
    rng.fill_bytes(&mut payload);
    payload.into()
}

/// A message of about so many bytes, which do not pack: the rows of one node of the partition.
fn valid(rng: &mut StdRng, partition: usize, next_seq: &mut i64, bytes: usize) -> Result<Bytes, BenchError> {
    let mut rows = EventRows::new();
    for _ in 0..bytes / ROW_BYTES {
        let text = Alphanumeric.sample_string(rng, TEXT);
        let event = Event {
            boot_ns: rng.random_range(0..1_000_000_000),
            duration: Some(MeasuredDuration::of_each(rng.random())),
            pid: rng.random(),
            tid: rng.random(),
            arg0: rng.random(),
            arg1: rng.random(),
            bytes: Some(rng.random()),
            stack_hash: rng.random(),
            comm_hash: Some(rng.random()),
            coll_seq: Some(rng.random()),
            sample_weight: 1.0,
            source_id: Some(&text),
            ..Event::default()
        };
        rows.push(&event.with_op(Op::CudaLaunchKernel));
    }
    let count = rows.len();
    let draft = HeaderDraft {
        kind: RecordKind::Event,
        cluster: "sim".to_owned(),
        node: format!("large-{partition:02}"),
        boot_id: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
        epoch: 0,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 0, wall_ns: unix_ns() - 1_000_000_000, error_ns: 100_000 },
        losses: LossCounters { emitted: count as u64, ..LossCounters::default() },
        agent: concat!("causeway-loadtest ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let first_seq = *next_seq;
    *next_seq += i64::try_from(count).unwrap_or(0);
    Ok(encode(&draft, first_seq, &rows.finish().map_err(FleetError::Rows)?).map_err(FleetError::Encode)?)
}
