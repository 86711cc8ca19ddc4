//! Why a query failed, in the words of the person who wrote it: what was wrong, where in the text, and what to do. DataFusion's
//! errors are sorted into these here and nowhere else, so that every surface (problem documents, Trino) says the same.

use std::fmt;
use std::time::Duration;

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Diagnostic, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use super::interrupt::Stopped;
use super::scan::ScanError;
use super::session::CATALOG;
use words::plain;

mod words;

/// A place in the statement, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: u64,
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
    pub(crate) fn lake(error: &lake::ReadError) -> Self {
        if let Some((file, message)) = error.damage() {
            return Self::DataFile { file: file.to_owned(), message };
        }
        Self::Lake { message: service_kit::run::in_a_line(error) }
    }
}

/// Sorts an engine error. `memory_bytes` is the share the query had.
pub fn classify(error: &DataFusionError, memory_bytes: usize) -> QueryError {
    sort(error, memory_bytes, None)
}

/// Sorts an error of planning. What the planner takes for a fault of its own is a statement that it has no plan for.
pub(super) fn classify_planning(error: &DataFusionError, memory_bytes: usize) -> QueryError {
    match classify(error, memory_bytes) {
        QueryError::Internal { message } if message.contains("regex parse error") => {
            let fault = message.rsplit("error: ").next().unwrap_or_default();
            QueryError::Invalid { message: format!("a regular expression is wrong: {fault}"), at: None }
        }
        QueryError::Internal { message } => {
            tracing::warn!(%error, "the planner has no plan for a statement");
            QueryError::Unsupported { message: format!("there is no plan for this statement: {message}"), at: None }
        }
        QueryError::Execution { message } => QueryError::Invalid { message, at: None },
        other => other,
    }
}

fn sort(error: &DataFusionError, memory: usize, at: Option<Position>) -> QueryError {
    match error {
        DataFusionError::Context(_, inner) => sort(inner, memory, at),
        DataFusionError::Shared(inner) => sort(inner, memory, at),
        DataFusionError::Diagnostic(diagnostic, inner) => sort(inner, memory, position_of(diagnostic).or(at)),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => sort(first, memory, at),
            None => QueryError::Internal { message: "an empty collection of errors".to_owned() },
        },
        DataFusionError::SQL(parser, _) => syntax(parser),
        DataFusionError::SchemaError(schema, _) => schema_error(schema, at),
        DataFusionError::Plan(message) => plan_error(message, at),
        DataFusionError::NotImplemented(message) if message.contains("expression WindowFunction(") => {
            let message = "a window function cannot be in WHERE, GROUP BY or HAVING: use QUALIFY, or filter a subquery";
            QueryError::Invalid { message: message.to_owned(), at }
        }
        DataFusionError::NotImplemented(message) if message.contains("expression AggregateFunction(") => {
            let message =
                "an aggregate cannot be inside another one, in WHERE or in GROUP BY: aggregate in a subquery first";
            QueryError::Invalid { message: message.to_owned(), at }
        }
        DataFusionError::NotImplemented(message) => QueryError::Unsupported { message: plain(message), at },
        DataFusionError::Configuration(message) => QueryError::Invalid { message: plain(message), at },
        DataFusionError::Execution(message) => QueryError::Execution { message: plain(message) },
        // A fault of the argument, which the engine takes for one of its own.
        DataFusionError::Internal(message) if message.contains("array_slice got invalid stride") => {
            QueryError::Execution { message: plain(message) }
        }
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow, memory),
        DataFusionError::ResourcesExhausted(message) => {
            QueryError::Memory { limit_bytes: memory, message: first_line(message) }
        }
        DataFusionError::External(inner) => external(inner.as_ref(), memory, at),
        other => QueryError::Internal { message: plain(&other.to_string()) },
    }
}

