//! Why a query failed, addressed to the author of the statement: what is wrong, where in the text, and what to write
//! instead.

use std::fmt;
use std::time::Duration;

use crate::names::CATALOG;

/// A place in the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line of the text, counted from 1.
    pub line: u64,
    /// Character of the line, counted from 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}:{}", self.line, self.column)
    }
}

/// Why a query gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    #[error("syntax error: {message}")]
    Syntax { message: String, at: Option<Position> },
    #[error("{statement} is not allowed: this engine only reads")]
    Refused { statement: String },
    #[error("statement too complex: {found} {what}, at most {limit} are planned")]
    TooComplex { what: &'static str, found: usize, limit: usize, at: Option<Position> },
    #[error("column `{name}` does not exist{}", did_you_mean(close))]
    UnknownColumn { name: String, close: Vec<String>, at: Option<Position> },
    #[error("table `{name}` does not exist{}", did_you_mean(close))]
    UnknownTable { name: String, close: Vec<String>, at: Option<Position> },
    #[error("catalog `{name}` does not exist: the only one is `{CATALOG}`")]
    UnknownCatalog { name: String, at: Option<Position> },
    /// A session property of a client does not exist, or has an invalid value.
    #[error("{message}")]
    SessionProperty { message: String },
    #[error("function `{name}` does not exist{}", did_you_mean(close))]
    UnknownFunction { name: String, close: Vec<String>, at: Option<Position> },
    #[error("{message}")]
    Invalid { message: String, at: Option<Position> },
    #[error("not supported: {message}")]
    Unsupported { message: String, at: Option<Position> },
    /// The statement is valid, but a value that it reads cannot be processed: a division by zero, a text that is not a
    /// number.
    #[error("{message}")]
    Execution { message: String },
    #[error("query needs more than its {limit_bytes} bytes of memory: {message}")]
    Memory { limit_bytes: usize, message: String },
    #[error("query ran longer than {} s", limit.as_secs_f64())]
    Timeout { limit: Duration },
    #[error("{running} queries are running and {queued} wait for their turn")]
    Busy { running: usize, queued: usize },
    #[error("query was cancelled")]
    Cancelled,
    /// Files that the query reads lie in an archive class of S3. The message names them and the command that gets
    /// copies.
    #[error("{message}")]
    Archived { message: String },
    /// A data file, manifest or metadata file does not hold what was written to it.
    #[error("file `{file}` is damaged: {message}")]
    DataFile { file: String, message: String },
    /// The catalog or the store could not be read. The message has all causes.
    #[error("{message}")]
    Lake { message: String },
    /// An invariant of this crate or of DataFusion does not hold.
    #[error("internal error: {message}")]
    Internal { message: String },
}

fn did_you_mean(close: &[String]) -> String {
    match close {
        [] => String::new(),
        names => format!("; close names are {}", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
    }
}

impl QueryError {
    /// The position of the fault in the statement; `None` when it is not known.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Syntax { at, .. }
            | Self::TooComplex { at, .. }
            | Self::UnknownColumn { at, .. }
            | Self::UnknownTable { at, .. }
            | Self::UnknownCatalog { at, .. }
            | Self::UnknownFunction { at, .. }
            | Self::Invalid { at, .. }
            | Self::Unsupported { at, .. } => *at,
            _ => None,
        }
    }

    /// An error of the lake with its causes, each of them once.
    pub fn lake(error: &lake::ReadError) -> Self {
        // Damage is distinct from a store that does not answer: an operator restores the file, while a client tries
        // again.
        if let Some((file, message)) = error.damage() {
            return Self::DataFile { file: file.to_owned(), message };
        }
        Self::Lake { message: service_kit::run::in_a_line(error) }
    }
}
