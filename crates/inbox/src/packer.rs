//! Events of one object become messages. The identity of the object is the boot id of its rows, and its rows are
//! numbered per node in their order, so that ingest knows each row again when the object is read again (ADR 51).

use std::collections::{BTreeMap, HashMap};

use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::batch::EventRows;
use event_schema::clock::Beacon;
use event_schema::identity::{SEQS_MAX, first_seq};
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::stream::Stream;
use event_schema::wire::{self, EncodeError, HeaderDraft};
use sha2::{Digest, Sha256};

use crate::event::EventRow;

/// Largest number of rows in one message. The wire allows 65,536.
const ROWS_MAX: u32 = 8192;
/// Largest number of bytes of the texts and numbers in one message, before compression.
const BYTES_MAX: usize = 2 << 20;
/// Longest time between the rows of one message. Tables are partitioned by day, and such a message has rows of two days
/// at most.
const SPAN_NS_MAX: u64 = 24 * 3_600 * 1_000_000_000;
/// Messages that are open at once, one per node. Each takes some hundred kilobytes, however few rows it has.
const OPEN_MAX: usize = 64;
/// Bytes of a row beside its texts.
const ROW_BYTES: usize = 240;

/// Why rows cannot be made a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    #[error("the rows cannot be made a batch")]
    Batch(#[from] ArrowError),
    #[error("the message cannot be encoded")]
    Encode(#[from] EncodeError),
    #[error("a node has more than {SEQS_MAX} rows in one object: split it")]
    TooManyRows,
}

/// A message of events.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) node: String,
    pub(crate) message: Bytes,
}

/// Collects the events of one object.
#[derive(Debug)]
pub(crate) struct Packer {
    boot_id: String,
    cluster: String,
    open: BTreeMap<String, Open>,
    /// Rows that each node has had so far.
    counts: HashMap<String, i64>,
}

#[derive(Debug)]
struct Open {
    cluster: String,
    /// Which row of the node its first is.
    first: i64,
    rows: EventRows,
    count: u32,
    bytes: usize,
    earliest_ns: i64,
    latest_ns: i64,
}

/// The boot id of the rows of an object. A UUID of version 8, by which rows from files are known
/// ([`event_schema::identity::is_recording`]).
pub(crate) fn boot_id(bucket: &str, key: &str, etag: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["object", bucket, key, etag] {
        // With its length before it: "ab", "c" and "a", "bc" must differ.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid().to_string()
}

impl Packer {
    /// `cluster` is that of rows that name none.
    pub(crate) fn new(boot_id: String, cluster: &str) -> Self {
        Self { boot_id, cluster: cluster.to_owned(), open: BTreeMap::new(), counts: HashMap::new() }
    }

    /// Adds a row; returns the messages that it ended.
    ///
    /// # Errors
    /// A message cannot be made.
    pub(crate) fn add(&mut self, row: &EventRow) -> Result<Vec<Packed>, PackError> {
        let bytes = ROW_BYTES + row.text_bytes();
        let cluster = row.cluster.as_deref().unwrap_or(&self.cluster).to_owned();
        let mut ended = Vec::new();
        if self.open.get(&row.node).is_some_and(|open| !open.takes(&cluster, bytes, row.ts_ns)) {
            ended.extend(self.end(&row.node.clone())?);
        }
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&row.node) {
            // The fullest frees most memory with one message.
            let fullest = self.open.iter().max_by_key(|(_, open)| open.bytes).map(|(node, _)| node.clone());
            if let Some(node) = fullest {
                ended.extend(self.end(&node)?);
            }
        }
        let count = match self.counts.get_mut(&row.node) {
            Some(count) => count,
            None => self.counts.entry(row.node.clone()).or_default(),
        };
        if *count >= SEQS_MAX {
            return Err(PackError::TooManyRows);
        }
        let open = match self.open.get_mut(&row.node) {
            Some(open) => open,
            None => self.open.entry(row.node.clone()).or_insert_with(|| Open::new(cluster, *count, row.ts_ns)),
        };
        *count += 1;
        open.push(row, bytes);
        Ok(ended)
    }

    /// The messages that are still open.
    ///
    /// # Errors
    /// A message cannot be made.
    pub(crate) fn finish(&mut self) -> Result<Vec<Packed>, PackError> {
        let nodes: Vec<String> = self.open.keys().cloned().collect();
        let mut ended = Vec::new();
        for node in nodes {
            ended.extend(self.end(&node)?);
        }
        Ok(ended)
    }

    fn end(&mut self, node: &str) -> Result<Option<Packed>, PackError> {
        let Some(mut open) = self.open.remove(node) else { return Ok(None) };
        let batch = open.rows.finish()?;
        let draft = HeaderDraft {
            kind: RecordKind::Event,
            cluster: open.cluster,
            node: node.to_owned(),
            boot_id: self.boot_id.clone(),
            epoch: 0,
            stream: Stream::Data,
            // The rows have unix time already.
            beacon: Beacon::WALL,
            // Nothing was lost between the object and here, so that emitted = landed and the ledger closes.
            losses: LossCounters { emitted: u64::from(open.count), ..LossCounters::default() },
            agent: "bulk".to_owned(),
        };
        // Of epoch 0 there is always a first number.
        let first = first_seq(0, Stream::Data).unwrap_or_default() + open.first;
        let message = wire::encode(&draft, first, &batch)?;
        Ok(Some(Packed { node: node.to_owned(), message }))
    }
}

