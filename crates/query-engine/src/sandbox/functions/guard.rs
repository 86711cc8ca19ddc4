//! Functions whose result, or whose work, can be made far larger than their arguments. The size is computed before they
//! are called, and what they make is charged to the query's memory for as long as it lives: the engine's operators
//! account for what they keep, but not for what an expression allocates.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, make_array};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use crate::sandbox::phase::Phase;
use crate::sandbox::values::{held, padding};
use crate::sandbox::wrapped::{Wrapping, wrapped};

/// Most bytes of one array of texts: Arrow's `Utf8` has offsets of 32 bits.
const MAX_ARRAY_BYTES: u64 = i32::MAX as u64;
/// Most pairs of characters or elements that one call on one batch compares: about a second of work.
const MAX_PAIRS: u64 = 1_000_000_000;
/// Results smaller than this are not charged: there are few of them at a time.
const LEAST_BYTES: usize = 1 << 20;
/// Longest constant that becomes part of the plan, bytes: a batch repeats it for each of its rows without account.
const MAX_PLANNED_BYTES: u64 = 4_096;

/// Most bytes that one byte of a pattern writes: `%+` writes up to 38, a time of RFC 3339 with a sign, six digits of the
/// year and nanoseconds.
const MOST_FORMATTED: u64 = 20;
/// Most bytes of a length of time, which is written whole whatever the pattern.
const LONGEST_DURATION: u64 = 64;

/// What bounds the result of a function, from its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// The first argument, repeated as often as the second one states.
    Repeat,
    /// As many characters as the second argument states.
    Pad,
    /// The third argument in place of every match in the first.
    Replace,
    /// All arguments together.
    Sum,
    /// All arguments together, with the first one between each two of the others.
    Join,
    /// The elements of the first argument, also those of nested lists, with the second one between each two.
    ListJoin,
    /// Some characters for each character of the second argument.
    Format,
    /// A number. Every character or element of one argument is compared with every one of the other.
    Pairs,
}

/// Every guarded function.
pub(super) const GUARDED: &[(&str, Growth)] = &[
    ("array_append", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_has_all", Growth::Pairs),
    ("array_has_any", Growth::Pairs),
    ("array_prepend", Growth::Sum),
    ("array_to_string", Growth::ListJoin),
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Join),
    ("levenshtein", Growth::Pairs),
    ("lpad", Growth::Pad),
    ("make_array", Growth::Sum),
    ("overlay", Growth::Sum),
    ("regexp_replace", Growth::Replace),
    ("repeat", Growth::Repeat),
    ("replace", Growth::Replace),
    ("rpad", Growth::Pad),
    ("to_char", Growth::Format),
];

/// The guarded functions of one query.
pub(super) fn functions(pool: &Arc<dyn MemoryPool>, phase: &Arc<Phase>) -> Vec<Arc<ScalarUDF>> {
    let mut functions = Vec::with_capacity(GUARDED.len());
    for inner in SessionStateDefaults::default_scalar_functions() {
        if let Some((_, growth)) = GUARDED.iter().find(|(name, _)| *name == inner.name()) {
            functions.push(guarded(held(inner), *growth, pool, phase));
        }
    }
    functions.extend(padding().map(|inner| guarded(inner, Growth::Pad, pool, phase)));
    functions
}

/// A function behind the guard.
pub(super) fn guarded(
    inner: Arc<ScalarUDF>,
    growth: Growth,
    pool: &Arc<dyn MemoryPool>,
    phase: &Arc<Phase>,
) -> Arc<ScalarUDF> {
    wrapped(inner, Guard { growth, pool: Arc::clone(pool), phase: Arc::clone(phase) })
}

/// The wrapper of a guarded function.
#[derive(Debug, Clone)]
struct Guard {
    growth: Growth,
    pool: Arc<dyn MemoryPool>,
    phase: Arc<Phase>,
}

/// The guards of one query have one pool and one phase.
impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.growth == other.growth
    }
}

impl Eq for Guard {}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.growth.hash(state);
    }
}

impl Wrapping for Guard {
    const IS_TRANSPARENT: bool = false;

