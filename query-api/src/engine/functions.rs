//! The functions a query may call: a list of the allowed ones, so that a function that comes with a new engine version is refused
//! until somebody has looked at it. Those whose result can be made far larger than their arguments are called through a guard,
//! because the memory pool does not see what an expression allocates.

mod names;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{cast, max};
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::catalog::{TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::error::close_names;

/// Most bytes one call on one batch of rows may produce.
const MAX_RESULT_BYTES: u64 = 256 << 20;
/// Most rows of `generate_series`.
const MAX_SERIES_ROWS: i128 = 10_000_000;

/// Scalar functions that are safe as they are: no I/O, and results about as large as their arguments.
const ALLOWED: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "array_any_value",
    "array_append",
    "array_compact",
    "array_concat",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_reverse",
    "array_slice",
    "array_sort",
    "array_to_string",
    "array_union",
    "arrays_zip",
    "arrow_cast",
    "arrow_try_cast",
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
    "concat",
    "concat_ws",
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
    "levenshtein",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "make_array",
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
    "overlay",
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
    "to_char",
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

/// Scalar functions called through [`Guarded`].
const GUARDED: &[&str] = &["lpad", "regexp_replace", "repeat", "replace", "rpad"];

/// The scalar functions of a session.
pub(super) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter_map(|function| {
            if ALLOWED.contains(&function.name()) {
                Some(function)
            } else if GUARDED.contains(&function.name()) {
                Some(Arc::new(ScalarUDF::new_from_impl(Guarded { inner: function })))
            } else {
                None
            }
        })
        .chain(names::functions())
        .collect()
}

/// Names of allowed functions near a name that is none.
pub(super) fn close_to(name: &str) -> Vec<String> {
    let aggregates = SessionStateDefaults::default_aggregate_functions();
    let windows = SessionStateDefaults::default_window_functions();
    let known = ALLOWED.iter().chain(GUARDED).copied();
    let known = known.chain(aggregates.iter().map(|f| f.name())).chain(windows.iter().map(|f| f.name()));
    close_names(name, known)
}

/// The table functions of a session: `generate_series` and `range`, with a bound.
pub(super) fn table_functions() -> HashMap<String, Arc<TableFunction>> {
    SessionStateDefaults::default_table_functions()
        .into_iter()
        .filter(|function| matches!(function.name(), "generate_series" | "range"))
        .map(|inner| {
            let name = inner.name().to_owned();
            (name.clone(), Arc::new(TableFunction::new(name, Arc::new(BoundedSeries { inner }))))
        })
        .collect()
}

/// A function whose result may be much larger than its arguments: the size is computed before it is called.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
}

impl Guarded {
    /// An upper bound of the bytes this call would produce.
    fn result_bytes(&self, args: &ScalarFunctionArgs) -> Result<u64> {
        let rows =
            if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) { 1 } else { args.number_rows };
        let length = |index: usize| args.args.get(index).map_or(Ok(0), longest);
        let per_row = match self.inner.name() {
            "repeat" => length(0)?.saturating_mul(args.args.get(1).map_or(Ok(0), largest)?),
            "lpad" | "rpad" => args.args.get(1).map_or(Ok(0), largest)?.saturating_mul(4),
            _ => (length(0)? + 1).saturating_mul(length(2)?),
        };
        Ok(per_row.saturating_mul(rows as u64))
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.result_bytes(&args)?;
        if bytes > MAX_RESULT_BYTES {
            return exec_err!(
                "{} would make up to {bytes} bytes at once, at most {MAX_RESULT_BYTES} are made",
                self.name()
            );
        }
        self.inner.invoke_with_args(args)
    }
}

/// The longest text of a value, bytes.
fn longest(value: &ColumnarValue) -> Result<u64> {
    let array = as_array(value)?;
    let lengths = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().flatten().map(str::len).max(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().flatten().map(str::len).max(),
        DataType::Utf8View => array.as_string_view().iter().flatten().map(str::len).max(),
        _ => None,
    };
    Ok(lengths.unwrap_or(0) as u64)
}

/// The largest number of a value; negative ones count as zero.
fn largest(value: &ColumnarValue) -> Result<u64> {
    let numbers = cast(&as_array(value)?, &DataType::Int64)?;
    Ok(max(numbers.as_primitive::<Int64Type>()).and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

fn as_array(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    }
}

/// `generate_series` over integers, refused beyond [`MAX_SERIES_ROWS`] rows.
#[derive(Debug)]
struct BoundedSeries {
    inner: Arc<TableFunction>,
}

impl TableFunctionImpl for BoundedSeries {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
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
        let rows = (i128::from(end) - i128::from(start)) / i128::from(if step == 0 { 1 } else { step });
        if rows > MAX_SERIES_ROWS {
            return plan_err!("{} would make {rows} rows, at most {MAX_SERIES_ROWS} are made", self.inner.name());
        }
        self.inner.function().call_with_args(args)
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(number), _) => *number,
        _ => None,
    }
}
