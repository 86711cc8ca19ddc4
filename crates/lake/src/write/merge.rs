//! Merges sorted inputs into one sorted sequence of batches (k-way merge). It holds one batch of each input at a time
//! and says which input it needs the next batch of. The caller supplies the batches and takes the result.

use std::cmp::Ordering;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// Rows of an output batch at most.
const OUTPUT_ROWS: usize = 8_192;
/// So many rows of one input without a row of another are returned alone: as a slice, of which no value is copied.
const LONG_RUN: usize = 512;

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its rows, or its first row and those of the input before it, are not in the sort order.
    NotSorted,
    Keys(ArrowError),
}

/// One batch of an input and where the merge is in it.
#[derive(Debug)]
struct Current {
    batch: RecordBatch,
    /// Sort keys of the rows; `None` in a table without a sort order.
    keys: Option<Rows>,
    next: usize,
}

impl Current {
    fn memory_bytes(&self) -> usize {
        batch_bytes(&self.batch) + self.keys.as_ref().map_or(0, Rows::size)
    }
}

/// Bytes of the rows of a batch. Not of its buffers: columns that were read from a temporary file (Arrow IPC) are slices of
/// one buffer, which would count for each of them.
fn batch_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum()
}

#[derive(Debug)]
enum Input {
    /// Its next batch is needed.
    Wanted,
    Open(Current),
    Ended,
}

/// The merge; see the module.
#[derive(Debug)]
pub(super) struct Merge {
    converter: Option<RowConverter>,
    columns: Vec<usize>,
    inputs: Vec<Input>,
    /// Keys of the last rows given, to check the order across batches.
    last_keys: Vec<Option<Vec<u8>>>,
    /// Open inputs as a binary heap, the smallest next row first.
    heap: Vec<usize>,
}

