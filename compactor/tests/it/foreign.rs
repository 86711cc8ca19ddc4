//! What other programs wrote: files that are not sorted are sorted, row-level deletes and columns that are not known
//! leave the table alone.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use event_schema::position::OffsetRange;
use futures::TryStreamExt;
use lake::{CommitRequest, TableHandle, Token};
use maintenance::rewrite::Rewriter;
use maintenance::task::{Rewrite, Work};
use maintenance::{LeftAlone, Limits, Policy, Survey, survey};
use tables::def::TableDef;

use crate::fleet::{LATER_NS, compact, listed, options};
use crate::place::Place;
use crate::rows::{NEW_YEAR, def, land, offsets, range, row, swaps};

on_both!(
    a_file_that_is_not_sorted_is_sorted_and_merged_with_the_others,
    rows_that_another_program_marked_as_deleted_leave_the_table_alone,
    a_column_that_is_not_known_leaves_the_table_alone,
);

/// Lands offsets of partition 0 in a file that has them the wrong way round, as a writer without a sort order does.
async fn land_backwards(place: &Place, range: OffsetRange) {
    let unsorted = TableDef { sort: &[], ..def() };
    let table = place.lake().await.ensure_table(&unsorted).await.unwrap();
    let backwards = (range.start..range.end).rev().map(|offset| row(0, offset, NEW_YEAR + offset));
    let files = table.write(&backwards.collect::<Vec<_>>()).await.unwrap();
    swaps(table.commit(CommitRequest::new(vec![range], Token::random(), files)).await);
}

async fn planned(table: &TableHandle) -> Survey {
    survey(table, &options().policy, LATER_NS / 1_000_000).await.unwrap()
}

async fn only_task(table: &TableHandle) -> Rewrite {
    let Survey::Planned(plan) = planned(table).await else { panic!("a plan") };
    let [task] = &plan.tasks[..] else { panic!("one task: {:?}", plan.tasks) };
    let Work::Rewrite(rewrite) = &task.work;
    rewrite.clone()
}

/// Sequence numbers in the order of the only file.
async fn seqs(table: &TableHandle) -> Vec<i64> {
    let files = table.reader().snapshot().await.unwrap().plan(&[]).await.unwrap();
    let [file] = &files[..] else { panic!("{} files", files.len()) };
    let rows: Vec<RecordBatch> = table.read_file(&file.location, file.size_bytes, 1_000).try_collect().await.unwrap();
    rows.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn a_file_that_is_not_sorted_is_sorted_and_merged_with_the_others(place: Place) {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 1_000)]).await;
    land_backwards(&place, range(0, 1_000, 3_000)).await;
    let rewrite = only_task(&table).await;
    assert_eq!(rewrite.inputs.iter().map(|input| input.is_sorted).collect::<Vec<_>>(), [true, false]);
    // One that the manifests take for sorted: the merge finds out, and the file goes through sorted runs all the same.
    let mut trusted = rewrite.clone();
    trusted.inputs.iter_mut().for_each(|input| input.is_sorted = true);
    let dir = tempfile::tempdir().unwrap();
    // Less memory than the rows take: there are several runs.
    let limits = Limits { memory_bytes: 1 << 18, spill: dir.path().to_owned(), ..Limits::default() };
    let policy = Policy::default();
    let rewriter = Rewriter { table: &table, fold: None, policy: &policy, limits: &limits };
    for task in [&rewrite, &trusted] {
        let verified = rewriter.rewrite(task).await.unwrap();
        assert!(verified.spilled_bytes() > 0);
        assert_eq!(verified.files().iter().map(lake::DataFile::record_count).sum::<u64>(), 3_000);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no run is left");

    let done = compact(&lake, listed(def()), options(), LATER_NS).await;
    assert_eq!((done.replaced, done.failed, done.left), (1, 0, 0));
    assert_eq!(seqs(&table).await, (0..3_000).collect::<Vec<_>>());
    assert_eq!(offsets(&table).await, [3_000]);
    place.assert_landed(&[3_000]);
}

const DELETE_A_ROW: &str = "
from pyiceberg.manifest import *
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
import pyarrow.parquet as pq
table = catalog.load_table('silver.t')
data = next(iter(table.scan().plan_files())).file
path = table.location() + '/data/deletes.parquet'
with table.io.new_output(path).create() as out:
    pq.write_table(pa.table({'file_path': [data.file_path], 'pos': pa.array([0], pa.int64())}), out)
deletes = DataFile.from_args(content=DataFileContent.POSITION_DELETES, file_path=path, file_format=FileFormat.PARQUET,
    partition=data.partition, record_count=1, file_size_in_bytes=len(table.io.new_input(path)))
class Writer(ManifestWriterV2):
    def content(self):
        return ManifestContent.DELETES
    @property
    def _meta(self):
        return {**super()._meta, 'content': 'deletes'}
class Deletes(_FastAppendFiles):
    def _existing_manifests(self):
        output = self._io.new_output(table.location() + '/metadata/deletes.avro')
        with Writer(table.spec(), table.schema(), output, self._snapshot_id, self._compression) as writer:
            writer.add(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=self._snapshot_id,
                sequence_number=None, file_sequence_number=None, data_file=deletes))
        return super()._existing_manifests() + [writer.to_manifest_file()]
with table.transaction() as change:
    Deletes(Operation.DELETE, change, table.io).commit()
";

async fn rows_that_another_program_marked_as_deleted_leave_the_table_alone(place: Place) {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    land(&table, &[range(0, 10, 20)]).await;
    let task = only_task(&table).await;
    place.pyiceberg(DELETE_A_ROW);
    assert_eq!(planned(&table).await, Survey::LeftAlone(LeftAlone::RowLevelDeletes));
    let done = compact(&lake, listed(def()), options(), LATER_NS).await;
    assert_eq!((done.replaced, done.failed, done.left), (0, 0, 0));
    // A rewrite that was planned before does not land either.
    let (policy, limits) = (Policy::default(), Limits::default());
    let rewriter = Rewriter { table: &table, fold: None, policy: &policy, limits: &limits };
    let verified = rewriter.rewrite(&task).await.unwrap();
    let landed = maintenance::land(&table, &verified.replacement()).await.unwrap();
    assert_eq!(landed, maintenance::Landed::Conflict(lake::commit::Conflict::RowLevelDeletes));
    land(&table, &[range(0, 20, 30)]).await;
}

async fn a_column_that_is_not_known_leaves_the_table_alone(place: Place) {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    land(&table, &[range(0, 0, 10)]).await;
    place.pyiceberg(
        "from pyiceberg.types import StringType\n\
         with catalog.load_table('silver.t').update_schema() as change:\n    \
             change.add_column('note', StringType())",
    );
    land(&table, &[range(0, 10, 20)]).await;
    assert_eq!(planned(&table).await, Survey::LeftAlone(LeftAlone::UnknownColumns(vec!["note".to_owned()])));
    let done = compact(&lake, listed(def()), options(), LATER_NS).await;
    assert_eq!((done.replaced, done.failed, done.left), (0, 0, 0));
    place.assert_landed(&[20]);
}
