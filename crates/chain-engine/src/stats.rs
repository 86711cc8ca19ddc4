//! Order statistics, which a few outliers among ranks, iterations or calls hardly change.

/// The median absolute deviation times this estimates the standard deviation of normally distributed values: it is the
/// reciprocal of the third quartile of the standard normal distribution, 1 / 0.67449 (Rousseeuw and Croux,
/// "Alternatives to the Median Absolute Deviation", JASA 88, 1993).
pub(crate) const MAD_TO_SIGMA: f64 = 1.4826;

/// The middle value, or the mean of the two middle ones.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let is_even = values.len().is_multiple_of(2);
    // Quickselect: linear time, where sorting would order values that are not needed.
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if !is_even {
        return Some(upper);
    }
    // Of an even number, the lower of the two middle values is the largest one below the pivot.
    below.iter().copied().max_by(f64::total_cmp).map(|lower| f64::midpoint(lower, upper))
}

/// The whole part of a value; the nearest `i64` where it is beyond them, and 0 for NaN.
#[expect(clippy::cast_possible_truncation, reason = "`as` cuts the fraction off and saturates, which is meant")]
pub(crate) fn whole(value: f64) -> i64 {
    value as i64
}

/// The smallest value that at least this share of the values do not exceed (nearest rank, rounded up).
pub(crate) fn percentile(values: &mut [i64], share: f64) -> Option<i64> {
    let rank = usize::try_from(whole((share * values.len() as f64).ceil())).unwrap_or(0);
    // Of no values, and for a share of 0, no value is at the rank.
    let index = rank.checked_sub(1).filter(|index| *index < values.len())?;
    Some(*values.select_nth_unstable(index).1)
}

#[cfg(test)]
mod tests;
