//! Regular expressions of a statement, checked before anything runs, and protected from a rule of the optimizer that
//! changes their meaning.

use datafusion::arrow::array::StringArray;
use datafusion::arrow::compute::regexp_is_match_scalar;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::expressions::with_expressions;

/// Checks every regular expression that is written in a statement.
#[derive(Debug)]
pub(crate) struct Patterns;

impl AnalyzerRule for Patterns {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| with_expressions(node, checked)).data()
    }

    fn name(&self) -> &str {
        "patterns"
    }
}

fn checked(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch),
            mut right,
        }) => {
            let changed = check(&mut right)?;
            Ok(Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed))
        }
        Expr::ScalarFunction(mut call) if call.func.name().starts_with("regexp_") => {
            // All these functions take the pattern second.
            let changed = match call.args.get_mut(1) {
                Some(pattern) => check(pattern)?,
                None => false,
            };
            Ok(Transformed::new_transformed(Expr::ScalarFunction(call), changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether the pattern was changed.
fn check(pattern: &mut Expr) -> Result<bool> {
    let text = match pattern {
        Expr::Cast(Cast { expr, .. }) => return check(expr),
        Expr::Literal(ScalarValue::Utf8(Some(text)), _)
        | Expr::Literal(ScalarValue::LargeUtf8(Some(text)), _)
        | Expr::Literal(ScalarValue::Utf8View(Some(text)), _) => text,
        _ => return Ok(false),
    };
    // The kernel compiles the pattern before it reads the first text, so that one empty text is enough for the check.
    if let Err(error) = regexp_is_match_scalar(&StringArray::from(vec![""]), text, None) {
        return plan_err!(
            "{}",
            bad_pattern(&error.to_string()).unwrap_or_else(|| format!("`{text}` is no regular expression"))
        );
    }
    // The optimizer turns plain patterns into LIKE and loses the meaning of a backslash, which is an escape there. It
    // leaves groups alone, and a group around everything changes no match.
    if ["\\\\", "\\x", "\\u", "\\U"].iter().any(|escape| text.contains(escape)) {
        *text = format!("({text})");
        return Ok(true);
    }
    Ok(false)
}

/// The pattern and the reason, from an error of the kernels about an invalid regular expression; `None` for another
/// error.
pub(crate) fn bad_pattern(message: &str) -> Option<String> {
    if !message.contains("Regular expression did not compile") {
        return None;
    }
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    // The report of the crate `regex`: a heading, the pattern, a marker below it, and the reason last.
    let pattern = lines.iter().position(|line| line.contains("regex parse error")).and_then(|at| lines.get(at + 1));
    let reason = lines.iter().rev().find(|line| line.starts_with("error: "));
    Some(match (pattern, reason) {
        (Some(pattern), Some(reason)) => {
            format!("`{pattern}` is not a regular expression: {}", reason.trim_start_matches("error: "))
        }
        _ => "a pattern is not a regular expression, or too large a one".to_owned(),
    })
}