fn external(error: &(dyn std::error::Error + 'static), memory: usize, at: Option<Position>) -> QueryError {
    match error.downcast_ref::<ScanError>() {
        Some(ScanError::Damaged { file, problem }) => {
            return QueryError::DataFile { file: file.clone(), message: problem.clone() };
        }
        Some(away @ ScanError::Away { .. }) => return QueryError::Lake { message: away.to_string() },
        None => {}
    }
    if let Some(read) = error.downcast_ref::<lake::ReadError>() {
        return QueryError::lake(read);
    }
    if error.is::<Stopped>() {
        return QueryError::Cancelled;
    }
    if let Some(own) = error.downcast_ref::<QueryError>() {
        return own.clone();
    }
    match error.downcast_ref::<DataFusionError>() {
        Some(inner) => sort(inner, memory, at),
        None => QueryError::Internal { message: plain(&error.to_string()) },
    }
}

/// Arrow wraps what its kernels and streams meet; the errors of a user's own expression are told apart from ours.
fn arrow_error(error: &ArrowError, memory: usize) -> QueryError {
    match error {
        ArrowError::ExternalError(inner) => external(inner.as_ref(), memory, None),
        ArrowError::ArithmeticOverflow(message) if message.starts_with(OVERFLOW) => {
            let operation = message.trim_start_matches(OVERFLOW);
            QueryError::Execution { message: format!("arithmetic overflow: {operation}") }
        }
        ArrowError::ComputeError(message) if super::values::bad_pattern(message).is_some() => {
            QueryError::Execution { message: super::values::bad_pattern(message).unwrap_or_default() }
        }
        ArrowError::ParseError(message) if message.ends_with(SKIPPED) => {
            let text = message.split('\'').nth(1).unwrap_or_default();
            QueryError::Execution { message: format!("the local time `{text}` does not exist: the clocks skip it") }
        }
        ArrowError::DivideByZero => QueryError::Execution { message: "division by zero".to_owned() },
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::InvalidArgumentError(message)
        | ArrowError::ArithmeticOverflow(message) => QueryError::Execution { message: plain(message) },
        other => QueryError::Internal { message: plain(&other.to_string()) },
    }
}

/// How the kernels begin to say that a result does not fit its type.
const OVERFLOW: &str = "Overflow happened on: ";
/// How the kernels end to say that a zone has no such local time.
const SKIPPED: &str = "error computing timezone offset";
fn position_of(diagnostic: &Diagnostic) -> Option<Position> {
    diagnostic.span.map(|span| Position { line: span.start.line, column: span.start.column })
}

fn syntax(error: &ParserError) -> QueryError {
    match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, at) = split_position(message);
            QueryError::Syntax { message, at }
        }
        ParserError::RecursionLimitExceeded => QueryError::TooComplex {
            what: "levels of nesting",
            found: super::limits::MAX_NESTING + 1,
            limit: super::limits::MAX_NESTING,
            at: None,
        },
    }
}

/// The parser writes its position into the message: `… at Line: 1, Column: 15`.
fn split_position(message: &str) -> (String, Option<Position>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else {
        return (message.to_owned(), None);
    };
    let at = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    (text.to_owned(), at)
}

fn schema_error(error: &SchemaError, at: Option<Position>) -> QueryError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names = valid_fields.iter().map(|column| column.name.as_str());
            QueryError::UnknownColumn { name: field.flat_name(), close: close_names(&field.name, names), at }
        }
        other => QueryError::Invalid { message: plain(&first_line(&other.to_string())), at },
    }
}

fn plan_error(message: &str, at: Option<Position>) -> QueryError {
    if let Some(rest) = message.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or_default().to_owned();
        if super::functions::is_window(&name) {
            return QueryError::Invalid { message: format!("function `{name}` is used with OVER (…) only"), at };
        }
        // The engine's own suggestion is whatever its hash map gives first.
        return QueryError::UnknownFunction { close: super::functions::close_to(&name), name, at };
    }
    // What passes for a query and writes all the same, such as `SELECT … INTO`.
    if let Some(("DDL" | "DML" | "Statement", what)) = message.split_once(" not supported: ") {
        return QueryError::Refused { statement: plain(what) };
    }
    QueryError::Invalid { message: plain(message), at }
}

/// At most three known names near `wanted`, nearest first.
pub(super) fn close_names<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, usize, &str)> = known
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = datafusion::common::utils::datafusion_strsim::levenshtein(&wanted, &lower);
            let near = distance <= 2.max(wanted.len() / 3) || (wanted.len() > 2 && lower.contains(&wanted));
            near.then_some((distance, name.len().abs_diff(wanted.len()), name))
        })
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().take(3).map(|(.., name)| name.to_owned()).collect()
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
