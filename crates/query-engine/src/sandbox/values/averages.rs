//! `avg` of decimals and of differences of times that is exact or fails, and sums and averages of distinct values in
//! sliding frames. The engine adds in the type of its argument, which wraps round.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Decimal256Type, Field, FieldRef, UInt64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::kinds::{self, type_name};
use super::widths::{WIDE_DIGITS, as_widest, fitted_total};

/// The aggregate function.
pub(crate) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(ExactAvg { inner: avg_udaf() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAvg {
    inner: Arc<AggregateUDF>,
}

/// Whether averages of this type are computed here.
fn is_ours(result: &DataType) -> bool {
    matches!(
        result,
        DataType::Duration(_) | DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..)
    )
}

fn scale(kind: &DataType) -> i8 {
    kinds::scale(kind).unwrap_or(0)
}

impl AggregateUDFImpl for ExactAvg {
    fn name(&self) -> &str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Decimal256(..)] => {
                plan_err!("avg takes decimals of at most 38 digits: cast it to DECIMAL(38, …)")
            }
            _ => self.inner.return_type(types),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match Total::of(&args, Wanted::Average) {
            Some(total) => Ok(Box::new(total)),
            None => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match Total::of(&args, Wanted::Average) {
            Some(total) => Ok(Box::new(total)),
            None => self.inner.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_ours(args.return_field.data_type()) {
            return self.inner.state_fields(args);
        }
        // The state must have the form that `state` gives and `merge_batch` takes.
        let of = args.input_fields.first().map_or(0, |field| scale(field.data_type()));
        let total = DataType::Decimal256(WIDE_DIGITS, of);
        Ok(if args.is_distinct {
            let values = Field::new_list_field(total, true);
            vec![Arc::new(Field::new_list(format_state_name(args.name, "values"), values, true))]
        } else {
            vec![
                Arc::new(Field::new(format_state_name(args.name, "count"), DataType::UInt64, true)),
                Arc::new(Field::new(format_state_name(args.name, "total"), total, true)),
            ]
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        // The engine then keeps one [`Total`] for each group. Its own accumulator of groups adds in the narrow type.
        !is_ours(args.return_field.data_type()) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// What is made of a total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Sum,
    Average,
}

/// The values added so far.
#[derive(Debug)]
enum Values {
    All {
        total: i256,
        count: u64,
    },
    /// How often each value is present.
    Distinct(HashMap<i256, u64>),
}

impl Values {
    fn add(&mut self, value: i256) {
        match self {
            Self::All { total, count } => {
                *total = total.wrapping_add(value);
                *count += 1;
            }
            Self::Distinct(known) => *known.entry(value).or_insert(0) += 1,
        }
    }

    fn take_back(&mut self, value: i256) {
        match self {
            Self::All { total, count } => {
                *total = total.wrapping_sub(value);
                // Only rows that were added are taken back: the count does not reach zero before the frame is empty.
                *count = count.saturating_sub(1);
            }
            Self::Distinct(known) => {
                // A value leaves with the last of its rows that leaves the frame (reference count).
                let left = known.get(&value).map_or(0, |count| count.saturating_sub(1));
                if left == 0 {
                    known.remove(&value)
                } else {
                    known.insert(value, left)
                };
            }
        }
    }
}

/// A sum in 256 bits, of 128 at most each.
#[derive(Debug)]
pub(super) struct Total {
    wanted: Wanted,
    values: Values,
    /// Digits after the point of what is added up.
    scale: i8,
    result: DataType,
}

impl Total {
    /// `None` where the engine's own accumulator is exact.
    fn of(args: &AccumulatorArgs, wanted: Wanted) -> Option<Self> {
        let result = args.return_field.data_type().clone();
        let of = args.expr_fields.first().map(|field| scale(field.data_type()))?;
        let values = match args.is_distinct {
            true => Values::Distinct(HashMap::new()),
            false => Values::All { total: i256::ZERO, count: 0 },
        };
        (wanted == Wanted::Sum || is_ours(&result)).then_some(Self { wanted, values, scale: of, result })
    }

    /// A sum of distinct values, from which values can be taken back.
    pub(super) fn distinct_sum(args: &AccumulatorArgs) -> Option<Self> {
        Self::of(args, Wanted::Sum)
    }

    fn change(&mut self, values: &[ArrayRef], is_taken_back: bool) -> Result<()> {
        let [values] = values else { return exec_err!("an average takes one column") };
        let values = as_widest(values)?;
        for value in values.as_primitive::<Decimal256Type>().iter().flatten() {
            if is_taken_back {
                self.values.take_back(value);
            } else {
                self.values.add(value);
            }
        }
        Ok(())
    }

    /// The total and the number of values. 256 bits hold the sum of more values of 128 bits than there are, so that it
    /// never wraps.
    fn total(&self) -> (i256, u64) {
        match &self.values {
            Values::All { total, count } => (*total, *count),
            Values::Distinct(known) => {
                (known.keys().fold(i256::ZERO, |total, value| total.wrapping_add(*value)), known.len() as u64)
            }
        }
    }

    fn result(&self) -> Result<Option<i256>> {
        let (total, count) = self.total();
        if count == 0 || self.wanted == Wanted::Sum {
            return Ok((count > 0).then_some(total));
        }
        // The engine gives an average four digits more than its values. They are appended before the division, which
        // truncates as the engine's does.
        let digits = u32::try_from(scale(&self.result) - self.scale).unwrap_or(0);
        let shifted = i256::from_i128(10).checked_pow(digits).and_then(|unit| total.checked_mul(unit));
        match shifted.and_then(|total| total.checked_div(i256::from_i128(i128::from(count)))) {
            Some(average) => Ok(Some(average)),
            None => exec_err!("avg overflow: the average is out of range of {}", type_name(&self.result)),
        }
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(values, false)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(values, true)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let word = if self.wanted == Wanted::Sum { "sum" } else { "avg" };
        match self.result()? {
            Some(value) => fitted_total(value, &self.result, word),
            // SQL: the sum and the average of no values are NULL.
            None => ScalarValue::try_from(&self.result),
        }
    }

    fn size(&self) -> usize {
        let known = if let Values::Distinct(known) = &self.values { known.capacity() } else { 0 };
        size_of_val(self) + known * size_of::<(i256, u64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        match &self.values {
            Values::All { total, count } => Ok(vec![
                ScalarValue::UInt64(Some(*count)),
                ScalarValue::Decimal256(Some(*total), WIDE_DIGITS, self.scale),
            ]),
            Values::Distinct(known) => {
                let kind = DataType::Decimal256(WIDE_DIGITS, self.scale);
                let values = known.keys().map(|value| ScalarValue::Decimal256(Some(*value), WIDE_DIGITS, self.scale));
                Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values.collect::<Vec<_>>(), &kind))])
            }
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        match (&mut self.values, states) {
            (Values::All { total, count }, [counts, totals]) => {
                let counts = counts.as_primitive::<UInt64Type>().iter();
                for (more, of) in counts.zip(totals.as_primitive::<Decimal256Type>()) {
                    *count += more.unwrap_or(0);
                    *total = total.wrapping_add(of.unwrap_or(i256::ZERO));
                }
                Ok(())
            }
            (Values::Distinct(known), [lists]) => {
                for list in lists.as_list::<i32>().iter().flatten() {
                    // Sets are united; how often a value occurred does not change what it contributes.
                    known.extend(list.as_primitive::<Decimal256Type>().iter().flatten().map(|value| (value, 1)));
                }
                Ok(())
            }
            _ => exec_err!("an average is not made of these parts"),
        }
    }
}
