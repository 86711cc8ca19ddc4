//! Dead letters, and the messages that were sent to the log for them once more. `ops.dlq` has the dead letters,
//! `bronze.messages` what was received, with the header by which the message of a replay names its dead letter (ADR 49).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use bytes::Bytes;
use event_schema::position::{Message, TopicPartition};
use event_schema::topics;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use lake::{ColumnRange, HeadError, Lake, ReadError, TableSnapshot, Value};
use tables::bronze::messages::{REMEMBERED, Remembered, headers_of};
use tables::seen::Seen;

use super::columns::{ColumnError, Places, binary, numbers, text};
use crate::recover::{self, RecoverError};

/// The header of a replayed message that names its dead letter: `log/partition@offset`.
pub const REPLAY_OF: &str = "causeway.replay-of";

/// Where a message lies, in text form `log/partition@offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coordinates {
    /// Log and partition, by the names in the tables.
    pub at: TopicPartition,
    /// Offset in the partition.
    pub offset: i64,
}

/// Why a text names no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no message: write LOG/PARTITION@OFFSET, such as {}/0@17", topics::EVENTS)]
pub struct CoordinatesError {
    text: String,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.at, self.offset)
    }
}

impl FromStr for Coordinates {
    type Err = CoordinatesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            // From the right: a log that was made anew has an `@` in its name.
            let (at, offset) = text.rsplit_once('@')?;
            let (log, partition) = at.rsplit_once('/')?;
            let at = TopicPartition::new(log, partition.parse().ok().filter(|partition| *partition >= 0)?);
            let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
            Some(Self { at, offset }).filter(|_| !log.is_empty())
        };
        parsed().ok_or_else(|| CoordinatesError { text: text.to_owned() })
    }
}

