//! Rewrites files: reads them, merges them in the table's sort order, writes them anew, reads what was written back,
//! and compares. The result is a replacement that is still to be committed; nothing of the table has changed.
//!
//! The merge holds a batch and a row group of each input. Inputs that do not fit beside one another, or that are not
//! sorted, are brought into sorted runs in temporary files first ([`spill`]), of which the merge holds a batch each.

mod spill;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use lake::commit::{Maintenance, Replace, RowCount};
use lake::{DataFile, FoldRows, MergeError, MergeOptions, ReadError, SortedRows, TableHandle, WriteError};
use tables::def::TableName;

use crate::check::{Difference, Kept};
use crate::policy::{Limits, Policy};
use crate::task::{Input, Rewrite};
use spill::{Runs, SpillError};

/// Share of the memory that the row groups of inputs get, as they lie in the store: a half. A file that was merged has row
/// groups of a thirty-second, so that as many as the fan-in fit beside one another.
const ROW_GROUPS_SHARE: usize = 2;
/// Share that the merge gets: a quarter, of which an eighth is a row group that is written.
const MERGE_SHARE: usize = 4;
/// Share of a run that is sorted: an eighth. Three copies of it exist at once, before the merge begins.
const RUN_SHARE: usize = 8;
/// Share of the merge's memory that the batches of its inputs get: half of what it allows, since their keys count too.
const BATCHES_SHARE: usize = 4;
/// Rows of a batch, at most and at least. Below, the estimate was too high: the merge refuses what does not fit.
const BATCH_ROWS: usize = 8_192;
const LEAST_ROWS: usize = 32;
/// A batch that did not fit becomes smaller by this factor.
const SMALLER: usize = 4;

/// Why files were not rewritten. The table is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    #[error("the files of {table} cannot be merged")]
    Merge { table: TableName, source: MergeError },
    #[error("the file {location} of {table} cannot be read")]
    Read { table: TableName, location: String, source: ReadError },
    #[error("rows of {table} cannot be sorted")]
    Sort { table: TableName, source: WriteError },
    #[error("sorted runs of {table} cannot be kept in a temporary file")]
    Spill { table: TableName, source: SpillError },
}

impl RewriteError {
    /// The same rewrite may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Merge { source, .. } => source.is_transient(),
            Self::Read { source, .. } => source.is_transient(),
            Self::Sort { source, .. } => source.is_transient(),
            Self::Spill { .. } => false,
        }
    }
}

/// Why what was written is not to take the place of what was read. The files that were written are orphans.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    #[error("a rewrite of {table} was refused before its commit: {difference}; the table is as it was")]
    Differs { table: TableName, difference: Difference },
    #[error("the file {location}, which was just written for {table}, cannot be read back")]
    Read { table: TableName, location: String, source: ReadError },
}

impl VerifyError {
    /// The same rewrite may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.is_transient())
    }
}

/// Files that were written, and what was read for them.
#[derive(Debug)]
pub struct Written {
    /// The files, uploaded and not committed.
    pub files: Vec<DataFile>,
    /// Folded over the rows that were read.
    pub kept: Kept,
    /// Bytes of the sorted runs that were written to temporary files.
    pub spilled_bytes: u64,
    /// Rows of a batch that fit into the memory.
    pub batch_rows: usize,
}

/// Files that hold what was read, and may be committed.
#[derive(Debug)]
pub struct Verified {
    written: Written,
    inputs: BTreeSet<String>,
    rows: RowCount,
}

impl Verified {
    /// The change that puts the files in the place of the inputs. It is refused when one of these is gone.
    pub fn replacement(&self) -> Maintenance {
        let Self { written, inputs, rows } = self;
        Maintenance::Replace(Replace { inputs: inputs.clone(), outputs: written.files.clone(), rows: *rows })
    }

    /// Files that are to take the place of the inputs.
    pub fn files(&self) -> &[DataFile] {
        &self.written.files
    }

