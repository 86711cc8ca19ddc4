//! Sorted inputs merged into one file: every row once and in order, for us, PyIceberg and DuckDB, and in bounded memory.

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use event_schema::position::OffsetRange;
use futures::{StreamExt, TryStreamExt, stream};
use lake::{CommitRequest, MergeError, MergeOptions, ReadError, SortedRows, Token};
use objects::{Tags, Verified};
use tables::columns::{int, long, timestamp};
use tables::def::{ColumnType, TableDef, column};

use crate::place::Place;
use crate::rows::{NEW_YEAR, def, range, row, swaps};
use crate::servers::{Servers, python};

on_both!(a_merged_file_has_every_row_of_its_inputs_once_and_in_order);

const MEMORY_BYTES: usize = 64 << 20;
const OPTIONS: MergeOptions = MergeOptions { memory_bytes: MEMORY_BYTES, file_rows: u64::MAX, fold: None };
const MIB: usize = 1 << 20;

async fn a_merged_file_has_every_row_of_its_inputs_once_and_in_order(place: Place) {
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    // Input i has the offsets of both partitions that leave i when divided by the number of inputs.
    let inputs = (0..7_i64).map(|i| {
        let rows = (0..2).flat_map(|part| (i..1_000).step_by(7).map(move |seq| row(part, seq, NEW_YEAR + seq)));
        let rows: Vec<RecordBatch> = rows.collect();
        let schema = rows[0].schema();
        let batches: Vec<_> = rows.chunks(50).map(|rows| concat_batches(&schema, rows).unwrap()).collect();
        stream::iter(batches).map(Ok).boxed()
    });
    let file = table.merge(inputs.collect(), OPTIONS).await.unwrap().remove(0);
    let store = place.lake().await.store().clone();
    let verified = store.verify(file.file_path(), file.file_size_in_bytes()).await.unwrap();
    assert_eq!(verified, Verified::Sound);
    let landed: Vec<OffsetRange> = vec![range(0, 0, 1_000), range(1, 0, 1_000)];
    assert_eq!(swaps(table.commit(CommitRequest::new(landed, Token::random(), vec![file])).await), 1);

    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let read: Vec<RecordBatch> = snapshot.scan_batches(&["seq"], &[]).await.unwrap().try_collect().await.unwrap();
    let seqs: Vec<i64> = read.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(seqs, (0..1_000).chain(0..1_000).collect::<Vec<_>>());
    place.assert_landed(&[1_000, 1_000]);

    let plan = snapshot.plan(&[]).await.unwrap();
    let rows = table.read_file(&plan[0].location, plan[0].size_bytes, 300);
    let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [300, 300, 300, 300, 300, 300, 200]);
    assert_eq!(rows[0].schema(), def().arrow_schema());
    assert_eq!(plan[0].sort_order_id, table.sort_order_id());
    assert!(table.sort_order_id().is_some());
}

/// Uploads of a place that were begun, and neither completed nor aborted: S3 keeps their parts.
fn uploads(place: &Place) -> usize {
    let endpoint = Servers::shared().s3.env("AWS_ENDPOINT_URL");
    let prefix = place.options.warehouse.strip_prefix("s3://lake/").unwrap();
    let script = format!(
        "import boto3\n\
         s3 = boto3.client('s3', endpoint_url='{endpoint}', region_name='us-east-1',\n\
         \x20   aws_access_key_id='test', aws_secret_access_key='test')\n\
         begun = s3.list_multipart_uploads(Bucket='lake').get('Uploads', [])\n\
         print(sum(upload['Key'].startswith('{prefix}/') for upload in begun))"
    );
    let output = python().args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_fails_on_its_way_leaves_no_parts_in_s3() {
    let place = Place::served().await;
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let unreadable = ReadError::CorruptFile { location: "f".to_owned(), problem: "p".to_owned() };
    let input = stream::iter([Ok(row(0, 0, NEW_YEAR)), Err(unreadable)]).boxed();
    let error = table.merge(vec![input], OPTIONS).await.unwrap_err();
    assert!(matches!(error, MergeError::Input { input: 0, .. }), "{error:?}");
    assert_eq!(uploads(&place), 0);
    let lake = place.lake().await;
    let begun = lake.store().upload(&format!("{}/begun", lake.store().root()), &Tags::default()).await.unwrap();
    assert_eq!(uploads(&place), 1, "one that is begun is seen");
    begun.abort().await;
}

/// Rows of 1 KiB that do not compress.
fn wide() -> TableDef {
    let mut def = def();
    def.columns.push(column(4, "payload", ColumnType::Binary, "random bytes"));
    def
}

const INPUTS: i64 = 64;
const ROWS_PER_BATCH: i64 = 64;
const BATCHES: i64 = 64;
/// Bytes of all inputs: 64 of 4 MiB.
const ALL_BYTES: usize = (INPUTS * ROWS_PER_BATCH * BATCHES) as usize * 1_024;

/// 1 KiB of splitmix64, which is fast in unoptimised builds too.
fn noise(state: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1_024);
    while bytes.len() < 1_024 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes
}

