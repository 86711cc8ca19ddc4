//! Folding: partial aggregates of one key become one row. It changes how many rows there are and nothing that a query
//! may add up; [`Conserved`] is what stays the same, by which a fold is checked.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, BinaryArray, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use event_schema::sketch::Sketch;

use super::{Durations, Key, Total, batch, numbers};
use crate::hash;

/// The columns of the table.
struct Partials<'a> {
    minute: &'a [i64],
    cluster: Words<'a>,
    node: Words<'a>,
    rank: &'a arrow::array::Int32Array,
    pid: &'a [i32],
    source: &'a [i32],
    op: &'a [i32],
    size_class: &'a [i32],
    count: &'a [i64],
    sum_duration_ns: &'a arrow::array::Int64Array,
    min_duration_ns: &'a arrow::array::Int64Array,
    max_duration_ns: &'a arrow::array::Int64Array,
    sum_bytes: &'a [i64],
    sketch: &'a BinaryArray,
    timed: &'a [i64],
}

/// A column of words that repeat.
struct Words<'a> {
    column: &'a DictionaryArray<Int32Type>,
    words: &'a StringArray,
}

impl<'a> Words<'a> {
    fn of(rows: &'a RecordBatch, name: &str) -> Result<Self, ArrowError> {
        let column = rows.column_by_name(name).and_then(|column| column.as_dictionary_opt::<Int32Type>());
        let column = column.ok_or_else(|| missing(name))?;
        let words = column.values().as_string_opt::<i32>().ok_or_else(|| missing(name))?;
        Ok(Self { column, words })
    }

    /// The word of a row; the column has a value in every row.
    fn at(&self, row: usize) -> &'a str {
        self.column.key(row).map_or("", |key| self.words.value(key))
    }
}

fn missing(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("rows of gold.op_minute have no `{name}`, or of another type"))
}

impl<'a> Partials<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self, ArrowError> {
        let minute = rows.column_by_name("minute").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let sketch = rows.column_by_name("sketch").and_then(|column| column.as_binary_opt::<i32>());
        Ok(Self {
            minute: minute.ok_or_else(|| missing("minute"))?.values(),
            cluster: Words::of(rows, "cluster")?,
            node: Words::of(rows, "node")?,
            rank: numbers::<Int32Type>(rows, "rank")?,
            pid: numbers::<Int32Type>(rows, "pid")?.values(),
            source: numbers::<Int32Type>(rows, "source")?.values(),
            op: numbers::<Int32Type>(rows, "op")?.values(),
            size_class: numbers::<Int32Type>(rows, "size_class")?.values(),
            count: numbers::<Int64Type>(rows, "count")?.values(),
            sum_duration_ns: numbers::<Int64Type>(rows, "sum_duration_ns")?,
            min_duration_ns: numbers::<Int64Type>(rows, "min_duration_ns")?,
            max_duration_ns: numbers::<Int64Type>(rows, "max_duration_ns")?,
            sum_bytes: numbers::<Int64Type>(rows, "sum_bytes")?.values(),
            sketch: sketch.ok_or_else(|| missing("sketch"))?,
            timed: numbers::<Int64Type>(rows, "timed")?.values(),
        })
    }

    fn key(&self, row: usize, origin: usize) -> Key {
        Key {
            origin,
            minute_us: self.minute[row],
            rank: self.rank.is_valid(row).then(|| self.rank.value(row)),
            pid: self.pid[row],
            source: self.source[row],
            op: self.op[row],
            size_class: self.size_class[row],
        }
    }

    fn total(&self, row: usize) -> Result<Total, ArrowError> {
        let durations = match optional(self.sum_duration_ns, row) {
            None => None,
            Some(sum_ns) => Some(Durations {
                timed: count(self.timed[row])?,
                sum_ns,
                // Null only beside a sum that is null: they begin as the first duration.
                min_ns: optional(self.min_duration_ns, row).unwrap_or(i64::MAX),
                max_ns: optional(self.max_duration_ns, row).unwrap_or(i64::MIN),
            }),
        };
        Ok(Total {
            count: count(self.count[row])?,
            sum_bytes: self.sum_bytes[row],
            durations,
            sketch: self.sketch(row)?,
        })
    }

    fn sketch(&self, row: usize) -> Result<Sketch, ArrowError> {
        Sketch::from_bytes(self.sketch.value(row)).map_err(|error| ArrowError::ExternalError(Box::new(error)))
    }
}

fn optional(column: &arrow::array::Int64Array, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

fn count(number: i64) -> Result<u64, ArrowError> {
    u64::try_from(number).map_err(|_| ArrowError::ComputeError(format!("gold.op_minute counts {number} events")))
}

impl Total {
    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum_bytes = self.sum_bytes.saturating_add(other.sum_bytes);
        self.sketch.merge(&other.sketch);
        // A side without a duration has no minimum and no maximum to combine.
        self.durations = match (self.durations, other.durations) {
            (Some(a), Some(b)) => Some(Durations {
                timed: a.timed.saturating_add(b.timed),
                sum_ns: a.sum_ns.saturating_add(b.sum_ns),
                min_ns: a.min_ns.min(b.min_ns),
                max_ns: a.max_ns.max(b.max_ns),
            }),
            (a, b) => a.or(b),
        };
    }
}

