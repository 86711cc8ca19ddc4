//! A line with the progress of an import. It is written on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use recordings::{Progress, Step};

use crate::output::in_line;

const WRITE_EVERY: Duration = Duration::from_millis(200);
/// Rows between two readings of the clock.
const ROWS_BETWEEN: u64 = 1024;

/// Counts rows, and shows the count at most every 200 ms.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    is_shown: bool,
    rows: u64,
    /// What the rows are of.
    of: (Step, &'static str),
    written: Instant,
    has_line: bool,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { is_shown, rows: 0, of: (Step::Reading, ""), written: Instant::now(), has_line: false }
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.has_line) {
            self.write("\r\u{1b}[K");
        }
    }

    fn write(&self, text: &str) {
        // Progress that cannot be shown is no fault of the import.
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

impl Progress for ProgressLine {
    fn row(&mut self, path: &Path, step: Step, table: &'static str) {
        if !self.is_shown {
            return;
        }
        if self.of != (step, table) {
            self.of = (step, table);
            self.rows = 0;
        }
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_BETWEEN) && self.written.elapsed() >= WRITE_EVERY {
            self.written = Instant::now();
            self.has_line = true;
            let doing = match step {
                Step::Reading => "reading",
                Step::Importing => "importing",
            };
            let line = format!("{}: {doing} {table}, {} rows", in_line(&path.display().to_string()), self.rows);
            // Carriage return and EL (ECMA-48): the line replaces the one before it, also where it is shorter.
            self.write(&format!("\r\u{1b}[K{line}"));
        }
    }
}
