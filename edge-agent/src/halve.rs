//! Splits a message that is too large for the broker into two with the same content: nothing is lost, and every row
//! keeps its number. Pure, so that a message sent again after a crash is halved into the same bytes.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::loss::LossCounters;
use event_schema::wire::{self, Decoded, EncodeError, HeaderDraft, WireError};

/// Why a message cannot be halved: it is not in the wire format.
#[derive(Debug, thiserror::Error)]
pub enum HalveError {
    #[error(transparent)]
    Decode(#[from] WireError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The two halves of a message, the first of which reports its losses. `None` when it has a single row, or none.
///
/// The message is not in the wire format.
pub fn halve(message: &[u8]) -> Result<Option<[Bytes; 2]>, HalveError> {
    let Decoded { header, batch, .. } = wire::decode(message)?;
    let middle = batch.num_rows() / 2;
    if middle == 0 {
        return Ok(None);
    }
    let rest = batch.num_rows() - middle;
    // Both halves together announce what the whole did. `min`: the header was read from disk, and one that announces
    // less than its rows must not make the subtraction below underflow.
    let later = LossCounters { emitted: (rest as u64).min(header.losses.emitted), ..LossCounters::default() };
    let sooner = LossCounters { emitted: header.losses.emitted - later.emitted, ..header.losses };
    let first = HeaderDraft { losses: sooner, ..header.draft() };
    let second = HeaderDraft { losses: later, ..header.draft() };
    let sooner_rows = with_own_dictionaries(&batch.slice(0, middle))?;
    let later_rows = with_own_dictionaries(&batch.slice(middle, rest))?;
    // Each row keeps its number, by which the centre deduplicates.
    let later_seq = header.first_seq + i64::try_from(middle).unwrap_or(i64::MAX);
    Ok(Some([wire::encode(&first, header.first_seq, &sooner_rows)?, wire::encode(&second, later_seq, &later_rows)?]))
}

/// A slice shares the dictionaries of the whole: they are rebuilt from the words that the slice uses.
fn with_own_dictionaries(slice: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = slice.columns().iter().map(with_own_dictionary).collect::<Result<_, _>>()?;
    RecordBatch::try_new(slice.schema(), columns)
}

fn with_own_dictionary(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        // Without this a half would carry all words of the whole, and might be nearly as large.
        kind @ DataType::Dictionary(_, words) => cast(&cast(column, words)?, kind),
        _ => Ok(column.clone()),
    }
}

#[cfg(test)]
mod tests;