impl Merge {
    /// A merge of `inputs` inputs by the columns, ascending, nulls first. Rows of equal keys come in the order of the
    /// inputs.
    pub(super) fn new(schema: &arrow::datatypes::Schema, columns: &[usize], inputs: usize) -> Result<Self, ArrowError> {
        let fields: Vec<_> = columns.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self {
            converter,
            columns: columns.to_vec(),
            inputs: (0..inputs).map(|_| Input::Wanted).collect(),
            last_keys: vec![None; inputs],
            heap: Vec::with_capacity(inputs),
        })
    }

    /// The first input whose next batch is needed before the merge can go on.
    pub(super) fn wanted(&self) -> Option<usize> {
        self.inputs.iter().position(|input| matches!(input, Input::Wanted))
    }

    /// Bytes of the batches held and their keys.
    pub(super) fn memory_bytes(&self) -> usize {
        let held = self.inputs.iter().map(|input| match input {
            Input::Open(current) => current.memory_bytes(),
            Input::Wanted | Input::Ended => 0,
        });
        held.sum()
    }

    /// Takes the next batch of the input that [`Self::wanted`] named.
    pub(super) fn give(&mut self, input: usize, batch: RecordBatch) -> Result<(), Refused> {
        if batch.num_rows() == 0 {
            // The input remains `Wanted`.
            return Ok(());
        }
        let keys = match &self.converter {
            None => None,
            Some(converter) => {
                let columns: Vec<_> = self.columns.iter().map(|i| batch.column(*i).clone()).collect();
                let keys = converter.convert_columns(&columns).map_err(Refused::Keys)?;
                check_order(self.last_keys[input].as_deref(), &keys)?;
                // A copy, because the batch is dropped before the next one arrives.
                self.last_keys[input] = Some(keys.row(keys.num_rows() - 1).as_ref().to_vec());
                Some(keys)
            }
        };
        self.inputs[input] = Input::Open(Current { batch, keys, next: 0 });
        self.heap.push(input);
        self.sift_up(self.heap.len() - 1);
        Ok(())
    }

    /// The input that [`Self::wanted`] named has no more batches.
    pub(super) fn end(&mut self, input: usize) {
        self.inputs[input] = Input::Ended;
    }

    /// The next rows, up to the end of a batch of an input; `None` when all inputs have ended. Call it while
    /// [`Self::wanted`] names none.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let mut picked: Vec<(usize, usize)> = Vec::with_capacity(OUTPUT_ROWS);
        let mut used_up = None;
        let mut is_mixed = false;
        // Ends with the first batch that is used up: the next row of that input is not known yet.
        while picked.len() < OUTPUT_ROWS && used_up.is_none() {
            let Some(input) = self.heap.first().copied() else { break };
            let is_other = picked.last().is_some_and(|(before, _)| *before != input);
            // Files of one node, or of times that do not overlap, consist of such runs.
            if is_other && !is_mixed && picked.len() >= LONG_RUN {
                break;
            }
            is_mixed |= is_other;
            let Input::Open(current) = &mut self.inputs[input] else { break };
            picked.push((input, current.next));
            current.next += 1;
            if current.next == current.batch.num_rows() {
                // The last leaf takes the place of the root and is moved down below.
                self.heap.swap_remove(0);
                used_up = Some(input);
            }
            self.sift_down();
        }
        // Before the input is `Wanted`, which drops the batch that rows were picked from.
        let merged = if is_mixed { self.take(picked)? } else { self.slice(&picked) };
        if let Some(input) = used_up {
            self.inputs[input] = Input::Wanted;
        }
        Ok(merged)
    }

    /// Picked rows that follow one another in one input.
    fn slice(&self, picked: &[(usize, usize)]) -> Option<RecordBatch> {
        let (input, first) = *picked.first()?;
        match &self.inputs[input] {
            Input::Open(current) => Some(current.batch.slice(first, picked.len())),
            Input::Wanted | Input::Ended => None,
        }
    }

    /// The picked rows (input, row) as one batch.
    fn take(&self, mut picked: Vec<(usize, usize)>) -> Result<Option<RecordBatch>, ArrowError> {
        // Only batches that have a row are named: those of ended inputs are gone.
        let mut place = vec![None; self.inputs.len()];
        let mut batches = Vec::new();
        for (input, _) in &mut picked {
            let Input::Open(current) = &self.inputs[*input] else { continue };
            *input = *place[*input].get_or_insert_with(|| {
                batches.push(&current.batch);
                batches.len() - 1
            });
        }
        if batches.is_empty() {
            return Ok(None);
        }
        interleave_record_batch(&batches, &picked).map(Some)
    }

    /// The order of two open inputs by their next rows.
    fn order(&self, a: usize, b: usize) -> Ordering {
        let by_key = match (&self.inputs[a], &self.inputs[b]) {
            (
                Input::Open(Current { keys: Some(x), next: i, .. }),
                Input::Open(Current { keys: Some(y), next: j, .. }),
            ) => x.row(*i).cmp(&y.row(*j)),
            _ => Ordering::Equal,
        };
        // Equal keys by input, which makes the merge stable. Without a sort order the inputs follow one another.
        by_key.then(a.cmp(&b))
    }

    // Not `BinaryHeap`, whose elements compare by themselves: the order lies in `inputs`.
    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.order(self.heap[parent], self.heap[at]).is_le() {
                break;
            }
            self.heap.swap(parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let children = (2 * at + 1)..(2 * at + 3).min(self.heap.len());
            let Some(least) = children.min_by(|a, b| self.order(self.heap[*a], self.heap[*b])) else { return };
            if self.order(self.heap[at], self.heap[least]).is_le() {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

/// Checks that the keys ascend from the last one of the batch before.
fn check_order(before: Option<&[u8]>, keys: &Rows) -> Result<(), Refused> {
    let joins = before.is_none_or(|before| before <= keys.row(0).as_ref());
    let ascends = (1..keys.num_rows()).all(|i| keys.row(i - 1) <= keys.row(i));
    if joins && ascends { Ok(()) } else { Err(Refused::NotSorted) }
}

#[cfg(test)]
mod tests;