    /// Bytes of these files.
    pub fn bytes(&self) -> u64 {
        self.written.files.iter().map(DataFile::file_size_in_bytes).sum()
    }

    /// Bytes of the sorted runs that were written to temporary files.
    pub fn spilled_bytes(&self) -> u64 {
        self.written.spilled_bytes
    }
}

/// Rewrites files of one table.
#[derive(Debug, Clone, Copy)]
pub struct Rewriter<'a> {
    /// The table.
    pub table: &'a TableHandle,
    /// Makes fewer rows of those with equal keys.
    pub fold: Option<FoldRows>,
    /// What files are to become.
    pub policy: &'a Policy,
    /// What it may take.
    pub limits: &'a Limits,
}

impl Rewriter<'_> {
    /// Writes the files anew and compares them with what was read.
    ///
    /// # Errors
    /// A file cannot be read or written, or the comparison finds a difference.
    pub async fn rewrite(&self, rewrite: &Rewrite) -> Result<Verified, PrepareError> {
        let written = self.write(rewrite).await?;
        Ok(self.verify(rewrite, written).await?)
    }

    /// Reads the inputs and writes them anew, sorted.
    ///
    /// # Errors
    /// A file cannot be read or written, or the memory does not hold a row of each input.
    pub async fn write(&self, rewrite: &Rewrite) -> Result<Written, RewriteError> {
        let mut plan = self.plan(rewrite);
        loop {
            let attempted = self.attempt(rewrite, &plan).await;
            match attempted {
                // The manifests took a file for sorted that is not.
                Err(Attempted::NotSorted { input }) if plan.spilled.insert(input) => {}
                Err(Attempted::TooLarge(_)) if plan.batch_rows > 1 => {
                    plan.batch_rows = (plan.batch_rows / SMALLER).max(1);
                }
                Err(Attempted::NotSorted { input }) => {
                    return Err(self.merge_error(MergeError::NotSorted { table: self.name(), input }));
                }
                Err(Attempted::TooLarge(error)) => return Err(self.merge_error(error)),
                Err(Attempted::Failed(error)) => return Err(error),
                Ok(written) => return Ok(written),
            }
        }
    }

    fn name(&self) -> TableName {
        self.table.def().name
    }

    fn merge_error(&self, source: MergeError) -> RewriteError {
        RewriteError::Merge { table: self.name(), source }
    }

    /// Which inputs are merged as they are, and in which batches.
    fn plan(&self, rewrite: &Rewrite) -> Reading {
        let allowed = (self.limits.memory_bytes / ROW_GROUPS_SHARE) as u64;
        let mut spilled = BTreeSet::new();
        let mut held = 0_u64;
        for (number, input) in rewrite.inputs.iter().enumerate() {
            // One is read in any case. A reader holds a whole row group as it lies in the store.
            let fits = number == 0 || held.saturating_add(input.row_group_bytes) <= allowed;
            if !input.is_sorted || !fits {
                spilled.insert(number);
            } else {
                held = held.saturating_add(input.row_group_bytes);
            }
        }
        // As if all inputs were merged directly: runs are read in batches of the same size.
        let batches = self.limits.memory_bytes / MERGE_SHARE / BATCHES_SHARE;
        let widest = rewrite.inputs.iter().map(|input| input.row_bytes).max().unwrap_or(1);
        let row_bytes = usize::try_from(widest).unwrap_or(usize::MAX).max(1);
        let batch_rows = batches / rewrite.inputs.len().max(1) / row_bytes;
        Reading { spilled, batch_rows: batch_rows.clamp(LEAST_ROWS, BATCH_ROWS) }
    }

    async fn attempt(&self, rewrite: &Rewrite, reading: &Reading) -> Result<Written, Attempted> {
        // Begun anew with each attempt: what was read twice would count twice.
        let kept = Arc::new(Mutex::new(Kept::new(self.table.def(), self.fold.is_some())));
        // First, and to its end: a run is sorted in memory that the merge needs afterwards.
        let runs = self.spill(rewrite, reading, &kept).await?;
        let direct: Vec<usize> = (0..rewrite.inputs.len()).filter(|i| !reading.spilled.contains(i)).collect();
        let mut sources: Vec<SortedRows> = Vec::new();
        for input in direct.iter().filter_map(|number| rewrite.inputs.get(*number)) {
            sources.push(self.tapped(input, reading.batch_rows, &kept));
        }
        // Behind the files: an input that the merge names by its number is a file when it is below their count.
        let spilled_bytes = runs.bytes();
        let spilled = runs.open().map_err(|source| self.spill_error(source))?;
        sources.extend(spilled);
        let options = MergeOptions {
            memory_bytes: self.limits.memory_bytes / MERGE_SHARE,
            file_rows: file_rows(rewrite, self.policy),
            fold: self.fold,
        };
        let files = match self.table.merge(sources, options).await {
            Ok(files) => files,
            Err(MergeError::NotSorted { input, table }) => {
                // Runs come behind the files that are read directly, and are sorted.
                let number = direct.get(input).copied();
                let number =
                    number.ok_or(RewriteError::Merge { table, source: MergeError::NotSorted { table, input } })?;
                return Err(Attempted::NotSorted { input: number });
            }
            Err(error @ MergeError::Memory { .. }) => return Err(Attempted::TooLarge(error)),
            Err(error) => return Err(self.merge_error(error).into()),
        };
        // The streams are gone with the merge, so that no other owner is left.
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Written { files, kept, spilled_bytes, batch_rows: reading.batch_rows })
    }

    fn spill_error(&self, source: SpillError) -> RewriteError {
        RewriteError::Spill { table: self.name(), source }
    }

    /// Brings the inputs that are not merged directly into sorted runs.
    async fn spill(&self, rewrite: &Rewrite, reading: &Reading, kept: &Shared) -> Result<Runs, Attempted> {
        let mut runs = Runs::new(self.limits);
        let mut held = Held::default();
        for input in reading.spilled.iter().filter_map(|number| rewrite.inputs.get(*number)) {
            // Tapped here and not where the run is read: what is kept is what the files hold.
            let mut rows = self.tapped(input, reading.batch_rows, kept);
            while let Some(batch) = rows.try_next().await.map_err(|source| self.read_error(input, source))? {
                held.add(batch);
                self.end_run(&mut runs, &mut held, reading)?;
            }
        }
        // What is left is a run of its own, however small.
        let rest = std::mem::take(&mut held.rows);
        self.write_run(&mut runs, &rest, reading)?;
        Ok(runs)
    }

    /// Writes what is held as a run, when it is large enough.
    fn end_run(&self, runs: &mut Runs, held: &mut Held, reading: &Reading) -> Result<(), RewriteError> {
        if held.bytes < self.limits.memory_bytes / RUN_SHARE {
            return Ok(());
        }
        let rows = std::mem::take(held).rows;
        self.write_run(runs, &rows, reading)
    }

    fn write_run(&self, runs: &mut Runs, rows: &[RecordBatch], reading: &Reading) -> Result<(), RewriteError> {
        if rows.is_empty() {
            return Ok(());
        }
        let sorted = self.table.sort(rows).map_err(|source| RewriteError::Sort { table: self.name(), source })?;
        runs.write(&sorted, reading.batch_rows).map_err(|source| self.spill_error(source))
    }

    fn read_error(&self, input: &Input, source: ReadError) -> RewriteError {
        RewriteError::Read { table: self.name(), location: input.location.clone(), source }
    }

    /// The rows of a file; each batch is added to what is kept when it is read.
    fn tapped(&self, input: &Input, batch_rows: usize, kept: &Shared) -> SortedRows {
        let rows = self.table.read_file(&input.location, input.size_bytes, batch_rows);
        let kept = Arc::clone(kept);
        let location: Arc<str> = input.location.as_str().into();
        let tapped = rows.then(move |batch| {
            let added = batch.and_then(|batch| add(&kept, &location, batch));
            async move {
                // The merge computes for long without waiting: others get a turn, and a drain can end it here.
                tokio::task::yield_now().await;
                added
            }
        });
        tapped.boxed()
    }

    /// Reads the written files back from the store and compares.
    ///
    /// # Errors
    /// Something differs, or a file cannot be read.
    pub async fn verify(&self, rewrite: &Rewrite, written: Written) -> Result<Verified, VerifyError> {
        let table = self.name();
        // Before the comparison, which would not see a file of which a part was not read: it was not written either.
        let recorded = rewrite.rows();
        if written.kept.rows() != recorded {
            let difference = Difference::Recorded { recorded, read: written.kept.rows() };
            return Err(VerifyError::Differs { table, difference });
        }
        // From the store, and not from what was encoded: an upload may go wrong as well.
        let mut found = Kept::new(self.table.def(), self.fold.is_some());
        for file in &written.files {
            self.read_back(file, written.batch_rows, &mut found).await?;
        }
        written.kept.compare(&found).map_err(|difference| VerifyError::Differs { table, difference })?;
        let rows = if self.fold.is_some() { RowCount::Folded } else { RowCount::Kept };
        let inputs = rewrite.inputs.iter().map(|input| input.location.clone()).collect();
        Ok(Verified { written, inputs, rows })
    }

    async fn read_back(&self, file: &DataFile, batch_rows: usize, found: &mut Kept) -> Result<(), VerifyError> {
        let location = file.file_path();
        let mut rows = self.table.read_file(location, file.file_size_in_bytes(), batch_rows);
        while let Some(batch) = rows.try_next().await.map_err(|source| self.not_read_back(file, source))? {
            found.add(&batch).map_err(|error| self.not_read_back(file, corrupt(location, &error)))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn not_read_back(&self, file: &DataFile, source: ReadError) -> VerifyError {
        VerifyError::Read { table: self.name(), location: file.file_path().to_owned(), source }
    }
}

/// Why a rewrite did not become a replacement.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl PrepareError {
    /// The same rewrite may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Rewrite(error) => error.is_transient(),
            Self::Verify(error) => error.is_transient(),
        }
    }
}

