//! A simulated fleet: nodes that make the events of a training job, mostly launches, then scheduler waits, copies and
//! collectives, and messages of the real wire format. Everything follows from the seed.
//!
//! `causeway up --simulate`, `causeway-loadtest` and tests share it.
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        clippy::cognitive_complexity,
        reason = "tests count small numbers"
    )
)]

use bytes::Bytes;
use event_schema::batch::{Event, EventRows, MeasuredDuration, ProcessInfo};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::identity::first_seq;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;
use event_schema::wire::{EncodeError, HeaderDraft, encode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub mod training;

/// What the fleet is like.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// Nodes, from 1.
    pub nodes: usize,
    /// Ranks of each node, from 1.
    pub ranks_per_node: i32,
    /// Of every random choice.
    pub seed: u64,
    /// Rows per message.
    pub rows: usize,
    /// Mean time between two events of a node, nanoseconds.
    pub gap_ns: i64,
    /// Wall time of the first event, unix nanoseconds.
    pub start_wall_ns: i64,
}

/// Why a batch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error("a batch of simulated events could not be built")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("a batch of simulated events could not be encoded")]
    Encode(#[from] EncodeError),
}

/// One node of the fleet.
#[derive(Debug)]
pub struct Node {
    /// `node.name` of its messages.
    pub name: String,
    boot_id: String,
    rng: StdRng,
    boot_ns: i64,
    next_seq: i64,
    rank_base: i32,
    world_size: i32,
    rows: EventRows,
    spec: FleetSpec,
}

/// Boot time of a simulated node when the simulation begins.
const BOOT_NS: i64 = 1_000_000_000_000;
const FUNCTIONS: i64 = 200;

impl FleetSpec {
    /// The nodes of this fleet.
    pub fn build(&self) -> Vec<Node> {
        let world_size = i32::try_from(self.nodes).unwrap_or(i32::MAX).saturating_mul(self.ranks_per_node);
        (0..self.nodes)
            .map(|n| {
                // A generator for each node: its events do not depend on what other nodes have made. The multiplier
                // (2^64 divided by the golden ratio) keeps the generators of neighbouring seeds apart.
                let mut rng =
                    StdRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n as u64));
                // Of the seed as well: a fleet made again has the boot ids of the first, and its messages are
                // repetitions to ingest. Of version 4, as the kernel's: one of version 8 would be a recording's
                // (`event_schema::identity::is_recording`), to which the audit does not apply all laws.
                let id: u128 = rng.random();
                let boot_id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid();
                Node {
                    name: format!("gpu-node-{n:04}"),
                    boot_id: boot_id.to_string(),
                    rng,
                    boot_ns: BOOT_NS,
                    next_seq: first_seq(0, Stream::Data).unwrap_or(0),
                    rank_base: i32::try_from(n).unwrap_or(0) * self.ranks_per_node,
                    world_size,
                    rows: EventRows::new(),
                    spec: self.clone(),
                }
            })
            .collect()
    }
}

impl Node {
    /// The sequence numbers used so far.
    pub fn seqs(&self) -> std::ops::Range<i64> {
        first_seq(0, Stream::Data).unwrap_or(0)..self.next_seq
    }

    /// The next message of this node: `rows` events, in time order.
    ///
    /// # Errors
    /// Only when the codec refuses the batch.
    pub fn next_message(&mut self, rows: usize) -> Result<Bytes, FleetError> {
        for _ in 0..rows {
            self.push_event();
        }
        self.encode()
    }

    /// As [`Self::next_message`], with events up to about this wall time: for live load.
    ///
    /// # Errors
    /// As [`Self::next_message`].
    pub fn message_until(&mut self, rows: usize, wall_ns: i64) -> Result<Bytes, FleetError> {
        let end = BOOT_NS + (wall_ns - self.spec.start_wall_ns);
        let gap = (end - self.boot_ns) / i64::try_from(rows.max(1)).unwrap_or(1);
        self.spec.gap_ns = gap.max(1);
        // A mean gap that spreads the rows over the time since the last message.
        for _ in 0..rows {
            self.push_event();
        }
        // The gaps are random, so that the last event may lie before or behind the time asked for. The next message
        // continues from that time.
        self.boot_ns = end;
        self.encode()
    }