    fn call(&self, inner: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = inner.name();
        let bytes = self.growth.measure(name, &args)?;
        // A constant becomes a column of a batch by repetition, once for each row.
        let is_repeated = is_constant(&args) && !args.return_type().is_nested();
        if is_repeated && bytes > MAX_PLANNED_BYTES && !self.phase.is_running() {
            // The planner keeps a call that fails while it is folded. When it runs, the number of its rows is
            // available.
            return exec_err!("{name} makes {bytes} bytes, which is left to the run");
        }
        // Charged before the call: a failed reservation ends the query, a failed allocation the process.
        let needed = if is_repeated { bytes.saturating_mul(args.number_rows.max(1) as u64) } else { bytes };
        let reservation = MemoryConsumer::new(name).register(&self.pool);
        reservation.try_grow(usize::try_from(needed).unwrap_or(usize::MAX))?;
        if bytes > MAX_ARRAY_BYTES {
            return exec_err!("{name} would make {bytes} bytes at once, at most {MAX_ARRAY_BYTES} are made");
        }
        Ok(match inner.invoke_with_args(args)? {
            ColumnarValue::Array(array) => ColumnarValue::Array(charged(array, reservation)?),
            scalar => scalar,
        })
    }
}

impl Growth {
    /// How many bytes the result of a function may have. Refuses what would take too long.
    fn measure(self, name: &str, args: &ScalarFunctionArgs) -> Result<u64> {
        Ok(match self {
            Self::Repeat => added(sizes(args, 0, lengths)?, sizes(args, 1, numbers)?, u64::saturating_mul),
            // A character has at most 4 bytes in UTF-8 (RFC 3629).
            Self::Pad => total(sizes(args, 1, numbers)?).saturating_mul(4),
            // An empty pattern matches before and after every character, in one place more than there are characters.
            Self::Replace => {
                added(sizes(args, 0, lengths)?, sizes(args, 2, lengths)?, |a, b| (a + 1).saturating_mul(b + 1))
            }
            Self::Sum => all_lengths(args)?,
            Self::Join => {
                // One separator before each further argument, at most as many as there are arguments.
                let separators = total(sizes(args, 0, lengths)?).saturating_mul(args.args.len() as u64);
                all_lengths(args)?.saturating_add(separators)
            }
            Self::ListJoin => {
                // A separator and up to 24 characters of a number for each element. Texts among them count by their
                // own length below.
                let of_leaves =
                    added(sizes(args, 0, leaves)?, sizes(args, 1, lengths)?, |n, b| n.saturating_mul(b + 24));
                of_leaves.saturating_add(all_lengths(args)?)
            }
            Self::Format => {
                let patterns = sizes(args, 1, lengths)?.into_iter();
                total(patterns.map(|bytes| bytes.saturating_mul(MOST_FORMATTED).max(LONGEST_DURATION)).collect())
            }
            Self::Pairs => {
                // Here the time is bounded, not the result: it is quadratic, and a call does not yield.
                let pairs = added(sizes(args, 0, counts)?, sizes(args, 1, counts)?, u64::saturating_mul);
                if pairs > MAX_PAIRS {
                    return exec_err!("{name} would compare {pairs} pairs at once, at most {MAX_PAIRS} are");
                }
                0
            }
        })
    }
}

fn is_constant(args: &ScalarFunctionArgs) -> bool {
    args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)))
}

/// A size of one argument for each row, for one row where all arguments are constants. A missing argument has size 0.
fn sizes(args: &ScalarFunctionArgs, at: usize, size: fn(&dyn Array) -> Result<Vec<u64>>) -> Result<Vec<u64>> {
    let rows = if is_constant(args) { 1 } else { args.number_rows };
    match args.args.get(at) {
        Some(ColumnarValue::Array(array)) => size(array),
        Some(ColumnarValue::Scalar(scalar)) => Ok(vec![size(&scalar.to_array()?)?.first().copied().unwrap_or(0); rows]),
        None => Ok(vec![0; rows]),
    }
}

fn total(sizes: Vec<u64>) -> u64 {
    sizes.into_iter().fold(0, u64::saturating_add)
}

/// The results of `of` for the two sizes of each row, added up.
fn added(a: Vec<u64>, b: Vec<u64>, of: fn(u64, u64) -> u64) -> u64 {
    a.into_iter().zip(b).fold(0, |sum: u64, (a, b)| sum.saturating_add(of(a, b)))
}

/// The lengths of all arguments together.
fn all_lengths(args: &ScalarFunctionArgs) -> Result<u64> {
    (0..args.args.len()).try_fold(0, |sum: u64, at| Ok(sum.saturating_add(total(sizes(args, at, lengths)?))))
}

/// The same array, whose memory is returned to the pool when the last reference to it is dropped.
fn charged(array: ArrayRef, reservation: MemoryReservation) -> Result<ArrayRef> {
    let size = array.get_array_memory_size();
    let data = array.to_data();
    let mut buffers = data.buffers().to_vec();
    // Small results return their reservation here.
    let Some(buffer) = buffers.pop().filter(|_| size >= LEAST_BYTES) else {
        return Ok(array);
    };
    // From the estimate to what was allocated.
    reservation.resize(size);
    // The reservation is owned by a buffer (RAII): slices share the buffer, and the last of them frees both.
    buffers.push(Buffer::from(Bytes::from_owner(Charged { buffer, _reservation: reservation })));
    Ok(make_array(data.into_builder().buffers(buffers).build()?))
}

