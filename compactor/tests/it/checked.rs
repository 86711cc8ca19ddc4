//! A rewrite that is wrong on purpose is refused before its commit, and one in little memory is right all the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use futures::TryStreamExt;
use lake::TableHandle;
use maintenance::check::Difference;
use maintenance::rewrite::{PrepareError, Rewriter, Verified, VerifyError, Written};
use maintenance::task::{Rewrite, Work};
use maintenance::{Limits, Policy, Survey, survey};
use tables::registry::{Fold, find};

use crate::fleet::{Fleet, LATER_NS, options};
use crate::place::Place;

/// A table of the registry with the messages of a small fleet, and the task that merges all of it.
async fn prepared(place: &Place, namespace: &str, name: &str) -> (TableHandle, Rewrite, Option<Fold>) {
    let lake = place.lake().await;
    Fleet::new(2, 3).land(&lake, 8).await;
    let table = find(namespace, name).unwrap();
    let handle = lake.ensure_table(&table.def).await.unwrap();
    let found = survey(&handle, &options().policy, LATER_NS / 1_000_000).await.unwrap();
    let Survey::Planned(plan) = found else { panic!("a plan") };
    let [task] = &plan.tasks[..] else { panic!("one task: {:?}", plan.tasks) };
    let Work::Rewrite(rewrite) = &task.work;
    (handle, rewrite.clone(), table.fold())
}

/// What a broken rewrite makes of the right rows.
type Defect = fn(&RecordBatch) -> RecordBatch;

fn loses_a_row(rows: &RecordBatch) -> RecordBatch {
    rows.slice(1, rows.num_rows() - 1)
}

fn doubles_a_row_for_another(rows: &RecordBatch) -> RecordBatch {
    let count = rows.num_rows() as u32;
    let indices = UInt32Array::from_iter_values((0..count).map(|row| if row == 1 { 0 } else { row }));
    take_record_batch(rows, &indices).unwrap()
}

fn alters_a_value(rows: &RecordBatch) -> RecordBatch {
    let at = rows.schema().index_of("pid").unwrap();
    let first: ArrayRef = Arc::new(Int32Array::from(vec![-7]));
    let rest = rows.column(at).slice(1, rows.num_rows() - 1);
    let mut columns = rows.columns().to_vec();
    columns[at] = arrow::compute::concat(&[&*first, &*rest]).unwrap();
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

/// Writes the files of a rewrite and puts those of a defect in their place.
async fn sabotaged(rewriter: Rewriter<'_>, rewrite: &Rewrite, defect: Defect) -> Result<Verified, VerifyError> {
    let written = rewriter.write(rewrite).await.unwrap();
    let mut rows = Vec::new();
    for file in &written.files {
        let read = rewriter.table.read_file(file.file_path(), file.file_size_in_bytes(), 4_096);
        rows.extend(read.try_collect::<Vec<_>>().await.unwrap());
    }
    let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
    let files = rewriter.table.write(&[defect(&rows)]).await.unwrap();
    rewriter.verify(rewrite, Written { files, ..written }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_that_loses_doubles_or_alters_a_row_is_refused_and_the_table_stays() {
    let place = Place::embedded();
    let (table, rewrite, _) = prepared(&place, "silver", "events").await;
    let before = table.reader().snapshot().await.unwrap();
    let (policy, limits) = (Policy::default(), Limits::default());
    let rewriter = Rewriter { table: &table, fold: None, policy: &policy, limits: &limits };
    let refused = sabotaged(rewriter, &rewrite, loses_a_row).await.unwrap_err();
    let VerifyError::Differs { difference, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(difference, Difference::Rows { read: 1_600, written: 1_599 });
    for defect in [doubles_a_row_for_another as Defect, alters_a_value as Defect] {
        let refused = sabotaged(rewriter, &rewrite, defect).await.unwrap_err();
        println!("{refused}");
        assert!(matches!(refused, VerifyError::Differs { .. }), "{refused:?}");
    }
    let refused = sabotaged(rewriter, &rewrite, alters_a_value).await.unwrap_err();
    assert!(refused.to_string().contains("values of column pid differ"), "{refused}");
    // The manifests count more rows than the files have.
    let mut wrong = rewrite.clone();
    wrong.inputs[0].rows += 1;
    let refused = rewriter.rewrite(&wrong).await.unwrap_err();
    assert!(
        matches!(&refused, PrepareError::Verify(VerifyError::Differs { difference: Difference::Recorded { .. }, .. })),
        "{refused:?}"
    );
    let after = table.reader().snapshot().await.unwrap();
    assert_eq!(after.metadata_location(), before.metadata_location());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_that_does_not_add_up_is_refused() {
    let place = Place::embedded();
    let (table, rewrite, fold) = prepared(&place, "gold", "op_minute").await;
    let (policy, limits) = (Policy::default(), Limits::default());
    let rewriter = Rewriter { table: &table, fold, policy: &policy, limits: &limits };
    let folded = rewriter.rewrite(&rewrite).await.unwrap();
    let rows: u64 = folded.files().iter().map(lake::DataFile::record_count).sum();
    assert!(rows < rewrite.rows(), "{rows} of {}", rewrite.rows());
    let refused = sabotaged(rewriter, &rewrite, loses_a_row).await.unwrap_err();
    assert!(refused.to_string().contains("does not add up to what was read"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_in_little_memory_goes_through_sorted_runs_and_keeps_every_row() {
    let place = Place::embedded();
    let (table, mut rewrite, _) = prepared(&place, "silver", "events").await;
    let dir = tempfile::tempdir().unwrap();
    // As files of another program are.
    rewrite.inputs.iter_mut().skip(2).for_each(|input| input.is_sorted = false);
    let limits = Limits { memory_bytes: 8 << 20, spill: dir.path().to_owned(), ..Limits::default() };
    // Files of a third of the whole.
    let policy = Policy { target_bytes: rewrite.bytes() / 3, ..Policy::default() };
    let rewriter = Rewriter { table: &table, fold: None, policy: &policy, limits: &limits };
    let verified = rewriter.rewrite(&rewrite).await.unwrap();
    assert!(verified.spilled_bytes() > 0);
    assert_eq!(verified.files().len(), 3);
    assert_eq!(verified.files().iter().map(lake::DataFile::record_count).sum::<u64>(), 1_600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no run is left");
    let tight = Limits { spill_bytes: 10, ..limits.clone() };
    let refused = Rewriter { limits: &tight, ..rewriter }.rewrite(&rewrite).await.unwrap_err();
    assert!(matches!(refused, PrepareError::Rewrite(_)), "{refused:?}");
}
