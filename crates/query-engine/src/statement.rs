//! Parses the text of a statement.

use datafusion::sql::parser::{DFParserBuilder, Statement as Parsed};
use sqlparser::ast;

use crate::classify::classify;
use crate::dialect::Causeway;
use crate::error::QueryError;
use crate::sandbox::complexity::{MAX_NESTING, check_text};
use crate::sandbox::values;

/// A parsed statement whose text is within the limits of what can be planned.
#[derive(Debug, Clone)]
pub struct Statement(Parsed);

impl Statement {
    /// Parses exactly one statement of the dialect of Causeway.
    ///
    /// # Errors
    /// [`QueryError::Syntax`] with the position, [`QueryError::TooComplex`] with the limit, [`QueryError::Unsupported`]
    /// for more than one statement.
    pub fn parse(sql: &str) -> Result<Self, QueryError> {
        // Before parsing: an overflow of the stack in a recursive parser or planner would end the process.
        check_text(sql)?;
        parse(sql).map(Self)
    }

    /// A statement that the parser of another dialect has produced from `sql`.
    ///
    /// # Errors
    /// [`QueryError::TooComplex`] with the limit, [`QueryError::Syntax`] when the text has no tokens or literals stand
    /// side by side, [`QueryError::Unsupported`] for `UESCAPE`.
    pub fn of_dialect(sql: &str, parsed: ast::Statement) -> Result<Self, QueryError> {
        check_text(sql)?;
        values::check_literals(sql)?;
        Ok(Self(Parsed::Statement(Box::new(parsed))))
    }

    pub(crate) fn into_parsed(self) -> Parsed {
        self.0
    }
}

/// Parses exactly one statement of the dialect of Causeway. Without the limits of text, which statements of this crate
/// may exceed.
///
/// # Errors
/// [`QueryError::Syntax`] with the place, [`QueryError::Unsupported`] for more than one statement.
pub(crate) fn parse(sql: &str) -> Result<Parsed, QueryError> {
    values::check_literals(sql)?;
    // The limit of sqlparser covers nesting without parentheses, such as `NOT NOT …`, which `check_text` does not count
    // as levels.
    let parser = DFParserBuilder::new(sql).with_dialect(&Causeway).with_recursion_limit(MAX_NESTING + 2).build();
    let parsed = parser.and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| classify(&error, 0))?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        // A text of comments or semicolons only.
        (None, _) => Err(QueryError::Syntax { message: "the statement is empty".to_owned(), at: None }),
        (Some(_), false) => {
            let message = "more than one statement at a time; send them one by one".to_owned();
            Err(QueryError::Unsupported { message, at: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use lake::{Lake, LakeOptions};
    use sqlparser::dialect::GenericDialect;
    use sqlparser::parser::Parser;

    use super::*;
    use crate::{Engine, Limits, Query};

    async fn engine(dir: &std::path::Path) -> Engine {
        let options = LakeOptions {
            catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.display()),
            warehouse: dir.join("warehouse").display().to_string(),
            s3: None,
        };
        Engine::new(Lake::open(options).await.unwrap(), Limits::default()).unwrap()
    }

    fn of_generic_dialect(sql: &str) -> Result<Statement, QueryError> {
        let parsed = Parser::parse_sql(&GenericDialect {}, sql).unwrap().remove(0);
        Statement::of_dialect(sql, parsed)
    }

    #[tokio::test]
    async fn a_statement_of_another_parser_is_answered_and_refused_like_one_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let answer = engine.query(Query::of(of_generic_dialect("SELECT 1 AS one").unwrap())).await.unwrap();
        assert_eq!(answer.schema().field(0).name(), "one");
        assert_eq!(answer.collect().await.unwrap()[0].num_rows(), 1);
        let writes = of_generic_dialect("DELETE FROM silver.events").unwrap();
        let refused = engine.query(Query::of(writes)).await.unwrap_err();
        assert!(matches!(refused, QueryError::Refused { .. }), "{refused}");
        for beside in ["SELECT 'a' 'b'", "SELECT 1 'b'"] {
            let refused = of_generic_dialect(beside).unwrap_err();
            assert!(matches!(refused, QueryError::Syntax { at: Some(_), .. }), "{beside}: {refused}");
        }
        let long = format!("SELECT {}", vec!["1"; 600].join(" + "));
        let refused = of_generic_dialect(&long).unwrap_err();
        assert!(matches!(refused, QueryError::TooComplex { .. }), "{refused}");
    }
}