/// Why dead letters cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    #[error("a table cannot be read")]
    Read(#[from] ReadError),
    #[error("a table of messages cannot be read")]
    Column(#[from] ColumnError),
    #[error("bronze.messages cannot be read")]
    Message(#[source] ArrowError),
    #[error("what has landed cannot be found out")]
    Recover(#[from] RecoverError),
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// A short word for the reason.
    pub cause: String,
    /// The reason in full.
    pub detail: String,
    /// Size of the message's value.
    pub payload_bytes: u64,
    /// Time that the log has for the message, unix microseconds.
    pub log_us: i64,
    /// When ingest read it first, unix microseconds.
    pub arrived_us: i64,
    /// The message that was sent for it, once that has landed.
    pub replay: Option<Coordinates>,
}

/// Dead letters by place.
pub type Letters = BTreeMap<Coordinates, Letter>;

const LETTER: [&str; 8] =
    ["log_name", "log_partition", "log_offset", "log_ts", "cause", "detail", "payload", "ingested_at"];

/// The dead letters that ingest read at or after a time (unix microseconds; all when absent).
///
/// # Errors
/// See [`LettersError`].
pub async fn letters(lake: &Lake, since_us: Option<i64>) -> Result<Letters, LettersError> {
    let mut letters = Letters::new();
    let Some(dlq) = snapshot(lake, "ops", "dlq").await? else { return Ok(letters) };
    let mut batches = dlq.scan_batches(&LETTER, &since(since_us)).await?;
    while let Some(batch) = batches.try_next().await? {
        add_letters(&batch, &mut letters)?;
    }
    // The scan is narrowed by file, not by row.
    letters.retain(|_, letter| since_us.is_none_or(|since_us| letter.arrived_us >= since_us));
    note_replays(lake, &mut letters).await?;
    Ok(letters)
}

fn since(since_us: Option<i64>) -> Vec<ColumnRange> {
    Vec::from([ColumnRange::between("ingested_at", since_us.map(Value::Timestamptz), None)])
}

/// A table's head; `None` of a table that does not exist yet.
async fn snapshot(lake: &Lake, namespace: &str, name: &str) -> Result<Option<Arc<TableSnapshot>>, ReadError> {
    match lake.table(namespace, name).snapshot().await {
        // Ingest makes its tables when it first opens the lake.
        Err(ReadError::Head(HeadError::NotFound(_))) => Ok(None),
        snapshot => Ok(Some(snapshot?)),
    }
}

fn add_letters(batch: &RecordBatch, letters: &mut Letters) -> Result<(), ColumnError> {
    let places = Places::of(batch)?;
    let log_us = numbers::<TimestampMicrosecondType>(batch, "log_ts")?;
    let arrived_us = numbers::<TimestampMicrosecondType>(batch, "ingested_at")?;
    let cause = text(batch, "cause")?;
    let detail = text(batch, "detail")?;
    let payload = binary(batch, "payload")?;
    for row in 0..batch.num_rows() {
        let place = Coordinates { at: places.at(row), offset: places.offset(row) };
        let letter = Letter {
            cause: cause.value(row).to_owned(),
            detail: detail.value(row).to_owned(),
            // The size alone: the bytes of all dead letters together may be many.
            payload_bytes: payload.value(row).len() as u64,
            log_us: log_us.value(row),
            arrived_us: arrived_us.value(row),
            replay: None,
        };
        letters.insert(place, letter);
    }
    Ok(())
}

/// Finds the messages that were sent for dead letters.
async fn note_replays(lake: &Lake, letters: &mut Letters) -> Result<(), LettersError> {
    // A replay is read after its dead letter.
    let Some(first_us) = letters.values().map(|letter| letter.arrived_us).min() else { return Ok(()) };
    let Some(bronze) = snapshot(lake, "bronze", "messages").await? else { return Ok(()) };
    // Without the payloads, which are most of the table.
    let columns = ["log_name", "log_partition", "log_offset", "headers"];
    let mut batches = bronze.scan_batches(&columns, &since(Some(first_us))).await?;
    while let Some(batch) = batches.try_next().await? {
        let places = Places::of(&batch)?;
        let headers = text(&batch, "headers")?;
        for row in (0..batch.num_rows()).filter(|row| headers.is_valid(*row)) {
            let place = || Coordinates { at: places.at(row), offset: places.offset(row) };
            for of in replays_of(headers.value(row))? {
                note_replay(letters, &of, place());
            }
        }
    }
    Ok(())
}

/// The dead letters that a message with these headers was sent for: several where a replay became a dead letter itself.
fn replays_of(headers: &str) -> Result<Vec<Coordinates>, LettersError> {
    // Before it is parsed: nearly no message has the header.
    if !headers.contains(REPLAY_OF) {
        return Ok(Vec::new());
    }
    let headers = headers_of(headers).map_err(LettersError::Message)?;
    let named = headers.iter().filter(|(name, _)| name == REPLAY_OF);
    // A value that is no place was written by another program: it names no dead letter of ours.
    Ok(named.filter_map(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok()).collect())
}

/// Keeps the first of several replays.
fn note_replay(letters: &mut Letters, of: &Coordinates, replay: Coordinates) {
    // One that was forwarded is there twice, at its own place and at its home.
    if let Some(letter) = letters.get_mut(of)
        && letter.replay.as_ref().is_none_or(|known| replay < *known)
    {
        letter.replay = Some(replay);
    }
}

/// A message as it is to be sent once more: key, value and headers as they were, and one header that names its place.
pub fn replay_of(place: &Coordinates, message: &Message) -> Message {
    let mut replay = message.clone();
    // Behind the others: headers of an earlier replay stay, so that its dead letter is found replayed too.
    replay.headers.push((REPLAY_OF.to_owned(), Bytes::from(place.to_string())));
    replay
}

/// Messages out of `bronze.messages`, a batch in memory at a time.
pub struct Messages {
    wanted: BTreeSet<Coordinates>,
    batches: Option<BoxStream<'static, Result<RecordBatch, ReadError>>>,
    /// The batch being read, and the next row of it.
    open: Option<(Remembered, usize)>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Messages {
    /// Finds the messages of these places.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn of(lake: &Lake, wanted: BTreeSet<Coordinates>) -> Result<Self, LettersError> {
        let batches = match snapshot(lake, "bronze", "messages").await? {
            Some(bronze) if !wanted.is_empty() => Some(bronze.scan_batches(&REMEMBERED, &around(&wanted)).await?),
            _ => None,
        };
        Ok(Self { wanted, batches, open: None })
    }

    /// The next message that was found, in no order; each once.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn next(&mut self) -> Result<Option<(Coordinates, Message)>, LettersError> {
        loop {
            if let Some(found) = self.next_of_batch()? {
                return Ok(Some(found));
            }
            let Some(batches) = &mut self.batches else { return Ok(None) };
            let Some(batch) = batches.try_next().await? else { return Ok(None) };
            self.open = Some((Remembered::of(&batch).map_err(LettersError::Message)?, 0));
        }
    }

    fn next_of_batch(&mut self) -> Result<Option<(Coordinates, Message)>, LettersError> {
        let Some((rows, next)) = &mut self.open else { return Ok(None) };
        while *next < rows.len() {
            let row = *next;
            *next += 1;
            let place = Coordinates { at: rows.at(row), offset: rows.offset(row) };
            // Removed, so that what is left at the end is what the table does not hold.
            if self.wanted.remove(&place) {
                return Ok(Some((place, rows.message(row).map_err(LettersError::Message)?)));
            }
        }
        Ok(None)
    }

    /// The places whose messages were not found, once [`Self::next`] has given all.
    pub fn missing(self) -> BTreeSet<Coordinates> {
        self.wanted
    }
}

/// What narrows a scan to files that may hold these messages.
fn around(wanted: &BTreeSet<Coordinates>) -> Vec<ColumnRange> {
    let offsets = || wanted.iter().map(|place| place.offset);
    let logs = || wanted.iter().map(|place| Value::String(Arc::clone(&place.at.topic)));
    vec![
        // Ordered by log first.
        ColumnRange::between("log_name", logs().next(), logs().next_back()),
        ColumnRange::between("log_offset", offsets().min().map(Value::Long), offsets().max().map(Value::Long)),
    ]
}

/// The rows of these nodes that have landed, from whatever message.
///
/// # Errors
/// `ops.ledger` cannot be read.
pub async fn landed(lake: &Lake, nodes: &BTreeSet<Arc<str>>) -> Result<Seen, LettersError> {
    match snapshot(lake, "ops", "ledger").await? {
        // Without a node there is nothing to narrow the scan by, and nothing to find.
        Some(ledger) if !nodes.is_empty() => Ok(recover::landed_of(&ledger, nodes).await?),
        _ => Ok(Seen::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinates(text: &str) -> Coordinates {
        text.parse().unwrap()
    }

    #[test]
    fn coordinates_read_back_as_they_are_written() {
        for text in ["causeway.events.v1/0@17", "causeway.events.v1@2/3@0", "a/b/1@5"] {
            assert_eq!(coordinates(text).to_string(), text);
        }
        for text in ["", "t", "t/0", "t@1", "t/0@", "t/0@-1", "t/-1@0", "/0@1", "t/x@1", "t/0@1x"] {
            let error = text.parse::<Coordinates>().unwrap_err();
            assert!(error.to_string().contains("write LOG/PARTITION@OFFSET"), "{text}");
        }
    }

    #[test]
    fn a_replay_names_each_dead_letter_that_it_was_sent_for() {
        let message = Message {
            at: TopicPartition::new("t", 0),
            offset: 7,
            timestamp_ms: 0,
            key: Some(Bytes::from_static(b"n")),
            payload: Bytes::from_static(b"p"),
            headers: vec![("h".to_owned(), Bytes::from_static(b"v"))],
        };
        let first = replay_of(&coordinates("t/0@7"), &message);
        let second = replay_of(&coordinates("t/0@9"), &first);
        assert_eq!(
            (&second.key, &second.payload, &second.headers[0]),
            (&message.key, &message.payload, &message.headers[0])
        );
        let hexadecimal = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let pairs: Vec<_> = second.headers.iter().map(|(n, v)| format!("[\"{n}\",\"{}\"]", hexadecimal(v))).collect();
        let json = format!("[{}]", pairs.join(","));
        assert_eq!(replays_of(&json).unwrap(), [coordinates("t/0@7"), coordinates("t/0@9")]);
        assert_eq!(replays_of("[[\"h\",\"76\"]]").unwrap(), []);
    }
}
