//! Times: literals as the usual tools write them, zones that are checked before anything runs, and local times that a
//! clock change skips.

use std::sync::Arc;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::types::{
    ArrowTimestampType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::arrow::temporal_conversions::as_datetime;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::text::answer;

/// The function behind `AT TIME ZONE`.
pub(super) const AT_TIMEZONE: &str = "at_timezone";

/// A timestamp literal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Instant {
    stored: NaiveDateTime,
    zone: Option<String>,
}

impl Instant {
    /// The time in UTC, or as it is written where no zone is.
    pub(super) fn stored(&self) -> NaiveDateTime {
        self.stored
    }

    /// The zone that is written with it.
    pub(super) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Whether 64 bits of nanoseconds hold it: years 1678 to 2261.
    pub(super) fn fits_nanoseconds(&self) -> bool {
        self.stored.and_utc().timestamp_nanos_opt().is_some()
    }

    /// Whether microseconds hold it without loss.
    pub(super) fn fits_microseconds(&self) -> bool {
        self.stored.and_utc().timestamp_subsec_nanos().is_multiple_of(1_000)
    }
}

/// Reads a timestamp: a date, optionally a time with or without seconds, and optionally an offset or the name of a
/// zone.
///
/// # Errors
/// Why the text is no timestamp.
pub(super) fn parse_timestamp(text: &str) -> Result<Instant, String> {
    let trimmed = text.trim();
    // The first character may be the sign of a year; digits and hyphens belong to the date.
    let date_end = trimmed.char_indices().skip(1).find(|(_, c)| !c.is_ascii_digit() && *c != '-');
    let (date, rest) = trimmed.split_at(date_end.map_or(trimmed.len(), |(at, _)| at));
    let date = parse_date(date).ok_or_else(|| no_timestamp(text, "its date is not in the calendar"))?;
    // ISO 8601 puts a `T` between date and time, SQL a space.
    let rest = rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start();
    let time_end = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(rest.len());
    let (time, zone) = rest.split_at(time_end);
    let time = match time {
        // A date alone is its midnight.
        "" => NaiveTime::MIN,
        time => parse_time(time).ok_or_else(|| no_timestamp(text, "its time is not one of the day"))?,
    };
    let local = date.and_time(time);
    let zone = zone.trim();
    if zone.is_empty() {
        return Ok(Instant { stored: local, zone: None });
    }
    let (name, zone) = parse_zone(zone).map_err(|problem| no_timestamp(text, &problem))?;
    Ok(Instant { stored: to_utc(local, &zone, &name)?, zone: Some(name) })
}

fn no_timestamp(text: &str, why: &str) -> String {
    format!(
        "`{text}` is no timestamp: {why}; write it as 2026-04-03 12:18:00, with an offset or a zone after it where wanted"
    )
}

/// A time as a literal holds it.
pub(super) fn literal_text(time: &NaiveDateTime) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.f").to_string()
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut parts = digits.split('-');
    let year = parts.next()?;
    let month = parts.next()?;
    let day = parts.next()?;
    // Two digits would be ambiguous. Six hold every year of chrono's calendar. Months and days may have one digit.
    if parts.next().is_some() || !(4..=6).contains(&year.len()) || !is_short(month) || !is_short(day) {
        return None;
    }
    let year: i32 = year.parse().ok()?;
    NaiveDate::from_ymd_opt(if negative { -year } else { year }, month.parse().ok()?, day.parse().ok()?)
}

fn parse_time(text: &str) -> Option<NaiveTime> {
    let (clock, fraction) = text.split_once('.').map_or((text, ""), |(clock, fraction)| (clock, fraction));
    let mut parts = clock.split(':');
    let hour = parts.next()?;
    let minute = parts.next()?;
    let second = parts.next();
    let is_whole = parts.next().is_none() && [hour, minute].into_iter().chain(second).all(is_short);
    // Nanoseconds are the finest unit: a tenth digit is refused and not dropped. Only seconds have a fraction.
    if !is_whole || fraction.len() > 9 || (second.is_none() && text.contains('.')) {
        return None;
    }
    // Padded on the right: `.5` is 500,000,000 ns.
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    NaiveTime::from_hms_nano_opt(hour.parse().ok()?, minute.parse().ok()?, second.unwrap_or("0").parse().ok()?, nanos)
}

fn is_short(digits: &str) -> bool {
    (1..=2).contains(&digits.len())
}

/// A zone by its offset or its name, and how the engine writes it.
///
/// # Errors
/// There is no such zone.
pub(super) fn parse_zone(text: &str) -> Result<(String, Tz), String> {
    // ISO 8601 writes `Z` for UTC, which is no name of the IANA database.
    let name = if text.eq_ignore_ascii_case("z") { "+00:00" } else { text };
    match name.parse::<Tz>() {
        Ok(zone) => Ok((name.to_owned(), zone)),
        Err(_) => Err(format!(
            "`{text}` is not a time zone: use a name of the IANA database such as Europe/Berlin, or an offset such as +02:00"
        )),
    }
}

/// A local time in UTC. One that comes twice is the earlier of the two, as in Trino.
///
/// # Errors
/// The clocks skip it.
pub(super) fn to_utc(local: NaiveDateTime, zone: &Tz, name: &str) -> Result<NaiveDateTime, String> {
    // In autumn an hour comes twice and has two offsets, in spring one is skipped and has none.
    match zone.offset_from_local_datetime(&local).earliest() {
        Some(offset) => match local.checked_sub_offset(offset.fix()) {
            Some(utc) => Ok(utc),
            None => Err(format!("the local time {local} in {name} lies beyond the calendar")),
        },
        None => Err(format!("the local time {local} does not exist in {name}: the clocks skip it")),
    }
}

