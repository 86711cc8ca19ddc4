//! Selects the files that may hold rows for a filter. First the lake prunes manifests and partitions by simple ranges.
//! Only comparisons of a column with a literal of the same type become ranges, because a cast changes the order. The
//! remaining files are pruned by DataFusion, which rewrites the whole predicate over the bounds of files.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use lake::{ColumnRange, ScanFile, Value};

use crate::scan::field_ids::field_id;
use crate::scan::statistics;

/// The ranges that every wanted row lies in. They are wider than the filters where a range cannot express a filter.
pub(crate) fn ranges(filters: &[Expr], schema: &SchemaRef) -> Vec<ColumnRange> {
    // Conjuncts are independent: each that has a range prunes, and any other is passed over.
    let conditions = filters.iter().flat_map(split_conjunction);
    let mut ranges: Vec<ColumnRange> = conditions.filter_map(|filter| range(filter, schema)).collect();
    let days: Vec<ColumnRange> = ranges.iter().filter_map(|range| in_microseconds(range, schema)).collect();
    ranges.extend(days);
    ranges
}

fn range(filter: &Expr, schema: &SchemaRef) -> Option<ColumnRange> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
                // `5 < x` is `x > 5`.
                (Expr::Literal(literal, _), Expr::Column(column)) => (column, op.swap()?, literal),
                _ => return None,
            };
            let value = value(column, literal, schema)?;
            match op {
                Operator::Eq => Some(ColumnRange::equals(&column.name, value)),
                // Ranges are closed, so that `<` becomes the wider `<=`; the filter above decides on the end itself.
                Operator::Lt | Operator::LtEq => Some(ColumnRange::between(&column.name, None, Some(value))),
                Operator::Gt | Operator::GtEq => Some(ColumnRange::between(&column.name, Some(value), None)),
                _ => None,
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            match (expr.as_ref(), low.as_ref(), high.as_ref()) {
                (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) => {
                    let low = value(column, low, schema)?;
                    let high = value(column, high, schema)?;
                    Some(ColumnRange::between(&column.name, Some(low), Some(high)))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn value(column: &Column, literal: &ScalarValue, schema: &SchemaRef) -> Option<Value> {
    let field = schema.field_with_name(&column.name).ok()?;
    statistics::value(literal, field.data_type())
}

/// A range of `ts_ns` as one of `ts`, by which tables are partitioned. In every table that has both, `ts` is `ts_ns` in
/// whole microseconds, so that a range of one is a range of the other.
fn in_microseconds(range: &ColumnRange, schema: &SchemaRef) -> Option<ColumnRange> {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
    let paired = range.column == "ts_ns" && schema.field_with_name("ts").is_ok_and(|ts| *ts.data_type() == micros);
    if !paired {
        return None;
    }
    Some(ColumnRange::between("ts", of_nanos(&range.min), of_nanos(&range.max)))
}

/// A bound in nanoseconds as one in microseconds.
fn of_nanos(bound: &Option<Value>) -> Option<Value> {
    match bound {
        // Rounded towards the past, as `ts` is when rows are made, so that both bounds stay bounds for times before
        // 1970.
        Some(Value::Long(ns)) => Some(Value::Timestamptz(ns.div_euclid(1_000))),
        _ => None,
    }
}

/// The files whose bounds do not exclude the predicate. A predicate that cannot be evaluated over bounds excludes no
/// file.
///
/// # Errors
/// The predicate names a column that does not exist.
pub(crate) fn prune(
    files: Vec<Arc<ScanFile>>,
    predicate: Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<Vec<Arc<ScanFile>>> {
    let predicate = PruningPredicate::try_new(predicate, Arc::clone(schema))?;
    if files.is_empty() || predicate.always_true() {
        return Ok(files);
    }
    let bounds = FileBounds { files: &files, schema };
    // For example, DataFusion rewrites `LIKE` over `Utf8View` to a comparison of two types, which fails here.
    let Ok(keep) = predicate.prune(&bounds) else {
        return Ok(files);
    };
    Ok(files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| Arc::clone(file)).collect())
}

/// The bounds of files. Unlike statistics they need not be exact: a truncated bound is still a bound.
struct FileBounds<'a> {
    files: &'a [Arc<ScanFile>],
    schema: &'a SchemaRef,
}

impl FileBounds<'_> {
    fn field(&self, column: &Column) -> Option<(i32, &Field)> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        Some((field_id(field)?, field))
    }

    fn bounds(&self, column: &Column, bound: impl Fn(&lake::read::ColumnStats) -> Option<&Value>) -> Option<ArrayRef> {
        let (id, field) = self.field(column)?;
        // Iceberg's bounds leave NaN out (spec, `lower_bounds`), and the engine orders NaN above every number.
        if field.data_type().is_floating() {
            return None;
        }
        // In `PruningStatistics` NULL means that the bound of a file is unknown.
        let null = ScalarValue::try_new_null(field.data_type()).ok()?;
        let values = self.files.iter().map(|file| {
            let value = file.column(id).and_then(&bound).and_then(|value| statistics::scalar(value, field.data_type()));
            value.unwrap_or_else(|| null.clone())
        });
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for FileBounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |stats| stats.lower.as_ref())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |stats| stats.upper.as_ref())
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let (id, _) = self.field(column)?;
        let counts = self.files.iter().map(|file| file.column(id).and_then(|stats| stats.null_count));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| Some(file.record_count)).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        // Only sets of values, such as Bloom filters, could answer this; manifests have bounds.
        None
    }
}

#[cfg(test)]
mod tests;