impl Open {
    fn new(cluster: String, first: i64, ts_ns: i64) -> Self {
        Self { cluster, first, rows: EventRows::new(), count: 0, bytes: 0, earliest_ns: ts_ns, latest_ns: ts_ns }
    }

    fn takes(&self, cluster: &str, bytes: usize, ts_ns: i64) -> bool {
        let span_ns = self.latest_ns.max(ts_ns).abs_diff(self.earliest_ns.min(ts_ns));
        self.cluster == cluster && self.count < ROWS_MAX && self.bytes + bytes <= BYTES_MAX && span_ns < SPAN_NS_MAX
    }

    fn push(&mut self, row: &EventRow, bytes: usize) {
        self.rows.push(&row.event());
        self.count += 1;
        self.bytes += bytes;
        self.earliest_ns = self.earliest_ns.min(row.ts_ns);
        self.latest_ns = self.latest_ns.max(row.ts_ns);
    }
}

#[cfg(test)]
mod tests {
    use event_schema::identity::is_recording;

    use super::*;

    fn row(node: &str, ts_ns: i64) -> EventRow {
        EventRow {
            node: node.to_owned(),
            ts_ns,
            source: 1,
            op: 1,
            pid: 7,
            tid: 7,
            sample_weight: 1.0,
            ..EventRow::default()
        }
    }

    /// Node, number of the first row and rows of each message of an object with these rows.
    fn messages(rows: &[EventRow]) -> Vec<(String, i64, u32)> {
        let mut packer = Packer::new(boot_id("b", "k", "e"), "c");
        let mut packed: Vec<Packed> = rows.iter().flat_map(|row| packer.add(row).unwrap()).collect();
        packed.extend(packer.finish().unwrap());
        let headers = packed.iter().map(|packed| wire::peek(&packed.message).unwrap());
        headers.map(|header| (header.node, header.first_seq, header.rows)).collect()
    }

    #[test]
    fn an_object_is_known_by_bucket_key_and_entity_tag() {
        let id = boot_id("b", "k", "e");
        assert!(is_recording(&id));
        assert_eq!(id, boot_id("b", "k", "e"));
        for other in [boot_id("c", "k", "e"), boot_id("b", "l", "e"), boot_id("b", "k", "f"), boot_id("bk", "", "e")] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn the_rows_of_each_node_are_numbered_without_a_gap_however_they_take_turns() {
        let rows: Vec<EventRow> = (0..10_000).map(|at| row(["a", "b"][at % 2], at as i64)).collect();
        assert_eq!(messages(&rows), [("a".to_owned(), 0, 5000), ("b".to_owned(), 0, 5000)]);
        // More nodes than may be open: messages end early, and the numbers go on.
        let rows: Vec<EventRow> = (0..300).map(|at| row(&format!("n{}", at % 100), at)).collect();
        let mut next: HashMap<String, i64> = HashMap::new();
        for (node, first, rows) in messages(&rows) {
            assert_eq!(next.insert(node.clone(), first + i64::from(rows)).unwrap_or(0), first, "{node}");
        }
        assert_eq!((next.len(), next.values().sum::<i64>()), (100, 300));
    }

    #[test]
    fn a_message_ends_at_its_limits_and_where_the_cluster_changes() {
        let day = i64::try_from(SPAN_NS_MAX).unwrap();
        assert_eq!(messages(&[row("a", 0), row("a", day - 1), row("a", day)]).len(), 2);
        let other = EventRow { cluster: Some("d".to_owned()), ..row("a", 0) };
        assert_eq!(messages(&[row("a", 0), other, row("a", 0)]).len(), 3);
        let rows = vec![row("a", 0); ROWS_MAX as usize + 1];
        assert_eq!(messages(&rows), [("a".to_owned(), 0, ROWS_MAX), ("a".to_owned(), i64::from(ROWS_MAX), 1)]);
        let wide = EventRow { comm: Some("x".repeat(BYTES_MAX)), ..row("a", 0) };
        assert_eq!(messages(&[wide.clone(), wide]).len(), 2);
    }
}