    fn encode(&mut self) -> Result<Bytes, FleetError> {
        let rows = self.rows.len();
        let draft = HeaderDraft {
            kind: RecordKind::Event,
            cluster: "sim".to_owned(),
            node: self.name.clone(),
            boot_id: self.boot_id.clone(),
            epoch: 0,
            stream: Stream::Data,
            beacon: Beacon { boot_ns: BOOT_NS, wall_ns: self.spec.start_wall_ns, error_ns: 100_000 },
            losses: LossCounters { emitted: rows as u64, ..LossCounters::default() },
            agent: concat!("causeway-loadtest ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        // Taken before the batch is encoded: numbers are consecutive from message to message, as an agent's are.
        let first_seq = self.next_seq;
        self.next_seq += i64::try_from(rows).unwrap_or(0);
        Ok(encode(&draft, first_seq, &self.rows.finish()?)?)
    }

    fn push_event(&mut self) {
        let rng = &mut self.rng;
        // Uniform, with `gap_ns` as its mean, and never 0: events of a node are in order of time.
        self.boot_ns += rng.random_range(1..=self.spec.gap_ns * 2 - 1);
        let local_rank = rng.random_range(0..self.spec.ranks_per_node);
        let pid = 4_000 + local_rank;
        let process = ProcessInfo {
            rank: Some(self.rank_base + local_rank),
            local_rank: Some(local_rank),
            world_size: Some(self.world_size),
            job_id: Some("sim-job"),
            cgroup_id: 77,
            ..ProcessInfo::default()
        };
        let event = Event {
            boot_ns: self.boot_ns,
            pid,
            tid: pid * 10 + rng.random_range(0..4),
            comm: Some(if local_rank % 2 == 0 { "python3" } else { "pt_main_thread" }),
            process,
            gpu_id: Some(local_rank),
            sample_weight: 1.0,
            ..Event::default()
        };
        // The mix of a training job: 70 % launches, 15 % waits for a CPU, 8 % copies, 7 % collectives.
        let kind: f64 = rng.random();
        self.rows.push(&if kind < 0.70 {
            launch(rng, event)
        } else if kind < 0.85 {
            wait(rng, event)
        } else if kind < 0.93 {
            copy(rng, event)
        } else {
            collective(self.next_seq, rng, event)
        });
    }
}

fn timed(ns: f64) -> Option<MeasuredDuration> {
    Some(MeasuredDuration::of_each(whole_ns(ns)))
}

/// A time without its fraction of a nanosecond.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is to go; simulated times are far below 2^63")]
fn whole_ns(ns: f64) -> i64 {
    ns as i64
}

/// Without a duration, as an agent records launches.
fn launch<'a>(rng: &mut StdRng, event: Event<'a>) -> Event<'a> {
    let function = rng.random_range(0..FUNCTIONS);
    Event {
        arg0: 0x7f00_0000_0000 + function * 64,
        arg1: 0x5500,
        stack_hash: (function % 60) * 7919,
        ..event.with_op(Op::CudaLaunchKernel)
    }
}

fn wait<'a>(rng: &mut StdRng, event: Event<'a>) -> Event<'a> {
    // The fifth power makes a long tail: half of the waits are below 0.16 ms, the longest are 5 ms.
    let duration = timed(rng.random::<f64>().powi(5) * 5e6);
    let event = event.with_op(Op::RunnableWait);
    Event { duration, arg0: rng.random_range(1_000..1_400), peer_comm: Some("kworker/1:2"), ..event }
}

fn copy<'a>(rng: &mut StdRng, event: Event<'a>) -> Event<'a> {
    let bytes = 1i64 << rng.random_range(10..26);
    let duration = timed(rng.random::<f64>() * 1e5);
    Event { duration, arg0: bytes, arg1: 1, bytes: Some(bytes), ..event.with_op(Op::CudaMemcpyAsync) }
}

fn collective<'a>(seq: i64, rng: &mut StdRng, event: Event<'a>) -> Event<'a> {
    let duration = timed(rng.random::<f64>() * 3e6);
    let bytes = Some(1 << 22);
    let event = event.with_op(Op::NcclAllReduce);
    Event { duration, bytes, comm_hash: Some(0x1234_5678_90ab), coll_seq: Some(seq / 50), ..event }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_are_those_of_a_kernel_and_follow_from_the_seed() {
        let spec = FleetSpec { nodes: 64, ranks_per_node: 1, seed: 1, rows: 1, gap_ns: 1, start_wall_ns: 0 };
        let boot_ids: Vec<String> = spec.build().into_iter().map(|node| node.boot_id).collect();
        for boot_id in &boot_ids {
            assert_eq!(uuid::Uuid::try_parse(boot_id).unwrap().get_version_num(), 4, "{boot_id}");
        }
        assert!(spec.build().into_iter().map(|node| node.boot_id).eq(boot_ids));
    }
}
