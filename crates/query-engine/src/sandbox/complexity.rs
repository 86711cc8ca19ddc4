//! How complex a statement may be, checked on its text before any planner reads it. The planner is recursive: the chain
//! `1+1+…` of some thousand terms overflows the stack, which ends the process, not the query, so such texts are refused
//! here.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::ptr;

use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use sqlparser::ast::{ObjectName, Query, Statement as Sql, Visit, Visitor};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::dialect::Causeway;
use crate::error::{Position, QueryError};

/// Longest statement, bytes.
pub(crate) const MAX_SQL_BYTES: usize = 256 * 1024;
/// Most tokens in a statement, white space not counted.
pub(crate) const MAX_TOKENS: usize = 20_000;
/// Most operators in one expression between two commas, clauses or parentheses.
pub(crate) const MAX_OPERATORS: usize = 500;
/// Deepest nesting of parentheses, brackets and `CASE`.
pub(crate) const MAX_NESTING: usize = 48;
/// Most joins and comma-separated tables, and most `UNION`s, of one statement.
pub(crate) const MAX_RELATIONS: usize = 100;
/// Most table reads after every common table expression is replaced by its text, as the planner does.
pub(crate) const MAX_EXPANDED_RELATIONS: usize = 1_000;

/// Refuses a text that is too long or too deep to be planned safely.
///
/// # Errors
/// [`QueryError::Syntax`] when the text cannot be cut into tokens, [`QueryError::TooComplex`] naming the limit.
pub(crate) fn check_text(sql: &str) -> Result<(), QueryError> {
    // Before the tokenizer, which makes a token of every word of the text.
    if sql.len() > MAX_SQL_BYTES {
        return Err(too_complex("bytes of text", sql.len(), MAX_SQL_BYTES, None));
    }
    let tokens = Tokenizer::new(&Causeway, sql).tokenize_with_location().map_err(|error| QueryError::Syntax {
        message: error.message,
        at: Some(Position { line: error.location.line, column: error.location.column }),
    })?;
    let mut walk =
        Walk { levels: vec![Level::default()], before: Before::Other, tokens: 0, relations: 0, set_operations: 0 };
    tokens.iter().try_for_each(|token| walk.step(token))
}

fn too_complex(what: &'static str, found: usize, limit: usize, at: Option<Position>) -> QueryError {
    QueryError::TooComplex { what, found, limit, at }
}

/// One level of parentheses: the operators since the last comma or clause, and whether commas separate tables.
#[derive(Default)]
struct Level {
    operators: usize,
    tables: bool,
}

/// What stands before a word, which decides whether it starts a clause: `1 + having` is a column, `IS DISTINCT FROM` an
/// operator.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Operator,
    Distinct,
    Other,
}

struct Walk {
    levels: Vec<Level>,
    before: Before,
    tokens: usize,
    relations: usize,
    set_operations: usize,
}

impl Walk {
    fn step(&mut self, token: &TokenWithSpan) -> Result<(), QueryError> {
        // Comments are white space to the tokenizer.
        if matches!(token.token, Token::Whitespace(_) | Token::EOF) {
            return Ok(());
        }
        let at = Some(Position { line: token.span.start.line, column: token.span.start.column });
        self.tokens += 1;
        let mut before = Before::Other;
        match &token.token {
            Token::LParen | Token::LBrace => self.levels.push(Level::default()),
            // `a[1][2]…` is a chain of operators as well as a nesting.
            Token::LBracket => {
                self.level().operators += 1;
                self.levels.push(Level::default());
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => self.comma(),
            // More than one statement is refused by the parser, whose message is clearer than a count of operators.
            Token::SemiColon => *self.level() = Level::default(),
            // A word after a period is part of a name, whatever keyword it spells.
            Token::Period => before = Before::Operator,
            Token::Word(word) => before = self.word(word.keyword),
            token if is_operator(token) => {
                self.level().operators += 1;
                before = Before::Operator;
            }
            _ => {}
        }
        self.before = before;
        self.within_limits(at)
    }

    fn level(&mut self) -> &mut Level {
        // `close` keeps the outermost level, so that this never happens; it makes the index below safe without a
        // panic.
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn close(&mut self) {
        // A parenthesis too many is left to the parser, which names its place.
        if self.levels.len() > 1 {
            self.levels.pop();
        }
    }

    fn comma(&mut self) {
        let level = self.level();
        // The elements of a list are siblings in the syntax tree, not a chain. Each of them is as deep as its own
        // operators.
        level.operators = 0;
        if level.tables {
            self.relations += 1;
        }
    }

    /// A word that is no clause counts as an operator if it is a keyword: `LIKE`, `AND`, `COLLATE`, … are.
    fn word(&mut self, keyword: Keyword) -> Before {
        match keyword {
            Keyword::NoKeyword => return Before::Other,
            // After an operator the word is an operand. As a clause it would reset the count, so that a chain of such
            // columns had no bound.
            _ if self.before == Before::Operator => self.level().operators += 1,
            // `IS DISTINCT FROM` is one operator, and not a clause that resets the count.
            Keyword::FROM if self.before == Before::Distinct => self.level().operators += 1,
            Keyword::FROM => *self.level() = Level { operators: 0, tables: true },
            // The condition of each join is an expression of its own.
            Keyword::JOIN => {
                self.level().operators = 0;
                self.relations += 1;
            }
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                *self.level() = Level::default();
                self.set_operations += 1;
            }
            Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                *self.level() = Level::default();
            }
            // `CASE … END` nests as parentheses do, in the text and in the recursion of the planner.
            Keyword::CASE => self.levels.push(Level::default()),
            Keyword::END => self.close(),
            Keyword::DISTINCT => {
                self.level().operators += 1;
                return Before::Distinct;
            }
            _ => self.level().operators += 1,
        }
        Before::Other
    }

