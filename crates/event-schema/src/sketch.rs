//! A mergeable quantile sketch with 1 % relative error: DDSketch (Masson, Rim, Lee, VLDB 2019) with fixed buckets.
//!
//! Bucket `k` holds values in `(GAMMA^(k-1), GAMMA^k]`; zero has its own. Merging adds counts, so any order of merging
//! gives the same sketch and, because the encoding is canonical, the same bytes. Nothing is ever collapsed: 63 bits of
//! nanoseconds are at most 2,185 buckets.

use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Relative error of a quantile.
pub const RELATIVE_ERROR: f64 = 0.01;
const GAMMA: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);
const FORMAT: u8 = 1;
/// The bucket of the largest value, `i64::MAX`.
const BUCKET_MAX: u16 = 2_184;

/// Counts by logarithmic bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch {
    zeros: u64,
    buckets: BTreeMap<u16, u64>,
}

/// The bytes are not a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes at {at} are not those of a quantile sketch")]
pub struct SketchError {
    /// Position of the byte that does not fit, from 0.
    pub at: usize,
}

impl Sketch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value `count` times. Negative values count as zero: durations cannot be negative.
    pub fn add(&mut self, value: i64, count: u64) {
        // A bucket without values has no encoding (`from_bytes`).
        if count == 0 {
            return;
        }
        let held = if value <= 0 { &mut self.zeros } else { self.buckets.entry(bucket_of(value)).or_default() };
        // Saturating: weights come from the wire, and a wrapped count would be a plausible wrong one.
        *held = held.saturating_add(count);
    }

    /// Adds all values of another sketch.
    pub fn merge(&mut self, other: &Self) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        for (bucket, count) in &other.buckets {
            let held = self.buckets.entry(*bucket).or_default();
            *held = held.saturating_add(*count);
        }
    }

    pub fn count(&self) -> u64 {
        self.buckets.values().fold(self.zeros, |sum, count| sum.saturating_add(*count))
    }

    /// How many values each bucket holds, in order of value; `None` is the bucket of zero.
    pub fn counts(&self) -> impl Iterator<Item = (Option<u16>, u64)> {
        let zeros = (self.zeros > 0).then_some((None, self.zeros));
        zeros.into_iter().chain(self.buckets.iter().map(|(bucket, count)| (Some(*bucket), *count)))
    }

    /// The value at quantile `q` in `0..=1` (nearest rank), within [`RELATIVE_ERROR`]; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        // Counts beyond 2^53 lose their last digits in an `f64`; the second clamp keeps the rank in range.
        let rank = whole((q.clamp(0.0, 1.0) * count as f64).ceil()).clamp(1, count);
        let mut seen = self.zeros;
        if seen >= rank {
            return Some(0.0);
        }
        // A cumulative sum in order of value, which is the order of the map.
        for (bucket, count) in &self.buckets {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return Some(middle_of(*bucket));
            }
        }
        None
    }

    /// The canonical bytes: format, zeros, then bucket distances and counts, all as LEB128.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put(&mut out, self.zeros);
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            // Delta coding: keys rise, so that the difference is not negative, and most fit in one byte.
            put(&mut out, u64::from(bucket - before));
            put(&mut out, *count);
            before = *bucket;
        }
        out
    }

    /// Reads [`Self::to_bytes`].
    ///
    /// # Errors
    /// When the bytes are cut off, of another format, or not canonical.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        if bytes.first() != Some(&FORMAT) {
            return Err(SketchError { at: 0 });
        }
        let mut at = 1;
        let zeros = take(bytes, &mut at)?;
        let mut sketch = Self { zeros, buckets: BTreeMap::new() };
        let mut bucket: u16 = 0;
        while at < bytes.len() {
            let start = at;
            let step = u16::try_from(take(bytes, &mut at)?).map_err(|_| SketchError { at: start })?;
            let count = take(bytes, &mut at)?;
            // No value has a higher bucket, and the middle of one may be infinite.
            let next = bucket.checked_add(step).filter(|next| *next <= BUCKET_MAX);
            bucket = next.ok_or(SketchError { at: start })?;
            // A bucket twice, or one without values, is never written: accepted, one sketch would have several
            // encodings.
            if sketch.buckets.insert(bucket, count).is_some() || count == 0 {
                return Err(SketchError { at: start });
            }
        }
        Ok(sketch)
    }
}

fn bucket_of(value: i64) -> u16 {
    // The index of DDSketch: the logarithm to the base `GAMMA`, rounded up. 1 ns falls in bucket 0.
    let index = whole(((value as f64).ln() / GAMMA.ln()).ceil());
    u16::try_from(index).unwrap_or(BUCKET_MAX).min(BUCKET_MAX)
}

/// A number without a fraction; the nearest there is where it is negative or too large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there is no other conversion of a float: `as` saturates, which is what is wanted"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// The value of a bucket that is within the relative error of all others in it.
fn middle_of(bucket: u16) -> f64 {
    // Lower and upper end of the bucket are the same relative distance from it, which is how DDSketch keeps its bound.
    2.0 * GAMMA.powi(i32::from(bucket)) / (GAMMA + 1.0)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    // LEB128: seven bits in a byte, low ones first, the high bit set on all but the last.
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    // What is left has seven bits.
    out.push((value & 0x7f) as u8);
}

fn take(bytes: &[u8], at: &mut usize) -> Result<u64, SketchError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(SketchError { at: *at })?;
        // `put` never ends a number with a byte without bits: accepted, it would have several encodings. The tenth byte
        // has room for one bit of a `u64`; more would be lost.
        if (shift > 0 && byte == 0) || (shift == 63 && byte > 1) {
            break;
        }
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(SketchError { at: *at })
}
