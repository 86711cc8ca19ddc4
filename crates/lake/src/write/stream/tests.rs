use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::{TryStreamExt, stream};
use objects::{Store, Verified};
use tables::def::{Partition, TableDef};
use uuid::Uuid;

use super::*;
use crate::environment::Environment;
use crate::table::schema;
use crate::tests::{def, rows};

const OPTIONS: MergeOptions = MergeOptions { memory_bytes: 64 << 20, file_rows: u64::MAX, fold: None };
const DAY: i64 = 86_400_000_000;

fn writer(def: &TableDef) -> (tempfile::TempDir, FileWriter) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), None).unwrap();
    let location = format!("{}/silver/t", store.root());
    let metadata = schema::new_table(def, &location, Uuid::nil(), 0).unwrap();
    (dir, FileWriter::new(def, &metadata, store, Environment::default()))
}

fn input(batches: &[RecordBatch]) -> SortedRows {
    stream::iter(batches.to_vec()).map(Ok).boxed()
}

async fn files(writer: &FileWriter) -> usize {
    let store = writer.store();
    store.list(store.root()).unwrap().try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn a_merged_file_is_described_as_one_that_was_encoded_whole() {
    let (_dir, writer) = writer(&def());
    let batches = [rows(&[("a", 1, 1), ("c", 5, 2)]), rows(&[("a", 2, 3), ("b", 1, 4)])];
    let merged = writer.merge(batches.iter().map(|batch| input(std::slice::from_ref(batch))).collect(), OPTIONS);
    let merged = merged.await.unwrap().remove(0);
    let whole = writer.encode(batches.to_vec()).unwrap().remove(0);
    let whole = whole.data_file();
    assert_eq!(merged.record_count(), 4);
    assert_eq!(merged.partition(), whole.partition());
    assert_eq!(merged.sort_order_id(), whole.sort_order_id());
    assert_eq!(merged.lower_bounds(), whole.lower_bounds());
    assert_eq!(merged.upper_bounds(), whole.upper_bounds());
    assert_eq!(merged.null_value_counts(), whole.null_value_counts());
    assert_eq!(merged.value_counts(), whole.value_counts());
    assert_eq!(merged.split_offsets(), whole.split_offsets());
    assert!(merged.file_path().contains("/ts_day=2026-01-01/"), "{}", merged.file_path());
    let verified = writer.store().verify(merged.file_path(), merged.file_size_in_bytes()).await.unwrap();
    assert_eq!(verified, Verified::Sound);
}

/// The least and the greatest values lie in several row groups.
#[tokio::test]
async fn a_file_of_several_row_groups_has_every_row_in_order_and_is_described_as_a_whole() {
    let (_dir, writer) = writer(&def());
    let keys = ["a", "b", "c", "d"].into_iter().flat_map(|node| (0..5_000).map(move |ts| (node, ts)));
    let all: Vec<_> = keys.zip((0..20_000).rev()).map(|((node, ts), seq)| (node, ts, seq)).collect();
    let of_input = |number: usize| {
        let own: Vec<_> = all.iter().copied().skip(number).step_by(2).collect();
        own.chunks(100).map(rows).collect::<Vec<_>>()
    };
    let inputs = [of_input(0), of_input(1)];
    let little = MergeOptions { memory_bytes: 256 << 10, ..OPTIONS };
    let merged = writer.merge(inputs.iter().map(|batches| input(batches)).collect(), little);
    let merged = merged.await.unwrap().remove(0);
    let whole = writer.encode(inputs.concat()).unwrap().remove(0);
    let whole = whole.data_file();
    assert!(merged.split_offsets().unwrap().len() > 2, "{:?}", merged.split_offsets());
    assert_eq!((merged.record_count(), whole.record_count()), (20_000, 20_000));
    assert_eq!(merged.partition(), whole.partition());
    assert_eq!(merged.lower_bounds(), whole.lower_bounds());
    assert_eq!(merged.upper_bounds(), whole.upper_bounds());
    assert_eq!(merged.null_value_counts(), whole.null_value_counts());
    assert_eq!(merged.value_counts(), whole.value_counts());
    let verified = writer.store().verify(merged.file_path(), merged.file_size_in_bytes()).await.unwrap();
    assert_eq!(verified, Verified::Sound);
    let bytes = writer.store().get(merged.file_path()).await.unwrap();
    let mut seqs = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
        seqs.extend_from_slice(batch.unwrap().column(2).as_primitive::<Int64Type>().values());
    }
    assert_eq!(seqs, (0..20_000).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn inputs_without_rows_make_no_file() {
    let (_dir, writer) = writer(&def());
    for inputs in [vec![], vec![input(&[]), input(&[rows(&[])])]] {
        assert!(writer.merge(inputs, OPTIONS).await.unwrap().is_empty());
    }
    assert_eq!(files(&writer).await, 0);
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_and_leaves_no_file() {
    let (_dir, writer) = writer(&def());
    let good = || input(&[rows(&[("a", 1, 1)]), rows(&[("a", 9, 2)])]);
    let unsorted = input(&[rows(&[("a", 2, 1)]), rows(&[("a", 1, 2)])]);
    let days = input(&[rows(&[("a", 1, 1)]), rows(&[("a", DAY, 2)])]);
    let two_days = input(&[rows(&[("a", 1, 1), ("a", DAY, 2)])]);
    let next_day = input(&[rows(&[("a", DAY, 1)])]);
    let unreadable = || ReadError::CorruptFile { location: "f".to_owned(), problem: "p".to_owned() };
    let failing_later: SortedRows = stream::iter([Ok(rows(&[("a", 1, 1)])), Err(unreadable())]).boxed();
    let failing_at_once: SortedRows = stream::iter([Err(unreadable())]).boxed();
    let missing = input(&[rows(&[("a", 1, 1)]).project(&[0, 1, 3, 4]).unwrap()]);
    let table = def().name;
    for (bad, expected) in [
        (unsorted, MergeError::NotSorted { table, input: 1 }),
        (days, MergeError::OtherDay { table, input: 1 }),
        (two_days, MergeError::OtherDay { table, input: 1 }),
        (next_day, MergeError::OtherDay { table, input: 1 }),
        (failing_later, MergeError::Input { table, input: 1, source: unreadable() }),
        (failing_at_once, MergeError::Input { table, input: 1, source: unreadable() }),
        (missing, MergeError::Write(WriteError::MissingColumn { table, column: "seq" })),
    ] {
        let refused = writer.merge(vec![good(), bad], OPTIONS).await.unwrap_err();
        assert_eq!(refused.to_string(), expected.to_string());
        assert!(!refused.is_transient());
    }
    let small = MergeOptions { memory_bytes: 100, ..OPTIONS };
    let refused = writer.merge(vec![good(), good()], small).await.unwrap_err();
    assert!(matches!(refused, MergeError::Memory { allowed_bytes: 50, .. }), "{refused:?}");
    assert_eq!(files(&writer).await, 0);
}

#[tokio::test]
async fn an_unpartitioned_table_may_have_rows_of_several_days() {
    let def = TableDef { partition: Partition::Unpartitioned, ..def() };
    let (_dir, writer) = writer(&def);
    let merged = writer.merge(vec![input(&[rows(&[("a", 0, 1), ("a", DAY, 2)])])], OPTIONS).await;
    assert!(merged.unwrap()[0].partition().fields().is_empty());
}

/// Rows of one node, one microsecond apart.
fn many(node: &str, seqs: std::ops::Range<i64>) -> RecordBatch {
    rows(&seqs.map(|seq| (node, seq, seq)).collect::<Vec<_>>())
}

/// Sequence numbers from one on, in stretches with as long gaps between them.
fn stretches(from: i64) -> SortedRows {
    input(&(0..8).map(|i| many("a", from + 4_000 * i..from + 4_000 * i + 2_000)).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_file_that_has_its_rows_is_followed_by_another_and_all_are_in_order() {
    let (_dir, writer) = writer(&def());
    let one = writer.merge(vec![stretches(0), stretches(2_000)], OPTIONS).await.unwrap();
    assert_eq!(one.iter().map(DataFile::record_count).collect::<Vec<_>>(), [32_000]);
    let third = MergeOptions { file_rows: 10_667, ..OPTIONS };
    let found = writer.merge(vec![stretches(0), stretches(2_000)], third).await.unwrap();
    // Of whole batches: a file may have some rows more, the last one has less.
    assert_eq!(found.iter().map(DataFile::record_count).collect::<Vec<_>>(), [12_000, 12_000, 8_000]);
    for pair in found.windows(2) {
        assert!(pair[0].upper_bounds()[&4] < pair[1].lower_bounds()[&4], "by sequence number");
        assert_ne!(pair[0].file_path(), pair[1].file_path());
    }
    for file in &found {
        let verified = writer.store().verify(file.file_path(), file.file_size_in_bytes()).await.unwrap();
        assert_eq!(verified, Verified::Sound);
    }
}

fn first_of_batch(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    Ok(batch.slice(0, 1))
}

#[tokio::test]
async fn rows_are_folded_over_all_inputs_before_they_are_written() {
    let (_dir, writer) = writer(&def());
    // Each complete batch becomes one row: how many batches there are depends on the inputs.
    let inputs = vec![input(&[rows(&[("a", 1, 1)])]), input(&[rows(&[("a", 1, 2)])]), input(&[rows(&[("a", 1, 3)])])];
    let found = writer.merge(inputs, MergeOptions { fold: Some(first_of_batch), ..OPTIONS }).await.unwrap();
    assert_eq!(found[0].record_count(), 1);
}
