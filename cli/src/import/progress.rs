//! A line that says how far an import is. It is written on a terminal only.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::report::in_line;

const WRITE_EVERY: Duration = Duration::from_millis(200);
/// Rows between two looks at the clock.
const ROWS_BETWEEN: u64 = 1024;

/// Counts rows, and shows the count now and then.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    rows: u64,
    /// What the rows are of.
    of: (&'static str, &'static str),
    written: Instant,
    has_line: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let is_shown = std::io::stderr().is_terminal();
        Self { is_shown, rows: 0, of: ("", ""), written: Instant::now(), has_line: false }
    }

    /// Counts a row of a table.
    pub(crate) fn tick(&mut self, path: &Path, what: &'static str, table: &'static str) {
        if !self.is_shown {
            return;
        }
        if self.of != (what, table) {
            self.of = (what, table);
            self.rows = 0;
        }
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_BETWEEN) && self.written.elapsed() >= WRITE_EVERY {
            self.written = Instant::now();
            self.has_line = true;
            let line = format!("{}: {what} {table}, {} rows", in_line(&path.display().to_string()), self.rows);
            self.write(&format!("\r\u{1b}[K{line}"));
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.has_line) {
            self.write("\r\u{1b}[K");
        }
    }

    fn write(&self, text: &str) {
        // Progress that cannot be shown is no fault of the import.
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}
