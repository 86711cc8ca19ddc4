//! The progress of an import.

use std::path::Path;

/// What is being done with the rows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// They are read for the first time.
    Reading,
    /// They are read again, and those that are new are sent.
    Importing,
}

/// Receives every row of an import. It is called from the task of the import, and must return at once.
pub trait Progress: Send {
    /// A row of a table of the recording was read in a step.
    fn row(&mut self, path: &Path, step: Step, table: &'static str);
}

/// Reports nothing.
impl Progress for () {
    fn row(&mut self, _: &Path, _: Step, _: &'static str) {}
}
