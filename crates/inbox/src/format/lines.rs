//! JSON lines: one event per line, an object with the fields of `silver.events`. Empty lines are passed over.

use std::io::{self, BufRead};

use super::{FormatError, Output};
use crate::event::EventRow;

/// Longest line. An event with the longest texts that anything here writes is far below it; without a limit a file of
/// one line would be kept in memory whole.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Reads lines to the end. `what` names the format in errors of reading.
pub(super) fn read(mut object: impl BufRead, what: &'static str, output: &mut Output<'_>) -> Result<(), FormatError> {
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        line.clear();
        let is_last = !next(&mut object, &mut line).map_err(|source| FormatError::Read { what, source })?;
        if line.len() > LINE_BYTES_MAX {
            return Err(bad(number, format!("is longer than {LINE_BYTES_MAX} bytes: there is one event per line")));
        }
        if !line.trim_ascii().is_empty() {
            let row: EventRow = serde_json::from_slice(&line).map_err(|error| bad(number, reason(&error)))?;
            if let Some(problem) = row.problem() {
                return Err(bad(number, problem.to_owned()));
            }
            output.event(&row)?;
        }
        if is_last {
            return Ok(());
        }
    }
}

fn bad(number: u64, what: String) -> FormatError {
    FormatError::Line { number, what }
}

/// Reads a line without its end; false at the end of the object. Stops behind the longest line that is allowed.
fn next(object: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let available = match object.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(false);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&available[..end.unwrap_or(available.len())]);
        let used = end.map_or(available.len(), |end| end + 1);
        object.consume(used);
        if end.is_some() || line.len() > LINE_BYTES_MAX {
            return Ok(true);
        }
    }
}

/// What is wrong with a line, and where in it.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Every line is line 1 of its own document, and all names that are known are in `docs/EVENTS.md`.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    match text.split_once(", expected one of ") {
        Some((unknown, _)) => format!("{unknown} (column {}): the fields are those of `silver.events`", error.column()),
        None => format!("{text} (column {})", error.column()),
    }
}
