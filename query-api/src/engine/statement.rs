//! From text to a statement.

use datafusion::sql::parser::{DFParserBuilder, Statement};

use super::classify::classify;
use super::dialect::Causeway;
use super::error::QueryError;
use super::limits::MAX_NESTING;
use super::values;

/// Parses exactly one statement.
///
/// # Errors
/// [`QueryError::Syntax`] with the place, [`QueryError::Unsupported`] for more than one statement.
pub(super) fn parse(sql: &str) -> Result<Statement, QueryError> {
    values::check_literals(sql)?;
    let parser = DFParserBuilder::new(sql).with_dialect(&Causeway).with_recursion_limit(MAX_NESTING + 2).build();
    let parsed = parser.and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| classify(&error, 0))?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(QueryError::Syntax { message: "the statement is empty".to_owned(), at: None }),
        (Some(_), false) => {
            let message = "more than one statement at a time; send them one by one".to_owned();
            Err(QueryError::Unsupported { message, at: None })
        }
    }
}