/// A buffer and the memory it was charged with.
struct Charged {
    buffer: Buffer,
    _reservation: MemoryReservation,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}

/// The length of every value, bytes.
fn lengths(array: &dyn Array) -> Result<Vec<u64>> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(text_length).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(text_length).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(text_length).collect(),
        _ if array.is_empty() => Vec::new(),
        // As long as each other is near enough where only their sum counts.
        _ => vec![(array.to_data().get_slice_memory_size()? / array.len() + 1) as u64; array.len()],
    })
}

fn text_length(text: Option<&str>) -> u64 {
    text.map_or(0, |text| text.len() as u64)
}

/// How many elements, else characters, every value has.
fn counts(array: &dyn Array) -> Result<Vec<u64>> {
    Ok(match array.data_type() {
        DataType::List(_) => {
            array.as_list::<i32>().offsets().windows(2).map(|pair| pair[1].abs_diff(pair[0]).into()).collect()
        }
        DataType::LargeList(_) => {
            array.as_list::<i64>().offsets().windows(2).map(|pair| pair[1].abs_diff(pair[0])).collect()
        }
        DataType::FixedSizeList(_, length) => vec![u64::try_from(*length).unwrap_or(0); array.len()],
        _ => lengths(array)?,
    })
}

/// How many elements every value has that are not lists themselves: texts of nested lists are joined too.
fn leaves(array: &dyn Array) -> Result<Vec<u64>> {
    let (values, starts): (ArrayRef, Vec<u64>) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            (Arc::clone(list.values()), list.offsets().iter().map(|at| u64::try_from(*at).unwrap_or(0)).collect())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            (Arc::clone(list.values()), list.offsets().iter().map(|at| u64::try_from(*at).unwrap_or(0)).collect())
        }
        DataType::FixedSizeList(_, length) => {
            let list = array.as_fixed_size_list();
            let length = u64::try_from(*length).unwrap_or(0);
            (Arc::clone(list.values()), (0..=array.len() as u64).map(|row| row * length).collect())
        }
        _ => return Ok(vec![1; array.len()]),
    };
    // The levels below first; each row then adds up those of its range.
    let inner = leaves(values.as_ref())?;
    let of_rows = starts.windows(2).map(|pair| {
        // Offsets of a valid array are not negative and do not fall (Arrow columnar format).
        let range = usize::try_from(pair[0]).unwrap_or(usize::MAX)..usize::try_from(pair[1]).unwrap_or(usize::MAX);
        inner.get(range).map_or(0, |leaves| leaves.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)))
    });
    Ok(of_rows.collect())
}

/// The numbers; negative ones and nulls count as zero.
fn numbers(array: &dyn Array) -> Result<Vec<u64>> {
    let numbers = cast(array, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>().iter();
    Ok(numbers.map(|number| number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, FieldRef};
    use datafusion::common::ScalarValue;
    use datafusion::common::config::ConfigOptions;
    use datafusion::functions::datetime::to_char;

    use super::*;

    fn field(kind: DataType) -> FieldRef {
        Arc::new(Field::new("x", kind, true))
    }

    /// The measured bytes of a call of `to_char`, and how many it makes.
    fn measured_and_made(value: ScalarValue, pattern: &str) -> (u64, u64) {
        let args = ScalarFunctionArgs {
            arg_fields: vec![field(value.data_type()), field(DataType::Utf8)],
            args: vec![value.into(), ScalarValue::from(pattern).into()],
            number_rows: 1,
            return_field: field(DataType::Utf8),
            config_options: Arc::new(ConfigOptions::default()),
        };
        let measured = Growth::Format.measure("to_char", &args).unwrap();
        let made = to_char().invoke_with_args(args).unwrap().to_array(1).unwrap();
        (measured, lengths(&made).unwrap()[0])
    }

    #[test]
    fn a_format_makes_no_more_than_is_measured() {
        let early = ScalarValue::TimestampMicrosecond(Some(-8_000_000_000_000_000_001), Some("+00:00".into()));
        let long = ScalarValue::DurationMicrosecond(Some(i64::MAX));
        let cases = [
            (early.clone(), "%+".repeat(100), 100 * 35),
            (early, "%c".repeat(100), 100 * 24),
            (long, "x".to_owned(), 30),
        ];
        for (value, pattern, least) in cases {
            let (measured, made) = measured_and_made(value, &pattern);
            assert!(made >= least, "{pattern}: {made}");
            assert!(measured >= made, "{pattern}: {measured} of {made}");
        }
    }
}