/// One input, made batch by batch as it is read.
fn made_as_read(input: i64) -> SortedRows {
    let batches = (0..BATCHES).map(move |number| {
        let mut random = (input * BATCHES + number) as u64;
        let seqs = move || (0..ROWS_PER_BATCH).map(move |i| (number * ROWS_PER_BATCH + i) * INPUTS + input);
        let payload: BinaryArray = seqs().map(|_| Some(noise(&mut random))).collect();
        let columns: Vec<ArrayRef> =
            vec![int(seqs().map(|_| 0)), long(seqs()), timestamp(seqs().map(|seq| NEW_YEAR + seq)), Arc::new(payload)];
        Ok(RecordBatch::try_from_iter(["part", "seq", "ts", "payload"].into_iter().zip(columns)).unwrap())
    });
    stream::iter(batches).boxed()
}

/// A field of `/proc/self/status`, in bytes.
fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap() * 1_024
}

/// What the child process says: bytes by which the merge raised the peak of its resident memory, and bytes of the file.
const GROWTH: &str = "growth-of-resident-memory:";

/// The child process; it does nothing in a run of all tests. With `held` it keeps all rows before it merges them.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_merges() {
    let Ok(mode) = std::env::var("MERGE_CHILD") else { return };
    let place = Place::embedded();
    let table = place.lake().await.ensure_table(&wide()).await.unwrap();
    let before = status("VmRSS:");
    let mut inputs: Vec<SortedRows> = (0..INPUTS).map(made_as_read).collect();
    if mode == "held" {
        let mut held = Vec::new();
        for input in inputs {
            held.push(stream::iter(input.try_collect::<Vec<_>>().await.unwrap()).map(Ok).boxed());
        }
        inputs = held;
    }
    let file = table.merge(inputs, OPTIONS).await.unwrap().remove(0);
    let growth = status("VmHWM:").saturating_sub(before);
    assert_eq!(file.record_count(), (INPUTS * ROWS_PER_BATCH * BATCHES) as u64);
    assert!(file.split_offsets().unwrap().len() > 10, "row groups of an eighth of the memory");
    let store = place.lake().await.store().clone();
    assert_eq!(store.verify(file.file_path(), file.file_size_in_bytes()).await.unwrap(), Verified::Sound);
    println!("{GROWTH}{growth}:{}", file.file_size_in_bytes());
}

/// Growth of the child's memory and bytes of the file.
fn run_child(mode: &str) -> (usize, usize) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["merge::child_that_merges", "--exact", "--nocapture"]).env("MERGE_CHILD", mode);
    let output = child.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    let numbers = out.split_once(GROWTH).unwrap().1.lines().next().unwrap().to_owned();
    let numbers: Vec<usize> = numbers.split(':').map(|number| number.parse().unwrap()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn memory_of_a_merge_is_bounded_whatever_its_inputs_hold() {
    // The memory given to the merge, and parts on their way: two that are sent and one that is filled.
    let bound = MEMORY_BYTES + 3 * objects::PART_BYTES + 24 * MIB;
    let (growth, file_bytes) = run_child("streamed");
    println!("{} MiB of rows, file of {} MiB, memory grew by {} MiB", ALL_BYTES / MIB, file_bytes / MIB, growth / MIB);
    assert!(file_bytes > 3 * ALL_BYTES / 4 && bound < file_bytes, "the rows do not compress");
    assert!(growth < bound, "{growth} of {bound}");
    let (held, _) = run_child("held");
    assert!(held > ALL_BYTES, "the measure sees rows that are held: {held}");
}
