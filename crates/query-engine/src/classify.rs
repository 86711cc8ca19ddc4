//! Sorts DataFusion's errors into ours, here and nowhere else, so that every surface (problem documents, Trino) says the same.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Diagnostic, SchemaError};
use sqlparser::parser::ParserError;

use crate::error::{Position, QueryError};
use crate::names::close_names;
use crate::sandbox::cancellation::Cancelled;
use crate::sandbox::complexity::MAX_NESTING;
use crate::sandbox::{functions, values};
use crate::scan::files::ScanError;
use words::plain;

mod words;

/// Sorts an engine error. `memory_bytes` is the share the query had.
pub(crate) fn classify(error: &DataFusionError, memory_bytes: usize) -> QueryError {
    sort(error, memory_bytes, None)
}

/// Sorts an error of planning. What the planner takes for a fault of its own is a statement that it has no plan for.
pub(crate) fn classify_planning(error: &DataFusionError, memory_bytes: usize) -> QueryError {
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
    if error.is::<Cancelled>() {
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

/// Arrow wraps what its kernels and streams meet; the errors of a user's own expression are not ours.
fn arrow_error(error: &ArrowError, memory: usize) -> QueryError {
    match error {
        ArrowError::ExternalError(inner) => external(inner.as_ref(), memory, None),
        ArrowError::ArithmeticOverflow(message) if message.starts_with(OVERFLOW) => {
            let operation = message.trim_start_matches(OVERFLOW);
            QueryError::Execution { message: format!("arithmetic overflow: {operation}") }
        }
        ArrowError::ComputeError(message) if values::bad_pattern(message).is_some() => {
            QueryError::Execution { message: values::bad_pattern(message).unwrap_or_default() }
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
        ParserError::RecursionLimitExceeded => {
            QueryError::TooComplex { what: "levels of nesting", found: MAX_NESTING + 1, limit: MAX_NESTING, at: None }
        }
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
        if functions::is_window(&name) {
            return QueryError::Invalid { message: format!("function `{name}` is used with OVER (…) only"), at };
        }
        // The engine's own suggestion is whatever its hash map gives first.
        return QueryError::UnknownFunction { close: functions::close_to(&name), name, at };
    }
    // What passes for a query and writes all the same, such as `SELECT … INTO`.
    if let Some(("DDL" | "DML" | "Statement", what)) = message.split_once(" not supported: ") {
        return QueryError::Refused { statement: plain(what) };
    }
    QueryError::Invalid { message: plain(message), at }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
