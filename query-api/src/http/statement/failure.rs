//! Our errors with Trino's numbers and texts. Tools match on them: Superset takes the position from `line 1:8: Column
//! 'x' cannot be resolved`.

use serde_json::{Value, json};

use query_engine::QueryError;

/// The `error` object of a failed query.
pub(super) fn describe(error: &QueryError) -> Value {
    let (code, name, kind) = code(error);
    let mut message = message(error);
    if let Some(at) = error.position() {
        message = format!("{at}: {message}");
    }
    let mut value = json!({
        "message": message,
        "errorCode": code,
        "errorName": name,
        "errorType": kind,
        // The JDBC driver makes the cause of its exception from this object.
        "failureInfo": {
            "type": "io.trino.spi.TrinoException",
            "message": message,
            "suppressed": [],
            "stack": [],
            "errorInfo": { "code": code, "name": name, "type": kind },
        },
    });
    if let Some(at) = error.position() {
        let location = json!({ "lineNumber": at.line, "columnNumber": at.column });
        value["errorLocation"] = location.clone();
        value["failureInfo"]["errorLocation"] = location;
    }
    value
}

fn message(error: &QueryError) -> String {
    match error {
        QueryError::UnknownColumn { name, .. } => format!("Column '{name}' cannot be resolved"),
        QueryError::UnknownTable { name, .. } => format!("Table '{name}' does not exist"),
        QueryError::UnknownCatalog { name, .. } => format!("Catalog '{name}' not found"),
        QueryError::UnknownFunction { name, .. } => format!("Function '{name}' not registered"),
        other => other.to_string(),
    }
}

const USER: &str = "USER_ERROR";
const RESOURCES: &str = "INSUFFICIENT_RESOURCES";

fn code(error: &QueryError) -> (u32, &'static str, &'static str) {
    match error {
        // Numbers, names and types as in `StandardErrorCode` of Trino's SPI: faults of users from 0 on, of the server
        // from 0x1_0000, of resources from 0x2_0000. From 0x100_0000 on codes are free for connectors; the lake's
        // errors have the first.
        QueryError::Syntax { .. } => (1, "SYNTAX_ERROR", USER),
        QueryError::Refused { .. } => (13, "NOT_SUPPORTED", USER),
        QueryError::TooComplex { .. } => (31, "QUERY_REJECTED", USER),
        QueryError::UnknownColumn { .. } => (47, "COLUMN_NOT_FOUND", USER),
        QueryError::UnknownTable { .. } => (46, "TABLE_NOT_FOUND", USER),
        QueryError::UnknownCatalog { .. } => (44, "CATALOG_NOT_FOUND", USER),
        QueryError::SessionProperty { .. } => (14, "INVALID_SESSION_PROPERTY", USER),
        QueryError::UnknownFunction { .. } => (6, "FUNCTION_NOT_FOUND", USER),
        QueryError::Invalid { .. } => (0, "GENERIC_USER_ERROR", USER),
        QueryError::Unsupported { .. } => (13, "NOT_SUPPORTED", USER),
        QueryError::Execution { message } if message == "division by zero" => (8, "DIVISION_BY_ZERO", USER),
        QueryError::Execution { .. } => (7, "INVALID_FUNCTION_ARGUMENT", USER),
        QueryError::Memory { .. } => (131_073, "EXCEEDED_GLOBAL_MEMORY_LIMIT", RESOURCES),
        QueryError::Timeout { .. } => (131_075, "EXCEEDED_TIME_LIMIT", RESOURCES),
        QueryError::Busy { .. } => (131_074, "QUERY_QUEUE_FULL", RESOURCES),
        QueryError::Cancelled => (3, "USER_CANCELED", USER),
        QueryError::DataFile { .. } | QueryError::Lake { .. } => (16_777_216, "LAKE_ERROR", "EXTERNAL"),
        QueryError::Archived { .. } => (16_777_217, "FILES_ARCHIVED", "EXTERNAL"),
        QueryError::Internal { .. } => (65_536, "GENERIC_INTERNAL_ERROR", "INTERNAL_ERROR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use query_engine::Position;

    #[test]
    fn an_unknown_column_reads_as_tools_expect() {
        let at = Some(Position { line: 1, column: 8 });
        let error = describe(&QueryError::UnknownColumn { name: "x".to_owned(), close: Vec::new(), at });
        assert_eq!(error["message"], "line 1:8: Column 'x' cannot be resolved");
        assert_eq!(error["errorLocation"], json!({ "lineNumber": 1, "columnNumber": 8 }));
        assert_eq!(error["errorName"], "COLUMN_NOT_FOUND");
    }
}
