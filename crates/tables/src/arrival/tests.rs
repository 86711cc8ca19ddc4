//! A model of several partitions whose owners restart: whatever is copied from one partition to another, and however far the
//! owner of each has read, every row lands once.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use event_schema::batch::{Event, EventRows};
use event_schema::clock::Beacon;
use event_schema::identity::LaneId;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;
use event_schema::wire::{HeaderDraft, encode};
use proptest::prelude::*;

use super::*;

const PARTITIONS: usize = 4;
const ROWS: i64 = 2;

fn payload(node: usize, epoch: i64, batch: i64) -> Bytes {
    let mut rows = EventRows::new();
    (0..ROWS).for_each(|i| rows.push(&Event { boot_ns: batch * 100 + i, ..Event::default() }));
    let draft = HeaderDraft {
        kind: RecordKind::Event,
        cluster: "c".into(),
        node: format!("n{node}"),
        boot_id: "0123456789".into(),
        epoch,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 0, wall_ns: 0, error_ns: 0 },
        losses: LossCounters { emitted: 2 * ROWS as u64, ring_drop: ROWS as u64, ..LossCounters::default() },
        agent: "test".into(),
    };
    encode(&draft, batch * ROWS, &rows.finish().unwrap()).unwrap()
}

/// What all members share, and what the owner of each partition has landed.
#[derive(Default)]
struct World {
    logs: Vec<Vec<Bytes>>,
    homes: HashMap<LaneId, usize>,
    landed: Vec<Vec<Arrival>>,
}

impl World {
    fn message(&self, partition: usize, offset: usize) -> Message {
        Message {
            at: TopicPartition::new("t", partition as i32),
            offset: offset as i64,
            timestamp_ms: 0,
            key: None,
            payload: self.logs[partition][offset].clone(),
            headers: Vec::new(),
        }
    }

    /// The owner of a partition reads `count` messages and lands them, or dies just before.
    fn read(&mut self, partition: usize, count: usize, dies: bool) {
        // An owner remembers what landed from its partition, and nothing of the others.
        let mut seen = Seen::new();
        for arrival in self.landed[partition].iter().filter(|arrival| arrival.forwarded_to.is_none()) {
            arrival.header().map(|header| seen.admit(header));
        }
        let begin = self.landed[partition].len();
        let end = (begin + count).min(self.logs[partition].len());
        let mut batch = Vec::new();
        for offset in begin..end {
            let arrival = Arrival::decode(self.message(partition, offset), 0);
            let header = arrival.header().unwrap();
            let lane = LaneId {
                node: header.node.as_str().into(),
                boot_id: header.boot_id.as_str().into(),
                epoch: header.epoch,
                lane: header.stream.lane(),
            };
            let home = *self.homes.entry(lane).or_insert(partition);
            batch.push(match home == partition {
                true => arrival.admit(&mut seen),
                false => arrival.forward(TopicPartition::new("t", home as i32)),
            });
        }
        for arrival in &batch {
            if let Some(home) = &arrival.forwarded_to {
                self.logs[home.partition as usize].push(arrival.message.payload.clone());
            }
        }
        if !dies {
            self.landed[partition].extend(batch);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A node ships a batch, new or once more, to a partition.
    Ship {
        node: usize,
        epoch: i64,
        batch: i64,
        partition: usize,
    },
    /// A tool copies a message of one partition to another.
    Copy {
        from: usize,
        nth: usize,
        to: usize,
    },
    Read {
        partition: usize,
        count: usize,
        dies: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        3 => (0..3_usize, 0..2_i64, 0..6_i64, partition.clone())
            .prop_map(|(node, epoch, batch, partition)| Step::Ship { node, epoch, batch, partition }),
        2 => (partition.clone(), 0..20_usize, partition.clone()).prop_map(|(from, nth, to)| Step::Copy { from, nth, to }),
        3 => (partition, 1..8_usize, any::<bool>())
            .prop_map(|(partition, count, dies)| Step::Read { partition, count, dies }),
    ]
}

proptest! {
    #[test]
    fn every_row_lands_once_whichever_partitions_its_message_is_copied_to(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World {
            logs: vec![Vec::new(); PARTITIONS], landed: vec![Vec::new(); PARTITIONS], ..World::default()
        };
        let mut shipped = BTreeMap::new();
        for step in steps {
            match step {
                Step::Ship { node, epoch, batch, partition } => {
                    let payload = shipped.entry((node, epoch, batch)).or_insert_with(|| payload(node, epoch, batch));
                    world.logs[partition].push(payload.clone());
                }
                Step::Copy { from, nth, to } => {
                    let copied = world.logs[from].get(nth).cloned();
                    world.logs[to].extend(copied);
                }
                Step::Read { partition, count, dies } => world.read(partition, count, dies),
            }
        }
        // What is forwarded last is read in the second round.
        for partition in (0..PARTITIONS).chain(0..PARTITIONS) {
            world.read(partition, usize::MAX / 2, false);
        }
        let mut rows: BTreeMap<(String, i64, i64), u32> = BTreeMap::new();
        let mut counted = 0;
        for arrival in world.landed.iter().flatten() {
            for (header, batch, first_seq) in arrival.slices() {
                for i in 0..batch.num_rows() as i64 {
                    *rows.entry((header.node.clone(), header.epoch, first_seq + i)).or_default() += 1;
                }
            }
            let ledger = crate::ops::ledger::rows(&[arrival]).unwrap();
            let emitted = ledger[0].column_by_name("emitted").unwrap();
            counted += arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(emitted).value(0);
        }
        let expected = shipped.keys().flat_map(|(node, epoch, batch)| {
            (0..ROWS).map(move |i| ((format!("n{node}"), *epoch, batch * ROWS + i), 1))
        });
        prop_assert_eq!(rows, expected.collect());
        prop_assert_eq!(counted, shipped.len() as i64 * 2 * ROWS, "losses count once");
    }
}
