//! Where a message lies: the first columns of every table with a row per message, and the order of its rows. Records
//! carry the same columns without the time (`event_schema::kind`).

use arrow::array::ArrayRef;
use event_schema::position::Message;

use crate::columns::{int, long, timestamp, words};
use crate::def::{Column, ColumnType, column};

/// Rows of one log lie together, in its order.
pub(crate) const SORT: &[&str] = &["log_name", "log_partition", "log_offset"];

/// The columns, with the ids 1 to 4.
pub(crate) fn columns() -> [Column; 4] {
    use ColumnType::{Int, Long, String, Timestamptz};
    [
        column(
            1,
            "log_name",
            String,
            "log that the message was read from: a Kafka topic, which is `topic@2` once it was made anew, or another source",
        )
        .word(),
        column(2, "log_partition", Int, "partition of that log"),
        column(3, "log_offset", Long, "offset in that partition").delta(),
        column(4, "log_ts", Timestamptz, "time that the log has for the message: Kafka's record timestamp").delta(),
    ]
}

/// The values of [`columns`], one row per message.
pub(crate) fn values<'a>(messages: impl Iterator<Item = &'a Message> + Clone) -> [ArrayRef; 4] {
    [
        words(messages.clone().map(|m| Some(&*m.at.topic))),
        int(messages.clone().map(|m| m.at.partition)),
        long(messages.clone().map(|m| m.offset)),
        // Kafka counts milliseconds. A producer sets the time, so that it may be any number.
        timestamp(messages.map(|m| m.timestamp_ms.saturating_mul(1_000))),
    ]
}
