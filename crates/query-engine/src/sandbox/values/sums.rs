//! `sum` of whole numbers and decimals that is exact or fails. The engine's own adds in the type of its result and
//! wraps round; here it adds in a type of twice the width, and the total is fitted at the end.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, FieldRef, Int64Type, TimeUnit, UInt64Type, i256,
};
use datafusion::common::{Result, ScalarValue, exec_err, not_impl_err, plan_err};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::averages::Total;
use super::kinds::type_name;
use super::widths::{NARROW_DIGITS, WIDE_DIGITS, widen_one};

/// The aggregate function.
pub(crate) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(ExactSum { inner: sum_udaf() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    inner: Arc<AggregateUDF>,
}

/// The type that sums of a type are added up in; `None` where the type itself is wide enough.
fn wide(result: &DataType) -> Option<DataType> {
    match result {
        DataType::Int64 | DataType::UInt64 | DataType::Duration(_) => Some(DataType::Decimal128(NARROW_DIGITS, 0)),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
            Some(DataType::Decimal128(NARROW_DIGITS, *scale))
        }
        // A narrower result has ten digits more than what is summed (as in Spark): fewer than 10^10 rows cannot fill
        // it.
        DataType::Decimal128(NARROW_DIGITS, scale) => Some(DataType::Decimal256(WIDE_DIGITS, *scale)),
        _ => None,
    }
}

fn widened<'a>(args: &AccumulatorArgs<'a>, to: &DataType) -> AccumulatorArgs<'a> {
    AccumulatorArgs {
        return_field: Arc::new(Field::new(args.name, to.clone(), true)),
        schema: args.schema,
        ignore_nulls: args.ignore_nulls,
        order_bys: args.order_bys,
        is_reversed: args.is_reversed,
        name: args.name,
        is_distinct: args.is_distinct,
        exprs: args.exprs,
        expr_fields: args.expr_fields,
    }
}

impl ExactSum {
    fn wrapped(
        &self,
        args: AccumulatorArgs,
        make: impl Fn(AccumulatorArgs) -> Result<Box<dyn Accumulator>>,
    ) -> Result<Box<dyn Accumulator>> {
        let narrow = args.return_field.data_type().clone();
        match wide(&narrow) {
            Some(wide) => Ok(Box::new(Widened { inner: make(widened(&args, &wide))?, narrow })),
            None => make(args),
        }
    }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        // A sum has ten digits more, up to the widest decimal. At that width there is nothing wider to add in.
        match self.inner.return_type(types)? {
            DataType::Decimal256(WIDE_DIGITS, _) => {
                plan_err!("sum takes decimals of at most {} digits", WIDE_DIGITS - 10)
            }
            other => Ok(other),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.wrapped(args, |args| self.inner.accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        // The engine's sliding sum of distinct values takes bigints only and wraps round.
        if args.is_distinct {
            return match (args.return_field.data_type(), Total::distinct_sum(&args)) {
                (kind, Some(total)) if wide(kind).is_some() || matches!(kind, DataType::Decimal128(..)) => {
                    Ok(Box::new(total))
                }
                (kind, _) => not_impl_err!(
                    "sum(DISTINCT …) of {} over a frame that moves: cast it to a decimal",
                    type_name(kind)
                ),
            };
        }
        self.wrapped(args, |args| self.inner.create_sliding_accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match wide(args.return_field.data_type()) {
            // Partial totals travel in the wide type: parts may leave the range of the result that the whole comes
            // back to.
            Some(wide) => self
                .inner
                .state_fields(StateFieldsArgs { return_field: Arc::new(Field::new(args.name, wide, true)), ..args }),
            None => self.inner.state_fields(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let narrow = args.return_field.data_type().clone();
        match wide(&narrow) {
            Some(wide) => {
                let inner = self.inner.create_groups_accumulator(widened(&args, &wide))?;
                Ok(Box::new(WidenedGroups { inner, narrow }))
            }
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// One sum.
#[derive(Debug)]
struct Widened {
    inner: Box<dyn Accumulator>,
    narrow: DataType,
}

impl Accumulator for Widened {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&widen(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // Only here, so that a total may leave the range of its result on the way and return.
        let total = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrowed(&total, &self.narrow)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&widen(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// The sums of many groups.
struct WidenedGroups {
    inner: Box<dyn GroupsAccumulator>,
    narrow: DataType,
}

impl GroupsAccumulator for WidenedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(&widen(values)?, groups, filter, total_groups)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        narrowed(&self.inner.evaluate(emit)?, &self.narrow)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.merge_batch(values, groups, filter, total_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&widen(values)?, filter)
    }

    fn supports_convert_to_state(&self) -> bool {
        self.inner.supports_convert_to_state()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// The same numbers in the type they are added up in.
fn widen(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    values.iter().map(widen_one).collect()
}

/// Totals in the type of the result.
fn narrowed(totals: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match to {
        DataType::Int64 => fitted::<Int64Type>(totals, to),
        DataType::UInt64 => fitted::<UInt64Type>(totals, to),
        DataType::Duration(TimeUnit::Second) => fitted::<DurationSecondType>(totals, to),
        DataType::Duration(TimeUnit::Millisecond) => fitted::<DurationMillisecondType>(totals, to),
        DataType::Duration(TimeUnit::Microsecond) => fitted::<DurationMicrosecondType>(totals, to),
        DataType::Duration(TimeUnit::Nanosecond) => fitted::<DurationNanosecondType>(totals, to),
        DataType::Decimal128(precision, scale) => {
            // The digits are the bound, not the bits: 128 bits hold numbers above 38 nines. 10^38 itself fits them.
            let limit = i256::from_i128(10_i128.pow(u32::from(*precision)));
            let totals = totals.as_primitive::<Decimal256Type>();
            let narrow: PrimitiveArray<Decimal128Type> = totals.try_unary(|total| match total.to_i128() {
                Some(narrow) if total < limit && total > -limit => Ok(narrow),
                _ => exec_err!("sum overflow: the total is out of range of {}", type_name(to)),
            })?;
            Ok(Arc::new(narrow.with_precision_and_scale(*precision, *scale)?))
        }
        // Arrow's cast gives NULL for what does not fit, which shows in the number of NULLs.
        other => match cast(totals, other) {
            Ok(narrow) if narrow.null_count() == totals.null_count() => Ok(narrow),
            _ => exec_err!("sum overflow: the total is out of range of {}", type_name(to)),
        },
    }
}

fn fitted<T>(totals: &ArrayRef, to: &DataType) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128>,
{
    let totals = totals.as_primitive::<Decimal128Type>();
    let narrow: PrimitiveArray<T> = totals.try_unary(|total| match T::Native::try_from(total) {
        Ok(narrow) => Ok(narrow),
        Err(_) => exec_err!(
            "sum overflow: the total {total} is out of range of {}; a sum of CAST(... AS DECIMAL(38, 0)) holds it",
            type_name(to)
        ),
    })?;
    Ok(Arc::new(narrow))
}
