//! Messages of version 1 in this build: what its zero durations mean now.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int64Type};
use bytes::Bytes;

use super::super::{Header, HeaderDraft, body, decode, header as prefix, pack};
use super::{FIRST_SEQ, header};
use crate::batch::{Event, EventRows, MeasuredDuration, ProcessInfo};
use crate::catalog::Op;
use crate::kind::RecordKind;

/// Header and rows with the columns of the message's own version.
pub(super) fn read_as_shipped(message: &[u8]) -> (Header, RecordBatch) {
    let (header, frame) = prefix::read(message).unwrap();
    let batch = body::read(&header, frame.version(), frame.unpack().unwrap()).unwrap();
    (header, batch)
}

/// A message of version 1 with the rows of a batch, less the columns that came later.
fn encode_v1(draft: &HeaderDraft, batch: &RecordBatch) -> Bytes {
    let schema = draft.kind.wire_schema_of(1);
    let columns = schema.fields().iter().map(|field| Arc::clone(batch.column_by_name(field.name()).unwrap()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let header = draft.header(FIRST_SEQ, &batch).unwrap();
    pack(&header, 1, &body::write(&header, 1, &batch).unwrap()).unwrap()
}

#[test]
fn these_tests_write_version_1_as_it_shipped() {
    let shipped = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/event-v1.bin")).unwrap();
    let (header, batch) = read_as_shipped(&shipped);
    assert_eq!(encode_v1(&header.draft(), &batch), shipped);
}

/// The duration that a row of version 1 has in this build, and its weight.
fn read_in_this_build(op: Op, ns: impl Into<Option<i64>>, source_id: Option<&str>) -> (Option<i64>, Option<f32>) {
    let (duration, process) = (ns.into().map(MeasuredDuration::of_each), ProcessInfo::default());
    let mut rows = EventRows::new();
    let event = Event { duration, process, source_id, sample_weight: 3.0, ..Event::default() };
    rows.push(&event.with_op(op));
    let batch = decode(&encode_v1(&header(RecordKind::Event), &rows.finish().unwrap())).unwrap().batch;
    assert_eq!(batch.schema(), RecordKind::Event.wire_schema());
    let durations = batch.column_by_name("duration_ns").unwrap().as_primitive::<Int64Type>();
    let weights = batch.column_by_name("duration_weight").unwrap().as_primitive::<Float32Type>();
    (durations.iter().next().unwrap(), weights.iter().next().unwrap())
}

#[test]
fn a_zero_of_version_1_is_null_where_the_operation_is_not_timed() {
    let launches = [Op::CudaLaunchKernel, Op::CuLaunchKernel, Op::CuLaunchKernelEx];
    for op in launches.into_iter().chain([Op::ProcessExit, Op::Beacon, Op::EpochEnd]) {
        assert_eq!(read_in_this_build(op, 0, None), (None, None), "{op:?}");
        assert_eq!(read_in_this_build(op, 9, None), (Some(9), Some(3.0)), "{op:?}: a value was measured");
    }
}

#[test]
fn a_zero_of_version_1_stays_where_it_may_have_been_measured() {
    for op in [Op::CudaStreamSync, Op::RunnableWait, Op::NcclAllReduce, Op::CudaMalloc] {
        assert_eq!(read_in_this_build(op, 0, None), (Some(0), Some(3.0)), "{op:?}");
    }
    assert_eq!(read_in_this_build(Op::CuLaunchKernel, 0, Some("n:17")), (Some(0), Some(3.0)), "imported");
}

#[test]
fn a_null_of_version_1_stays_one() {
    for source_id in [None, Some("n:17")] {
        assert_eq!(read_in_this_build(Op::CudaStreamSync, None, source_id), (None, None));
    }
}