type Shared = Arc<Mutex<Kept>>;

/// Rows that become a sorted run.
#[derive(Debug, Default)]
struct Held {
    rows: Vec<RecordBatch>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, batch: RecordBatch) {
        self.bytes += batch.get_array_memory_size();
        self.rows.push(batch);
    }
}

/// How the inputs are read.
#[derive(Debug)]
struct Reading {
    /// Numbers of the inputs that are brought into sorted runs first.
    spilled: BTreeSet<usize>,
    /// Rows of a batch.
    batch_rows: usize,
}

/// Why an attempt did not succeed, and whether another one may.
#[derive(Debug)]
enum Attempted {
    /// An input that was merged directly is not sorted.
    NotSorted {
        input: usize,
    },
    /// The batches did not fit into the memory.
    TooLarge(MergeError),
    Failed(RewriteError),
}

impl From<RewriteError> for Attempted {
    fn from(error: RewriteError) -> Self {
        Self::Failed(error)
    }
}

fn add(kept: &Shared, location: &str, batch: RecordBatch) -> Result<RecordBatch, ReadError> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.add(&batch).map_err(|error| corrupt(location, &error))?;
    Ok(batch)
}

fn corrupt(location: &str, error: &arrow::error::ArrowError) -> ReadError {
    ReadError::CorruptFile { location: location.to_owned(), problem: error.to_string() }
}

/// How many rows a file gets, so that there are no more files than planned. A file more, and what is left of a day
/// could be merged again and again.
fn file_rows(rewrite: &Rewrite, policy: &Policy) -> u64 {
    match policy.files_of(rewrite.bytes()) {
        1 => u64::MAX,
        files => rewrite.rows().div_ceil(files).max(1),
    }
}
