//! The functions a query may call: an allow-list, so that a function that comes with a new engine version is refused
//! until it has been reviewed. Those whose result can be made far larger than their arguments are called through a
//! [`guard`].

pub(crate) mod as_is;
pub(crate) mod concat;
mod guard;
mod names;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::{TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, ident, lit};

use crate::names::close_names;
use crate::sandbox::phase::Phase;

/// Most rows of `generate_series`.
const MAX_SERIES_ROWS: i128 = 10_000_000;

/// Scalar functions that are safe as they are: no I/O, and results about as large as their arguments. Functions that
/// cast to a type named in a text are not among them, since the type cannot be checked before they allocate.
const ALLOWED: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "array_any_value",
    "array_compact",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_reverse",
    "array_slice",
    "array_sort",
    "array_union",
    "arrays_zip",
    "arrow_typeof",
    "ascii",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bit_length",
    "btrim",
    "cardinality",
    "cbrt",
    "ceil",
    "character_length",
    "chr",
    "coalesce",
    "contains",
    "cos",
    "cosh",
    "cot",
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "degrees",
    "digest",
    "empty",
    "encode",
    "ends_with",
    "exp",
    "factorial",
    "find_in_set",
    "flatten",
    "floor",
    "from_unixtime",
    "gcd",
    "get_field",
    "greatest",
    "initcap",
    "isnan",
    "iszero",
    "lcm",
    "least",
    "left",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "make_date",
    "make_time",
    "map",
    "map_entries",
    "map_extract",
    "map_keys",
    "map_values",
    "md5",
    "named_struct",
    "nanvl",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "pi",
    "power",
    "radians",
    "random",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "reverse",
    "right",
    "round",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "signum",
    "sin",
    "sinh",
    "split_part",
    "sqrt",
    "starts_with",
    "string_to_array",
    "strpos",
    "struct",
    "substr",
    "substr_index",
    "tan",
    "tanh",
    "to_date",
    "to_hex",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "translate",
    "trunc",
    "upper",
    "uuid",
];

/// The scalar functions that are the same for every query.
pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let all = SessionStateDefaults::default_scalar_functions().into_iter();
    all.filter(|function| ALLOWED.contains(&function.name()))
        .chain(names::functions())
        .chain([Arc::new(as_is::function())])
        .collect()
}

/// The scalar functions that are charged to the memory of one query.
pub(crate) fn guarded_functions(pool: &Arc<dyn MemoryPool>, phase: &Arc<Phase>) -> Vec<Arc<ScalarUDF>> {
    guard::functions(pool, phase)
}

/// Names of allowed functions that are similar to a name that is not one.
pub(crate) fn close_to(name: &str) -> Vec<String> {
    close_names(name, names().iter().map(String::as_str))
}

/// Whether a function is a window function and nothing else.
pub(crate) fn is_window(name: &str) -> bool {
    SessionStateDefaults::default_window_functions().iter().any(|function| function.name() == name)
}

/// Names of all functions that a query may call.
pub(crate) fn names() -> Vec<String> {
    let aggregates = SessionStateDefaults::default_aggregate_functions();
    let windows = SessionStateDefaults::default_window_functions();
    let known = ALLOWED.iter().copied().chain(guard::GUARDED.iter().map(|(name, _)| *name));
    let known = known.chain(aggregates.iter().map(|f| f.name())).chain(windows.iter().map(|f| f.name()));
    known.map(str::to_owned).collect()
}

/// The table functions of a session: `generate_series` and `range`, with a bound.
pub(crate) fn table_functions() -> HashMap<String, Arc<TableFunction>> {
    SessionStateDefaults::default_table_functions()
        .into_iter()
        .filter(|function| matches!(function.name(), "generate_series" | "range"))
        .map(|inner| {
            let name = inner.name().to_owned();
            (name.clone(), Arc::new(TableFunction::new(name, Arc::new(BoundedSeries { inner }))))
        })
        .collect()
}

/// `generate_series` over integers, refused beyond [`MAX_SERIES_ROWS`] rows.
#[derive(Debug)]
struct BoundedSeries {
    inner: Arc<TableFunction>,
}

impl TableFunctionImpl for BoundedSeries {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        // Literals only: the number of rows must be known before the first one is made.
        let numbers: Option<Vec<i64>> = args.exprs().iter().map(integer).collect();
        let Some(numbers) = numbers else {
            return plan_err!("{} takes integer literals here", self.inner.name());
        };
        let (start, end, step) = match numbers[..] {
            [end] => (0, end, 1),
            [start, end] => (start, end, 1),
            [start, end, step] => (start, end, step),
            _ => return plan_err!("{} takes one to three integers", self.inner.name()),
        };
        let name = self.inner.name();
        // Two bigints may differ by more than a bigint. A step of zero is refused by the engine, and must not be
        // divided by here.
        let rows = (i128::from(end) - i128::from(start)) / i128::from(if step == 0 { 1 } else { step });
        if rows > MAX_SERIES_ROWS {
            return plan_err!("{name} would make {rows} rows, at most {MAX_SERIES_ROWS} are made");
        }
        // An empty series, or one whose last step stays within the bigints.
        if rows < 0 || end.checked_add(step).is_some() {
            return self.inner.function().call_with_args(args);
        }
        // The engine adds a step to the last number too, which overflows here. So the steps are counted, and multiplied
        // and added to the start.
        if end.checked_sub(start).is_none() {
            return plan_err!("{name} from {start} to {end} spans more than the integers of 64 bits");
        }
        // `range` leaves its end out, which is one number less where a step meets it.
        let last = if name == "range" && (i128::from(end) - i128::from(start)) % i128::from(step) == 0 {
            rows - 1
        } else {
            rows
        };
        // The number of rows is bounded above, so that it fits.
        let bounds = [lit(0_i64), lit(i64::try_from(last).unwrap_or(-1) + i64::from(name == "range"))];
        let steps = self.inner.function().call_with_args(TableFunctionArgs::new(&bounds, args.session()))?;
        let counted = LogicalPlanBuilder::scan("steps", provider_as_source(steps), None)?;
        let number = (lit(start) + ident("value") * lit(step)).alias("value");
        Ok(Arc::new(ViewTable::new(counted.project([number])?.build()?, None)))
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(number), _) => *number,
        _ => None,
    }
}