/// Makes one row of all rows with one key, ordered by node, minute and the rest of the key. The order of the rows that
/// come in does not matter, and folding rows that are folded already changes nothing.
///
/// # Errors
/// The rows do not have the table's columns, or a value that this crate never writes: a negative count, a sketch that
/// is none.
pub fn fold(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let partials = Partials::of(rows)?;
    let mut origins: Vec<(&str, &str)> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut totals: HashMap<Key, Total> = HashMap::new();
    for row in 0..rows.num_rows() {
        let origin = (partials.cluster.at(row), partials.node.at(row));
        let at = *places.entry(origin).or_insert_with(|| {
            origins.push(origin);
            origins.len() - 1
        });
        totals.entry(partials.key(row, at)).or_default().merge(&partials.total(row)?);
    }
    let mut totals: Vec<_> = totals.into_iter().collect();
    // By names and not by their places: the places follow the order of the rows.
    totals.sort_unstable_by_key(|(key, _)| {
        let origin = origins[key.origin];
        (origin.1, key.minute_us, origin.0, Key { origin: 0, ..*key })
    });
    batch(&origins, &totals)
}

/// What the rows of one node add up to, however they are folded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    /// Of the columns of [`MEASURES`], in their order; wide enough not to overflow.
    measures: [i128; 4],
    /// Values in the sketches.
    sketched: u128,
    shortest_ns: Option<i64>,
    longest_ns: Option<i64>,
    /// Of every measure and sketch bucket times a hash of its key: a number that is moved from one key to another
    /// changes it.
    checksum: u64,
}

/// The columns that add up.
const MEASURES: [&str; 4] = ["count", "sum_duration_ns", "sum_bytes", "timed"];

/// What folding keeps, node by node. Equal for two sets of rows, it shows that one can be folded to the other;
/// differing values name a node and a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conserved {
    nodes: BTreeMap<String, Sums>,
}

/// Where two sets of rows differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the node.
    pub node: String,
    /// Column whose sum or extreme differs; `key` where sums agree and belong to other keys.
    pub column: &'static str,
}

impl Conserved {
    /// Adds rows of the table, in any order.
    ///
    /// # Errors
    /// As [`fold`].
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let partials = Partials::of(rows)?;
        for row in 0..rows.num_rows() {
            let node = partials.node.at(row);
            // Looked up before it is inserted: a string for every row would be made in vain.
            match self.nodes.get_mut(node) {
                Some(sums) => sums.add(&partials, row)?,
                None => self.nodes.entry(node.to_owned()).or_default().add(&partials, row)?,
            }
        }
        Ok(())
    }

    /// The first difference from another set of rows; `None` when both keep the same.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let nodes = self.nodes.keys().chain(other.nodes.keys());
        let empty = Sums::default();
        nodes
            .filter_map(|node| {
                let [ours, theirs] = [self, other].map(|side| side.nodes.get(node).unwrap_or(&empty));
                ours.difference(theirs).map(|column| Difference { node: node.clone(), column })
            })
            .next()
    }
}

impl Sums {
    fn add(&mut self, partials: &Partials<'_>, row: usize) -> Result<(), ArrowError> {
        let duration = optional(partials.sum_duration_ns, row);
        let values = [partials.count[row], duration.unwrap_or(0), partials.sum_bytes[row], partials.timed[row]];
        let key = key_hash(partials, row);
        // A sum of products: it is the same before and after counts of one key were added.
        for (number, value) in (0..).zip(values) {
            let weight = hash::join(key, number);
            self.checksum = self.checksum.wrapping_add(weight.wrapping_mul(value.cast_unsigned()));
        }
        for (sum, value) in self.measures.iter_mut().zip(values) {
            *sum += i128::from(value);
        }
        for (bucket, count) in partials.sketch(row)?.counts() {
            // Behind the numbers of the measures; the bucket of zero before the others.
            let weight = hash::join(key, bucket.map_or(100, |bucket| 101 + u64::from(bucket)));
            self.checksum = self.checksum.wrapping_add(weight.wrapping_mul(count));
            self.sketched += u128::from(count);
        }
        let shortest = optional(partials.min_duration_ns, row);
        let longest = optional(partials.max_duration_ns, row);
        // Absent is less than every value, so that `max` of options needs no case of its own, and `min` does.
        self.shortest_ns = self.shortest_ns.into_iter().chain(shortest).min();
        self.longest_ns = self.longest_ns.max(longest);
        Ok(())
    }

    fn difference(&self, other: &Self) -> Option<&'static str> {
        let measure = (0..MEASURES.len()).find(|i| self.measures[*i] != other.measures[*i]).map(|i| MEASURES[i]);
        let sketch = (self.sketched != other.sketched).then_some("sketch");
        let shortest = (self.shortest_ns != other.shortest_ns).then_some("min_duration_ns");
        let longest = (self.longest_ns != other.longest_ns).then_some("max_duration_ns");
        let key = (self.checksum != other.checksum).then_some("key");
        measure.or(sketch).or(shortest).or(longest).or(key)
    }
}

/// A hash of the key of a row but for its node.
fn key_hash(partials: &Partials<'_>, row: usize) -> u64 {
    let Key { minute_us, rank, pid, source, op, size_class, .. } = partials.key(row, 0);
    // A rank of 0 is another key than no rank.
    let rank = rank.map_or(u64::MAX, |rank| u64::from(rank.cast_unsigned()));
    let hash = hash::join(hash::of_bytes(partials.cluster.at(row).as_bytes()), minute_us.cast_unsigned());
    let hash = hash::join(hash, rank);
    [pid, source, op, size_class].into_iter().fold(hash, |hash, number| hash::join(hash, number.cast_unsigned().into()))
}

#[cfg(test)]
mod tests;