/// The function behind `AT TIME ZONE`.
pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(AtTimeZone { signature: Signature::user_defined(Volatility::Immutable) }))
}

/// A time with a zone shown in another zone; a time without one is interpreted as a local time of the zone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        AT_TIMEZONE
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        // The zone is part of the type, which one column has for all of its rows.
        let [time, Expr::Literal(zone, _)] = args else {
            return plan_err!("the zone of AT TIME ZONE must be a literal");
        };
        Ok(format!("{} AT TIME ZONE '{zone}'", time.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        exec_err!("the type of AT TIME ZONE depends on its zone")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [time, _] = args.arg_fields else { return plan_err!("AT TIME ZONE takes a time and a zone") };
        let [_, zone] = args.scalar_arguments else { return plan_err!("AT TIME ZONE takes a time and a zone") };
        let Some(zone) = zone.and_then(|zone| zone.try_as_str()).flatten() else {
            return plan_err!("the zone of AT TIME ZONE must be a literal");
        };
        let unit = match time.data_type() {
            // A local time keeps its unit; everything else becomes nanoseconds, as in the engine's own AT TIME ZONE.
            DataType::Timestamp(unit, None) => *unit,
            _ => TimeUnit::Nanosecond,
        };
        match parse_zone(zone) {
            Ok((name, _)) => {
                Ok(Arc::new(Field::new(AT_TIMEZONE, DataType::Timestamp(unit, Some(name.into())), time.is_nullable())))
            }
            Err(problem) => plan_err!("{problem}"),
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [time @ DataType::Timestamp(..), _] => Ok(vec![time.clone(), DataType::Utf8]),
            [DataType::Null | DataType::Date32 | DataType::Utf8 | DataType::Utf8View, _] => {
                Ok(vec![DataType::Timestamp(TimeUnit::Nanosecond, None), DataType::Utf8])
            }
            [other, _] => plan_err!("AT TIME ZONE takes a timestamp, not {}", super::kinds::type_name(other)),
            _ => plan_err!("AT TIME ZONE takes a time and a zone"),
        }
    }

    /// A time that has a zone becomes a cast, which other rules of the optimizer support.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let [time, Expr::Literal(zone, _)] = &args[..] else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let is_zoned = matches!(info.get_data_type(time)?, DataType::Timestamp(_, Some(_)));
        let name = zone.try_as_str().flatten().and_then(|zone| parse_zone(zone).ok());
        match name {
            // The same instant under another zone, which no clock change can skip, so that a plain cast is enough.
            Some((name, _)) if is_zoned => {
                let to = DataType::Timestamp(TimeUnit::Nanosecond, Some(name.into()));
                Ok(ExprSimplifyResult::Simplified(Expr::Cast(Cast::new(Box::new(time.clone()), to))))
            }
            _ => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, _] = &args.args[..] else {
            return exec_err!("AT TIME ZONE takes a time and a zone");
        };
        let is_constant = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if is_constant { 1 } else { args.number_rows })?;
        let zoned = match times.data_type() {
            DataType::Timestamp(TimeUnit::Second, None) => in_zone::<TimestampSecondType>(&times, args.return_type())?,
            DataType::Timestamp(TimeUnit::Millisecond, None) => {
                in_zone::<TimestampMillisecondType>(&times, args.return_type())?
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                in_zone::<TimestampMicrosecondType>(&times, args.return_type())?
            }
            DataType::Timestamp(TimeUnit::Nanosecond, None) => {
                in_zone::<TimestampNanosecondType>(&times, args.return_type())?
            }
            // Zoned already. `safe: false` fails where a safe cast would give NULL.
            _ => cast_with_options(&times, args.return_type(), &CastOptions { safe: false, ..CastOptions::default() })?,
        };
        answer(zoned, is_constant)
    }
}

/// Local times of a zone as times in UTC.
fn in_zone<T: ArrowTimestampType>(times: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let DataType::Timestamp(_, Some(name)) = to else {
        return exec_err!("AT TIME ZONE needs a zone");
    };
    let (name, zone) = match parse_zone(name) {
        Ok(parsed) => parsed,
        Err(problem) => return exec_err!("{problem}"),
    };
    let shifted: PrimitiveArray<T> = times.as_primitive::<T>().try_unary(|time| in_utc::<T>(time, &zone, &name))?;
    // The numbers are in UTC by now; this declares the zone and moves nothing.
    Ok(Arc::new(shifted.with_timezone(name.as_str())))
}

/// One local time of a zone as a time in UTC.
pub(super) fn in_utc<T: ArrowTimestampType>(time: i64, zone: &Tz, name: &str) -> Result<i64> {
    let Some(local) = as_datetime::<T>(time) else {
        return exec_err!("a time lies beyond the calendar");
    };
    match to_utc(local, zone, name) {
        Ok(utc) => match T::from_naive_datetime(utc, None) {
            Some(time) => Ok(time),
            None => exec_err!("the local time {local} in {name} lies beyond the range of its type"),
        },
        Err(problem) => exec_err!("{problem}"),
    }
}
