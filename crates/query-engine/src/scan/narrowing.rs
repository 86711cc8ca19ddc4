//! The time range and the nodes to which the conditions of a statement restrict its scans, and so the rows of its
//! answer.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use lake::{ColumnRange, Value};

const NODE: &str = "node";
/// Columns with the time of an event, and the length of the interval that one value stands for, microseconds.
const TIMES: [(&str, i64); 2] = [("ts", 0), ("minute", 60_000_000)];

/// The time range and the nodes to which one scan is restricted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// Unix milliseconds; `None` when the scan has no such bound.
    pub from_ms: Option<i64>,
    /// Unix milliseconds, inclusive; `None` when the scan has no such bound.
    pub to_ms: Option<i64>,
    /// `None` for all nodes.
    pub nodes: Option<BTreeSet<String>>,
}

impl Narrowed {
    fn of(filters: &[Expr], ranges: &[ColumnRange]) -> Self {
        let mut narrowed = Self { nodes: nodes(filters), ..Self::default() };
        for (column, length_us) in TIMES {
            for range in ranges.iter().filter(|range| range.column == column) {
                let from_ms = micros(&range.min).map(|us| us.div_euclid(1_000));
                let to_ms = micros(&range.max).map(|us| us.saturating_add(length_us).div_euclid(1_000));
                // Conditions are joined by AND, so the tightest bound applies. `None` is the least `Option`: right for
                // `max`, and the reason that the upper bound needs a function.
                narrowed.from_ms = narrowed.from_ms.max(from_ms);
                narrowed.to_ms = least(narrowed.to_ms, to_ms);
            }
        }
        narrowed
    }

    /// The restriction that holds for the rows of both scans together.
    fn or(self, other: Self) -> Self {
        // The hull of both ranges and the union of both sets: one scan without a bound leaves the whole without it.
        let nodes = match (self.nodes, other.nodes) {
            (Some(a), Some(b)) => Some(a.into_iter().chain(b).collect()),
            _ => None,
        };
        Self {
            from_ms: self.from_ms.zip(other.from_ms).map(|(a, b)| a.min(b)),
            to_ms: self.to_ms.zip(other.to_ms).map(|(a, b)| a.max(b)),
            nodes,
        }
    }
}

fn micros(value: &Option<Value>) -> Option<i64> {
    match value {
        Some(Value::Timestamptz(us)) => Some(*us),
        _ => None,
    }
}

fn least(known: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (known, other) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The nodes that the conditions name; `None` when no condition names any.
fn nodes(filters: &[Expr]) -> Option<BTreeSet<String>> {
    let named = filters.iter().flat_map(split_conjunction).filter_map(named);
    // AND: a row has one node, which must be in every set.
    named.reduce(|a, b| a.intersection(&b).cloned().collect())
}

fn named(condition: &Expr) -> Option<BTreeSet<String>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_node(left) => Some([text(right)?].into()),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) if is_node(right) => Some([text(left)?].into()),
        // OR restricts only when both sides name nodes: `node = 'a' OR pid = 1` names none.
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Some(&named(left)? | &named(right)?),
        Expr::InList(InList { expr, list, negated: false }) if is_node(expr) => list.iter().map(text).collect(),
        _ => None,
    }
}

fn is_node(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == NODE)
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8View(text) | ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text), _) => {
            text.clone()
        }
        _ => None,
    }
}

/// The scans of one statement, as they are planned.
#[derive(Debug, Default)]
pub(crate) struct Scans(Mutex<Vec<(Narrowed, About)>>);

/// The content of a scanned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Rows that each have the time of an event.
    Events,
    /// Rows that events refer to, whenever they landed. They do not determine the time of a statement that also reads
    /// events.
    Dimension,
}

impl Scans {
    pub(crate) fn note(&self, filters: &[Expr], ranges: &[ColumnRange], about: About) {
        // A panic elsewhere cannot leave the list half changed, so that a poisoned lock is usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Narrowed::of(filters, ranges), about));
    }

    /// The restriction that holds for the rows of all scans together.
    pub(crate) fn narrowed(&self) -> Narrowed {
        let scans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Dimensions count only where there is nothing else: beside events, their scans without a time would make the
        // range unbounded.
        let reads_events = scans.iter().any(|(_, about)| *about == About::Events);
        let counted = scans.iter().filter(|(_, about)| *about == About::Events || !reads_events);
        counted.map(|(narrowed, _)| narrowed.clone()).reduce(Narrowed::or).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn since(us: i64) -> Vec<ColumnRange> {
        vec![ColumnRange::between("ts", Some(Value::Timestamptz(us)), None)]
    }

    #[test]
    fn a_statement_is_about_the_time_and_the_nodes_that_all_its_scans_leave() {
        let scans = Scans::default();
        assert_eq!(scans.narrowed(), Narrowed::default());
        scans.note(&[col("node").eq(lit("a"))], &since(5_000_000), About::Events);
        let one = Narrowed { from_ms: Some(5_000), to_ms: None, nodes: Some(["a".to_owned()].into()) };
        assert_eq!(scans.narrowed(), one);
        let either = col("node").eq(lit("b")).or(lit("c").eq(col("node")));
        scans.note(&[either.and(col("pid").eq(lit(1)))], &since(2_000_000), About::Events);
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(scans.narrowed(), Narrowed { from_ms: Some(2_000), to_ms: None, nodes: Some(names.into()) });
        scans.note(&[], &[], About::Events);
        assert_eq!(scans.narrowed(), Narrowed::default(), "one scan reads everything");
    }

    #[test]
    fn what_events_refer_to_does_not_widen_the_time_of_a_statement() {
        let scans = Scans::default();
        scans.note(&[col("node").eq(lit("a"))], &[], About::Dimension);
        assert_eq!(scans.narrowed(), Narrowed { nodes: Some(["a".to_owned()].into()), ..Narrowed::default() });
        scans.note(&[], &since(5_000_000), About::Events);
        assert_eq!(scans.narrowed(), Narrowed { from_ms: Some(5_000), ..Narrowed::default() });
    }

    #[test]
    fn a_minute_reaches_to_its_end() {
        let minute = Some(Value::Timestamptz(120_000_000));
        let narrowed = Narrowed::of(&[], &[ColumnRange::between("minute", minute.clone(), minute)]);
        assert_eq!((narrowed.from_ms, narrowed.to_ms), (Some(120_000), Some(180_000)));
    }
}
