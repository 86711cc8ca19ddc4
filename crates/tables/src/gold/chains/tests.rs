//! What lands in the table is read back as it was reported.

use std::sync::Arc;

use arrow::array::{Int64Array, StringViewArray};
use arrow::compute::concat_batches;
use bytes::Bytes;
use event_schema::batch::{Rows, Value as Cell};
use event_schema::clock::Beacon;
use event_schema::loss::LossCounters;
use event_schema::position::{Message, TopicPartition};
use event_schema::stream::Stream;
use event_schema::wire::{HeaderDraft, encode};

use super::*;
use crate::registry::find;
use crate::seen::Seen;

/// A message of one record with these fields beside its times.
fn message(fields: impl IntoIterator<Item = (&'static str, Cell)>) -> Message {
    let mut rows = Rows::new(RecordKind::Chain);
    rows.push([("boot_ns", Cell::Long(1)), ("detected_ns", Cell::Long(7))].into_iter().chain(fields)).unwrap();
    let draft = HeaderDraft {
        kind: RecordKind::Chain,
        cluster: "c".into(),
        node: "gpu-1".into(),
        boot_id: "0123456789".into(),
        epoch: 1,
        stream: Stream::Chains,
        beacon: Beacon { boot_ns: 0, wall_ns: 0, error_ns: 0 },
        losses: LossCounters { emitted: 1, ..LossCounters::default() },
        agent: "test".into(),
    };
    let payload: Bytes = encode(&draft, 0, &rows.finish().unwrap()).unwrap();
    Message { at: TopicPartition::new("t", 0), offset: 0, timestamp_ms: 0, key: None, payload, headers: Vec::new() }
}

/// The rows of the registered table for a message.
fn landed(fields: impl IntoIterator<Item = (&'static str, Cell)>) -> RecordBatch {
    let arrival = Arrival::decode(message(fields), 0).admit(&mut Seen::new());
    let batches = find("gold", "chains").unwrap().rows(&[&arrival]).unwrap();
    concat_batches(&def().arrow_schema(), &batches).unwrap()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

#[test]
fn a_chain_is_read_back_as_it_was_reported() {
    let batch = landed([
        ("chain_id", text("tail-high-cuLaunchKernel")),
        ("severity", text("HIGH")),
        ("summary", text("cuLaunchKernel p99=734µs")),
        ("root_cause", text("827 sched_switch events")),
        ("explanation", text("It waited.")),
        ("recommendations", text(r#"["pin it", "nice it"]"#)),
        ("op", text("cuLaunchKernel")),
        ("p99_us", Cell::Long(734)),
        ("p50_us", Cell::Long(16)),
        ("tail_ratio", Cell::Double(45.8)),
        ("timeline", text(r#"[{"layer":"HOST","op":"sched_switch","detail":"827","dur_us":622,"pid":3},{"op":"x"}]"#)),
    ]);
    let switches = StoredStep {
        layer: "HOST".to_owned(),
        op: "sched_switch".to_owned(),
        detail: "827".to_owned(),
        dur_us: Some(622),
    };
    let reported = StoredChain {
        chain_id: "tail-high-cuLaunchKernel".to_owned(),
        node: "gpu-1".to_owned(),
        severity: Some("HIGH".to_owned()),
        summary: Some("cuLaunchKernel p99=734µs".to_owned()),
        detected_ns: 7,
        root_cause: Some("827 sched_switch events".to_owned()),
        explanation: Some("It waited.".to_owned()),
        recommendations: vec!["pin it".to_owned(), "nice it".to_owned()],
        op: Some("cuLaunchKernel".to_owned()),
        p99_us: Some(734),
        p50_us: Some(16),
        tail_ratio: Some(45.8),
        timeline: vec![switches, StoredStep { op: "x".to_owned(), ..StoredStep::default() }],
    };
    assert_eq!(back(&batch), [reported]);
}

#[test]
fn what_is_null_or_no_json_of_its_kind_is_empty() {
    let named = [("chain_id", text("a")), ("severity", text("LOW")), ("summary", text("s"))];
    for wrong in ["", "{}", "[1]", r#"[{"layer":1}]"#, r#"[{"dur_us":"1"}]"#] {
        let batch =
            landed(named.clone().into_iter().chain([("recommendations", text(wrong)), ("timeline", text(wrong))]));
        let [chain] = <[StoredChain; 1]>::try_from(back(&batch)).unwrap();
        assert_eq!((chain.recommendations.len(), chain.timeline.len(), chain.p99_us), (0, 0, None), "{wrong}");
    }
}

#[test]
fn a_row_that_names_no_chain_is_left_out() {
    let node: ArrayRef = Arc::new(StringViewArray::from(vec![Some("n"), None]));
    let chain_id: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), Some("b")]));
    let detected_ns: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let columns = [("node", node), ("chain_id", chain_id), ("detected_ns", detected_ns)];
    let found = back(&RecordBatch::try_from_iter(columns).unwrap());
    assert_eq!(found.iter().map(|chain| chain.chain_id.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn every_column_that_is_read_is_one_of_the_table() {
    assert_eq!(COLUMNS.map(|name| def().column(name).is_some()), [true; COLUMNS.len()]);
}
