//! Sorted runs in temporary files, as Arrow IPC streams: written once, read batch by batch, gone with the rewrite.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use futures::StreamExt;
use futures::stream;
use lake::{ReadError, SortedRows};
use tempfile::TempDir;

use crate::policy::Limits;

/// Why runs were not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    #[error("cannot make a temporary directory in {}: give the service another one", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot write or read {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cannot encode rows to {}", path.display())]
    Encode { path: PathBuf, source: ArrowError },
    #[error("sorted runs need more than the {allowed_bytes} bytes that temporary files may take")]
    Full { allowed_bytes: u64 },
}

/// The runs of one rewrite.
#[derive(Debug)]
pub(super) struct Runs {
    /// Made with the first run.
    dir: Option<TempDir>,
    parent: PathBuf,
    files: Vec<PathBuf>,
    bytes: u64,
    allowed_bytes: u64,
}

impl Runs {
    /// No runs yet.
    pub(super) fn new(limits: &Limits) -> Self {
        let parent = limits.spill.clone();
        Self { dir: None, parent, files: Vec::new(), bytes: 0, allowed_bytes: limits.spill_bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes sorted rows as one run.
    pub(super) fn write(&mut self, sorted: &[RecordBatch], batch_rows: usize) -> Result<(), SpillError> {
        let Some(first) = sorted.first() else { return Ok(()) };
        let path = self.next_path()?;
        let file = File::create_new(&path).map_err(|source| SpillError::File { path: path.clone(), source })?;
        let written = encode(BufWriter::new(file), first, sorted, batch_rows.max(1));
        written.map_err(|source| SpillError::Encode { path: path.clone(), source })?;
        let size = std::fs::metadata(&path).map_err(|source| SpillError::File { path: path.clone(), source })?.len();
        // Counted after it was written: one run more than allowed may lie on the disk for a moment.
        self.files.push(path);
        self.bytes += size;
        if self.bytes > self.allowed_bytes {
            return Err(SpillError::Full { allowed_bytes: self.allowed_bytes });
        }
        Ok(())
    }

    fn next_path(&mut self) -> Result<PathBuf, SpillError> {
        let dir = match self.dir.take() {
            Some(dir) => dir,
            None => {
                let made = tempfile::Builder::new().prefix("causeway-compactor-").tempdir_in(&self.parent);
                made.map_err(|source| SpillError::Directory { path: self.parent.clone(), source })?
            }
        };
        let path = dir.path().join(format!("{}.arrow", self.files.len()));
        self.dir = Some(dir);
        Ok(path)
    }

    /// The rows of each run. The files are removed when the last stream is dropped.
    pub(super) fn open(self) -> Result<Vec<SortedRows>, SpillError> {
        // Shared by the streams: the directory goes with the last of them, also when the merge fails.
        let dir = Arc::new(self.dir);
        self.files.into_iter().map(|path| open(path, Arc::clone(&dir))).collect()
    }
}

/// Writes rows as a stream. The stream format lets a dictionary be replaced by another; the file format allows one.
fn encode(
    file: BufWriter<File>,
    first: &RecordBatch,
    sorted: &[RecordBatch],
    batch_rows: usize,
) -> Result<(), ArrowError> {
    let mut writer = StreamWriter::try_new(file, first.schema_ref())?;
    for batch in sorted {
        // In pieces: the merge holds one of each run.
        for start in (0..batch.num_rows()).step_by(batch_rows) {
            writer.write(&batch.slice(start, batch_rows.min(batch.num_rows() - start)))?;
        }
    }
    writer.finish()
}

fn open(path: PathBuf, dir: Arc<Option<TempDir>>) -> Result<SortedRows, SpillError> {
    let file = File::open(&path).map_err(|source| SpillError::File { path: path.clone(), source })?;
    let reader = StreamReader::try_new(BufReader::new(file), None);
    let reader = reader.map_err(|source| SpillError::Encode { path: path.clone(), source })?;
    // Reads from a local disk block the thread shortly: it is one of the compactor's own.
    let rows = reader.map(move |batch| {
        // Moves the directory into the closure, which otherwise would not hold it.
        let _dir = &dir;
        batch.map_err(|error| ReadError::CorruptFile {
            location: path.display().to_string(),
            problem: error.to_string(),
        })
    });
    Ok(stream::iter(rows).boxed())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array};
    use arrow::datatypes::{Int32Type, Int64Type};
    use futures::TryStreamExt;

    use super::*;

    fn rows(words: &[&str], from: i64) -> RecordBatch {
        let word: DictionaryArray<Int32Type> = words.iter().map(|word| Some(*word)).collect();
        let number = Int64Array::from_iter_values((0..words.len() as i64).map(|i| from + i));
        let columns: [(&str, ArrayRef); 2] = [("word", Arc::new(word)), ("number", Arc::new(number))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[tokio::test]
    async fn runs_are_read_back_in_pieces_with_their_words_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { spill: dir.path().to_owned(), ..Limits::default() };
        let mut runs = Runs::new(&limits);
        runs.write(&[rows(&["a", "b", "b"], 0), rows(&["c", "a"], 3)], 2).unwrap();
        runs.write(&[], 2).unwrap();
        runs.write(&[rows(&["z"], 9)], 2).unwrap();
        assert!(runs.bytes() > 0);
        let opened = runs.open().unwrap();
        assert_eq!(opened.len(), 2);
        let mut found = Vec::new();
        for run in opened {
            found.push(run.try_collect::<Vec<_>>().await.unwrap());
        }
        let sizes: Vec<usize> = found[0].iter().map(RecordBatch::num_rows).collect();
        assert_eq!(sizes, [2, 1, 2]);
        assert_eq!((numbers(&found[0]), numbers(&found[1])), (vec![0, 1, 2, 3, 4], vec![9]));
        let last = found[0][2].column(0).as_dictionary::<Int32Type>();
        let words: Vec<Option<&str>> = last.downcast_dict::<arrow::array::StringArray>().unwrap().into_iter().collect();
        assert_eq!(words, [Some("c"), Some("a")]);
        drop(found);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn runs_that_take_too_much_are_refused_and_a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { spill: dir.path().to_owned(), spill_bytes: 10, ..Limits::default() };
        let full = Runs::new(&limits).write(&[rows(&["a"], 0)], 2).unwrap_err();
        assert!(matches!(full, SpillError::Full { allowed_bytes: 10 }), "{full}");
        let limits = Limits { spill: dir.path().join("absent"), ..Limits::default() };
        let absent = Runs::new(&limits).write(&[rows(&["a"], 0)], 2).unwrap_err();
        assert!(matches!(absent, SpillError::Directory { .. }), "{absent}");
    }
}
