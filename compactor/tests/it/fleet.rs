//! Tables filled as ingest fills them, and compactors that end when nothing is left.

use std::sync::Arc;
use std::time::Duration;

use compactor::{Done, Metrics, Options, Parts, maintain};
use event_schema::position::{Message, OffsetRange, TopicPartition};
use event_schema::topics;
use fleet_sim::{FleetSpec, Node};
use lake::{CommitOutcome, CommitRequest, Lake, Token};
use maintenance::Policy;
use prometheus_client::registry::Registry;
use service_kit::clock::ManualClock;
use service_kit::run::Drain;
use tables::arrival::Arrival;
use tables::def::TableDef;
use tables::registry::{CommitPolicy, Content, Table};
use tables::seen::Seen;

use crate::rows::NEW_YEAR;

/// 2100-01-01: long after the rows and after the commits of a test, so that every day is over.
pub(crate) const LATER_NS: i64 = 4_102_444_800_000_000_000;
/// An hour after the first row: its day goes on.
pub(crate) const SAME_DAY_NS: i64 = (NEW_YEAR + 3_600_000_000) * 1_000;

/// A fleet whose messages land one commit each.
pub(crate) struct Fleet {
    nodes: Vec<Node>,
    seen: Seen,
    next: i64,
}

impl Fleet {
    pub(crate) fn new(nodes: usize, seed: u64) -> Self {
        println!("seed {seed}");
        let start_wall_ns = NEW_YEAR * 1_000;
        let spec = FleetSpec { nodes, ranks_per_node: 2, seed, rows: 200, gap_ns: 1_000_000, start_wall_ns };
        Self { nodes: spec.build(), seen: Seen::new(), next: 0 }
    }

    /// Lands so many messages in every table, a commit each.
    pub(crate) async fn land(&mut self, lake: &Lake, messages: usize) {
        let at = TopicPartition::new(topics::EVENTS, 0);
        for _ in 0..messages {
            let count = self.nodes.len();
            let payload = self.nodes[self.next as usize % count].next_message(200).unwrap();
            let message = Message {
                at: at.clone(),
                offset: self.next,
                timestamp_ms: NEW_YEAR / 1_000,
                key: None,
                payload,
                headers: Vec::new(),
            };
            // Ingested on the day of the rows, so that all tables have the same days.
            let arrival = Arrival::decode(message, NEW_YEAR).admit(&mut self.seen);
            for table in tables::registry::all() {
                let handle = lake.ensure_table(&table.def).await.unwrap();
                let files = handle.write(&table.rows(&[&arrival]).unwrap()).await.unwrap();
                let range = OffsetRange::new(at.clone(), self.next, self.next + 1);
                let landed = handle.commit(CommitRequest::new(vec![range], Token::random(), files)).await;
                assert!(matches!(landed, CommitOutcome::Committed(_)), "{landed:?}");
            }
            self.next += 1;
        }
    }
}

/// One table as the registry lists it.
pub(crate) fn listed(def: TableDef) -> &'static [Table] {
    let commit = CommitPolicy { intervals: 1, messages: 1 };
    let content = Content::Records(event_schema::kind::RecordKind::Event);
    Box::leak(Box::new([Table { def, content, commit, refine_version: 1 }]))
}

/// Small files, so that a few commits are worth a rewrite.
pub(crate) fn options() -> Options {
    let policy = Policy { target_bytes: 4 << 20, fan_in: 4, files_per_commit: 64, quiet: Duration::from_secs(60) };
    Options { policy, ..Options::default() }
}

/// Maintains the tables at a time (unix nanoseconds) until nothing is left to do.
pub(crate) async fn compact(lake: &Lake, tables: &'static [Table], options: Options, now_ns: i64) -> Done {
    let metrics = Metrics::new(&mut Registry::default());
    let parts = Parts { lake, tables, clock: Arc::new(ManualClock::at(now_ns)), metrics };
    maintain(parts, options, &Drain::new()).await.unwrap()
}
