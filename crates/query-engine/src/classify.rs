//! Maps the errors of DataFusion to [`QueryError`]. No other place does, so that every surface (problem documents, the
//! Trino protocol) reports the same error.

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Diagnostic, SchemaError};
use sqlparser::parser::ParserError;

use crate::error::{Position, QueryError};
use crate::names::close_names;
use crate::sandbox::cancellation::Cancelled;
use crate::sandbox::complexity::MAX_NESTING;
use crate::sandbox::{functions, values};
use crate::scan::archived;
use crate::scan::files::ScanError;
use words::plain;

mod words;

/// Maps an error of the engine. `memory_bytes` is the memory limit of the query.
pub(crate) fn classify(error: &DataFusionError, memory_bytes: usize) -> QueryError {
    sort(error, memory_bytes, None)
}

/// Maps an error of planning. An internal error of the planner means that the planner has no plan for the statement.
pub(crate) fn classify_planning(error: &DataFusionError, memory_bytes: usize) -> QueryError {
    match classify(error, memory_bytes) {
        QueryError::Internal { message } if message.contains("regex parse error") => {
            // The `regex` crate prints the pattern and a marker on lines of their own, and then `error:` with the
            // fault.
            let fault = message.rsplit("error: ").next().unwrap_or_default();
            QueryError::Invalid { message: format!("a regular expression is wrong: {fault}"), at: None }
        }
        QueryError::Internal { message } => {
            // Logged for the operator: the statement may be valid SQL that the engine should support.
            tracing::warn!(%error, "the planner has no plan for a statement");
            QueryError::Unsupported { message: format!("there is no plan for this statement: {message}"), at: None }
        }
        // Planning evaluates constant expressions, so that the fault lies in the text of the statement and not in a
        // row.
        QueryError::Execution { message } => QueryError::Invalid { message, at: None },
        other => other,
    }
}

fn sort(error: &DataFusionError, memory: usize, at: Option<Position>) -> QueryError {
    match error {
        // Wrappers: the error inside decides.
        DataFusionError::Context(_, inner) => sort(inner, memory, at),
        DataFusionError::Shared(inner) => sort(inner, memory, at),
        // The innermost position is the most precise. An outer one applies where the error inside has none.
        DataFusionError::Diagnostic(diagnostic, inner) => sort(inner, memory, position_of(diagnostic).or(at)),
        // An answer reports one error.
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => sort(first, memory, at),
            None => QueryError::Internal { message: "an empty collection of errors".to_owned() },
        },
        DataFusionError::SQL(parser, _) => syntax(parser),
        DataFusionError::SchemaError(schema, _) => schema_error(schema, at),
        DataFusionError::Plan(message) => plan_error(message, at),
        // The physical planner prints an expression that no operator evaluates. In SQL, window functions are computed
        // after WHERE, GROUP BY and HAVING.
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
        // A stride that does not fit the type of offsets: a fault of the argument, which DataFusion reports as its own.
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
    // Errors of this crate and of `lake` pass through DataFusion as `External`; a downcast recovers them.
    match error.downcast_ref::<ScanError>() {
        Some(ScanError::Damaged { file, problem }) => {
            return QueryError::DataFile { file: file.clone(), message: problem.clone() };
        }
        Some(ScanError::Archived { file }) => return archived::met(file),
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
    // DataFusion wraps its own errors as well, where they pass through Arrow's error type.
    match error.downcast_ref::<DataFusionError>() {
        Some(inner) => sort(inner, memory, at),
        None => QueryError::Internal { message: plain(&error.to_string()) },
    }
}

/// Maps an error of Arrow's kernels and streams. An error in the values that an expression computes is a fault of the
/// statement or its data; only the rest is internal.
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
        ArrowError::ParseError(message) if message.ends_with(values::NO_OFFSET) => {
            // The message is `Error parsing timestamp from '<text>': …`.
            let text = message.split('\'').nth(1).unwrap_or_default();
            let message = format!("the local time `{text}` comes twice in its zone, or the clocks skip it");
            QueryError::Execution { message }
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

/// How `arrow-arith` begins the message of a result that does not fit its type.
const OVERFLOW: &str = "Overflow happened on: ";

fn position_of(diagnostic: &Diagnostic) -> Option<Position> {
    diagnostic.span.map(|span| Position { line: span.start.line, column: span.start.column })
}

fn syntax(error: &ParserError) -> QueryError {
    match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, at) = split_position(message);
            QueryError::Syntax { message, at }
        }
        // sqlparser does not report the depth: one more than the limit is the least that it can be.
        ParserError::RecursionLimitExceeded => {
            QueryError::TooComplex { what: "levels of nesting", found: MAX_NESTING + 1, limit: MAX_NESTING, at: None }
        }
    }
}

/// The parser writes its position into the message: `… at Line: 1, Column: 15`.
fn split_position(message: &str) -> (String, Option<Position>) {
    // From the right, because the text before may quote a part of the statement with the same words.
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
        // Without OVER the planner looks among scalar functions and aggregates only, and reports `rank()` as unknown.
        if functions::is_window(&name) {
            return QueryError::Invalid { message: format!("function `{name}` is used with OVER (…) only"), at };
        }
        // The engine suggests one name. Where several are equally near, its hash map decides which.
        return QueryError::UnknownFunction { close: functions::close_to(&name), name, at };
    }
    // `verify_plan` has refused the plan of a statement that parses as a query and writes, such as `SELECT … INTO`.
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