    fn within_limits(&mut self, at: Option<Position>) -> Result<(), QueryError> {
        // The statement itself is no nesting. There is always one level.
        let nesting = self.levels.len() - 1;
        let operators = self.level().operators;
        let checks = [
            ("tokens", self.tokens, MAX_TOKENS),
            ("levels of parentheses", nesting, MAX_NESTING),
            ("operators in one expression", operators, MAX_OPERATORS),
            ("joined tables", self.relations, MAX_RELATIONS),
            ("set operations", self.set_operations, MAX_RELATIONS),
        ];
        match checks.into_iter().find(|(_, found, limit)| found > limit) {
            Some((what, found, limit)) => Err(too_complex(what, found, limit, at)),
            None => Ok(()),
        }
    }
}

fn is_operator(token: &Token) -> bool {
    // A list of what is no operator: a token that a new version of the tokenizer adds counts until it is reviewed.
    !matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::Placeholder(_)
            | Token::Char(_)
    )
}

/// Refuses everything but a query, an explanation of one, `DESCRIBE` and `SHOW`: this engine only reads.
///
/// # Errors
/// [`QueryError::Refused`] naming the statement, [`QueryError::TooComplex`] when its table expressions multiply.
pub(crate) fn check_statement(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(query) => check_expansion(query),
            Sql::ExplainTable { .. } => Ok(()),
            // `show` answers those that are supported and refuses the others by name.
            sql if sql.to_string().starts_with("SHOW") => Ok(()),
            // `EXPLAIN ANALYZE` runs its statement, which therefore must be a query as well.
            Sql::Explain { statement, .. } => match statement.as_ref() {
                Sql::Query(query) => check_expansion(query),
                other => Err(refused(&first_words(&other.to_string()))),
            },
            other => Err(refused(&first_words(&other.to_string()))),
        },
        Statement::Explain(explain) => check_statement(&explain.statement),
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
    }
}

fn refused(statement: &str) -> QueryError {
    QueryError::Refused { statement: statement.to_owned() }
}

/// The first two words in capitals, which are enough to name a statement: `INSERT INTO`, `CREATE TABLE`.
fn first_words(sql: &str) -> String {
    let words = sql.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).take(2);
    words.map(str::to_uppercase).collect::<Vec<_>>().join(" ")
}

/// Common table expressions are planned once per use, so that `WITH b AS (… a, a), c AS (… b, b), …` doubles with every
/// line.
fn check_expansion(query: &Query) -> Result<(), QueryError> {
    match query.visit(&mut Expansion::default()) {
        ControlFlow::Break(found) => {
            Err(too_complex("table reads once WITH is expanded", found, MAX_EXPANDED_RELATIONS, None))
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Counts the table reads of a statement whose common table expressions are replaced by their text. Breaks with the
/// count as soon as it is over the limit.
#[derive(Default)]
struct Expansion {
    /// The queries around the place of the visit, the outermost first.
    open: Vec<Open>,
}

/// A query that is being visited.
#[derive(Default)]
struct Open {
    /// The names that its WITH defines, by the queries that they stand for.
    names: HashMap<*const Query, String>,
    /// How many table reads each name that is defined so far stands for.
    defined: HashMap<String, usize>,
    reads: usize,
}

impl Expansion {
    fn add(&mut self, reads: usize) -> ControlFlow<usize> {
        let Some(query) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        query.reads += reads;
        // Each query counts towards the one around it, so that the statement has at least as many.
        if query.reads > MAX_EXPANDED_RELATIONS { ControlFlow::Break(query.reads) } else { ControlFlow::Continue(()) }
    }
}

impl Visitor for Expansion {
    type Break = usize;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<usize> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        let names = tables
            .map(|cte| (ptr::from_ref(&*cte.query), planned_name(ObjectName::from(vec![cte.alias.name.clone()]))));
        self.open.push(Open { names: names.collect(), ..Open::default() });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<usize> {
        let name = planned_name(name.clone());
        // A name that is not defined here is one read of a table. So is a recursion's use of its own name, which reads
        // the rows of the step before.
        let reads = self.open.iter().rev().find_map(|query| query.defined.get(&name)).copied().unwrap_or(1);
        self.add(reads)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<usize> {
        let Some(done) = self.open.pop() else { return ControlFlow::Continue(()) };
        // The visit comes to the queries of a WITH in their order, and before all that can use their names.
        if let Some(around) = self.open.last_mut()
            && let Some(name) = around.names.remove(&ptr::from_ref(query))
        {
            // Also `WITH a AS (VALUES …)`, which reads no table, is planned once per use.
            around.defined.insert(name, done.reads.max(1));
        }
        self.add(done.reads)
    }
}

/// A name as the planner looks it up: `T` is `t`, and `"T"` is not.
fn planned_name(name: ObjectName) -> String {
    let text = name.to_string();
    // The planner refuses a name that it cannot read, so that any text will do for it.
    object_name_to_table_reference(name, true).map_or(text, |table| table.to_string())
}

#[cfg(test)]
mod tests;
