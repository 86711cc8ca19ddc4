//! Why a query failed, in the words of the person who wrote it: what was wrong, where in the text, and what to do.

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
    /// The session of a client asks for what there is not.
    #[error("{message}")]
    SessionProperty { message: String },
    #[error("function `{name}` does not exist{}", did_you_mean(close))]
    UnknownFunction { name: String, close: Vec<String>, at: Option<Position> },
    #[error("{message}")]
    Invalid { message: String, at: Option<Position> },
    #[error("not supported: {message}")]
    Unsupported { message: String, at: Option<Position> },
    /// The statement was sound and met data it cannot handle: a division by zero, a text that is no number.
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
    /// A data file, manifest or metadata file is not what was written to it.
    #[error("file `{file}` is damaged: {message}")]
    DataFile { file: String, message: String },
    /// The catalog or the store did not give what was asked, with all causes.
    #[error("{message}")]
    Lake { message: String },
    /// A broken invariant of ours or of the engine beneath.
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
    /// Where in the statement the fault lies, when it is known.
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

    /// An error of the lake, with its causes, each once.
    pub fn lake(error: &lake::ReadError) -> Self {
        if let Some((file, message)) = error.damage() {
            return Self::DataFile { file: file.to_owned(), message };
        }
        Self::Lake { message: service_kit::run::in_a_line(error) }
    }
}
