use super::*;
use crate::tests::{NEW_YEAR, NEW_YEAR_DAY, def, rows};
use arrow::array::{Int32Array, StringArray, TimestampMicrosecondArray};
use uuid::Uuid;

const DAY: i64 = 86_400_000_000;

fn writer(def: &TableDef) -> (tempfile::TempDir, FileWriter) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap(), None).unwrap();
    let location = format!("{}/silver/t", store.root());
    let metadata = schema::new_table(def, &location, Uuid::nil(), 0).unwrap();
    (dir, FileWriter::new(def, &metadata, store, Environment::default()))
}

#[tokio::test]
async fn rows_of_two_days_become_two_described_files() {
    let (_dir, writer) = writer(&def());
    let batches = [rows(&[("b", 0, 1), ("a", DAY, 2)]), rows(&[("a", 1, 4)])];
    let files = writer.upload(writer.encode(batches.to_vec()).unwrap()).await.unwrap();
    assert_eq!(files.iter().map(DataFile::record_count).collect::<Vec<_>>(), [2, 1]);
    for (file, day) in files.iter().zip(["2026-01-01", "2026-01-02"]) {
        let tail = file.file_path().strip_prefix(&format!("{}/data/", writer.location)).unwrap();
        let parts: Vec<_> = tail.split('/').collect();
        assert_eq!((parts.len(), parts[0].len(), parts[1]), (3, 2, format!("ts_day={day}").as_str()));
        let stored = writer.store.get(file.file_path()).await.unwrap();
        assert_eq!(stored.len() as u64, file.file_size_in_bytes());
        assert_eq!(file.sort_order_id(), Some(1));
    }
    let days: Vec<_> = files.iter().map(|f| f.partition().fields()[0].clone()).collect();
    assert_eq!(days, [Some(Literal::date(NEW_YEAR_DAY)), Some(Literal::date(NEW_YEAR_DAY + 1))]);
}

#[test]
fn columns_are_taken_by_name_and_cast_to_the_tables_types() {
    let (_dir, writer) = writer(&def());
    let micros = TimestampMicrosecondArray::from(vec![NEW_YEAR]).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([
        ("unknown", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
        ("seq", Arc::new(Int32Array::from(vec![7]))),
        ("id", Arc::new(StringArray::from(vec!["x"]))),
        ("share", Arc::new(arrow::array::Float32Array::from(vec![0.5]))),
        ("ts", Arc::new(micros)),
        ("node", Arc::new(StringArray::from(vec!["plain"]))),
    ]);
    let files = writer.encode(vec![batch.unwrap()]).unwrap();
    assert_eq!(files[0].data_file().lower_bounds()[&4], Datum::long(7i64));
    assert_eq!(files[0].data_file().lower_bounds()[&7], Datum::string("plain"));
}

#[test]
fn rows_that_do_not_fit_are_refused_by_name() {
    let (_dir, writer) = writer(&def());
    let batch = rows(&[("a", 0, 1)]);
    let without = batch.project(&[0, 1, 3, 4]).unwrap();
    assert!(matches!(writer.encode(vec![without]), Err(WriteError::MissingColumn { column: "seq", .. })));

    let mut columns = batch.columns().to_vec();
    columns[1] = Arc::new(TimestampMicrosecondArray::from(vec![None]).with_timezone("+00:00"));
    let fields: Vec<_> = batch.schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let holed = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap();
    assert!(matches!(writer.encode(vec![holed]), Err(WriteError::Rows { .. })), "ts is required");
}

#[test]
fn no_rows_make_no_files() {
    let (_dir, writer) = writer(&def());
    assert!(writer.encode(Vec::new()).unwrap().is_empty());
    assert!(writer.encode(vec![rows(&[])]).unwrap().is_empty());
}

#[test]
fn an_unpartitioned_table_gets_one_file_without_a_day() {
    let def = TableDef { partition: Partition::Unpartitioned, ..def() };
    let (_dir, writer) = writer(&def);
    let files = writer.encode(vec![rows(&[("a", 0, 1), ("a", DAY, 2)])]).unwrap();
    assert_eq!(files.len(), 1);
    assert!(files[0].data_file().partition().fields().is_empty());
    assert!(!files[0].data_file().file_path().contains("ts_day"));
}
