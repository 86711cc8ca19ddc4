//! Row values in the text of a statement: comparisons such as `(a, b) = (c, d)` are written part by part. The engine
//! would compare them as structures, in which NULL is a value like every other.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, visit_expressions};

use crate::error::QueryError;
use crate::sandbox::complexity::MAX_TOKENS;
use crate::sandbox::values::call;

/// How many parts of expressions one statement may still have written out: a row that is looked for in a list is
/// written once for each entry of the list, and again where it contains such a list itself.
#[derive(Debug)]
pub(crate) struct Copies(usize);

impl Default for Copies {
    fn default() -> Self {
        // What is written out may be as large as the largest text.
        Self(MAX_TOKENS)
    }
}

impl Copies {
    fn take(&mut self, expr: &Expr, times: usize) -> Result<(), QueryError> {
        let mut parts: usize = 0;
        let _ = visit_expressions(expr, |_| {
            parts += 1;
            ControlFlow::<()>::Continue(())
        });
        let written = parts.saturating_mul(times);
        match self.0.checked_sub(written) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                // Both terms fit: what is left never exceeds the bound, and a text of that length bounds the parts
                // and the times.
                let found = MAX_TOKENS - self.0 + written;
                Err(QueryError::TooComplex { what: "parts of rows in IN", found, limit: MAX_TOKENS, at: None })
            }
        }
    }
}

/// Writes a comparison of row values in comparisons of their parts; leaves every other expression.
///
/// # Errors
/// [`QueryError::Unsupported`] for a comparison of rows by their order, [`QueryError::Invalid`] for rows of different
/// lengths, [`QueryError::TooComplex`] when the lists of the statement would be too long.
pub(crate) fn settle(expr: &mut Expr, copies: &mut Copies) -> Result<(), QueryError> {
    let by_parts = match expr {
        Expr::BinaryOp { left, op, right } if is_row(left) || is_row(right) => match op {
            BinaryOperator::Eq => Some(equal(left, right, copies)?),
            // NOT over the equality: a NULL part makes both unknown, unless another part decides.
            BinaryOperator::NotEq => Some(negated(equal(left, right, copies)?)),
            BinaryOperator::Lt | BinaryOperator::LtEq | BinaryOperator::Gt | BinaryOperator::GtEq => {
                return Err(ordered(&op.to_string()));
            }
            _ => None,
        },
        // Distinct where any part is; never unknown, since NULL counts as a value here.
        Expr::IsDistinctFrom(left, right) if is_row(left) || is_row(right) => Some(distinct(left, right, copies)?),
        Expr::IsNotDistinctFrom(left, right) if is_row(left) || is_row(right) => {
            Some(negated(distinct(left, right, copies)?))
        }
        Expr::InList { expr, list, negated: is_negated } if is_row(expr) || list.iter().any(is_row) => {
            // Charged before anything is copied.
            copies.take(expr, list.len())?;
            let found = list.iter().map(|entry| equal(expr, entry, copies)).collect::<Result<Vec<_>, _>>()?;
            // `x IN (a, b)` is `x = a OR x = b` in SQL, with the same three outcomes.
            let any = joined(found, &BinaryOperator::Or);
            any.map(|any| if *is_negated { negated(any) } else { any })
        }
        Expr::Between { expr, low, high, .. } if is_row(expr) || is_row(low) || is_row(high) => {
            return Err(ordered("BETWEEN"));
        }
        Expr::Case { operand: Some(operand), .. } if is_row(operand) => return Err(ordered("CASE")),
        _ => None,
    };
    if let Some(by_parts) = by_parts {
        *expr = by_parts;
    }
    Ok(())
}

fn ordered(by: &str) -> QueryError {
    let message =
        format!("rows compared by {by}: compare them by =, <> or IN, or write the comparisons of their parts");
    QueryError::Unsupported { message, at: None }
}

fn is_row(expr: &Expr) -> bool {
    parts(expr).is_some()
}

/// The parts of a row value.
pub(crate) fn parts(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(parts) => Some(parts),
        Expr::Nested(inner) => parts(inner),
        _ => None,
    }
}

fn pairs<'a>(left: &'a Expr, right: &'a Expr) -> Result<impl Iterator<Item = (Expr, Expr)> + 'a, QueryError> {
    let message = match (parts(left), parts(right)) {
        (Some(l), Some(r)) if l.len() == r.len() => return Ok(l.iter().cloned().zip(r.iter().cloned())),
        (Some(l), Some(r)) => {
            format!("rows of {} and {} columns cannot be compared: {left} and {right}", l.len(), r.len())
        }
        _ => format!("rows are compared with rows, and one of {left} and {right} is none"),
    };
    Err(QueryError::Invalid { message, at: None })
}

/// The part of a comparison in parentheses, unless it needs none.
fn operand(expr: Expr) -> Box<Expr> {
    let is_simple = matches!(
        expr,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Function(_) | Expr::Nested(_)
    );
    Box::new(if is_simple { expr } else { Expr::Nested(Box::new(expr)) })
}

fn equal(left: &Expr, right: &Expr, copies: &mut Copies) -> Result<Expr, QueryError> {
    let mut of_parts = Vec::new();
    for (l, r) in pairs(left, right)? {
        let mut part = Expr::BinaryOp { left: operand(l), op: BinaryOperator::Eq, right: operand(r) };
        // Rows nest: `((a, b), c) = ((d, e), f)`.
        settle(&mut part, copies)?;
        of_parts.push(part);
    }
    all(of_parts, &BinaryOperator::And)
}

fn distinct(left: &Expr, right: &Expr, copies: &mut Copies) -> Result<Expr, QueryError> {
    let mut of_parts = Vec::new();
    for (l, r) in pairs(left, right)? {
        let mut part = Expr::IsDistinctFrom(operand(l), operand(r));
        settle(&mut part, copies)?;
        of_parts.push(part);
    }
    all(of_parts, &BinaryOperator::Or)
}

fn all(of_parts: Vec<Expr>, op: &BinaryOperator) -> Result<Expr, QueryError> {
    match joined(of_parts, op) {
        Some(expr) => Ok(Expr::Nested(Box::new(expr))),
        None => Err(QueryError::Invalid { message: "a row without columns".to_owned(), at: None }),
    }
}

fn negated(expr: Expr) -> Expr {
    let expr = Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(expr))) };
    Expr::Nested(Box::new(expr))
}

/// The conditions joined as a tree of little depth, however many there are; `None` when there are none.
fn joined(mut conditions: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    if conditions.len() < 2 {
        return conditions.pop();
    }
    // A balanced tree: a chain would be as deep as the list is long, and the planner is recursive.
    let rest = conditions.split_off(conditions.len() / 2);
    let left = Expr::Nested(Box::new(joined(conditions, op)?));
    let right = Expr::Nested(Box::new(joined(rest, op)?));
    Some(Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) })
}

/// A row value as the structure that a subquery is searched for.
pub(crate) fn as_structure(parts: &[Expr]) -> Expr {
    call("struct", parts.to_vec())
}
