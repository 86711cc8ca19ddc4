//! Durations and sizes as people write them: `250ms`, `5m`, `64 MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration written `250ms`, `30s`, `1h 30m`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| format!("`{text}` is not a duration: write one as `250ms`, `30s`, `5m`, `12h` or `7d`"))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes written `512`, `64KiB`, `1.5 GiB`, `10MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Unit names with their sizes, largest first within each family.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes_of(text).ok_or_else(|| format!("`{text}` is not a size: write one as `512`, `64KiB`, `128MiB` or `10GB`"))
    }
}

/// The size that a text gives; `None` where it gives none, or one that is too large.
fn bytes_of(text: &str) -> Option<ByteSize> {
    let trimmed = text.trim();
    let number_bytes = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(number_bytes);
    let unit = unit.trim();
    let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor);
    let factor = if unit.is_empty() { 1 } else { factor? };
    // Whole numbers are computed exactly; only a fraction goes through a float.
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).map(ByteSize);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // Beyond 2^53 (about 9.007e15) a float no longer holds every whole number of bytes.
    (bytes < 9e15).then(|| ByteSize(rounded(bytes)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size that was parsed is not negative, and its caller has bounded it"
)]
fn rounded(bytes: f64) -> u64 {
    bytes.round() as u64
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that divides the number: what `config show` prints is read back as the same number (ADR 44).
        let exact = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (name, factor) = exact.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// Read from text (or, for sizes, a plain number), written as text.
macro_rules! written_as_text {
    ($kind:ident, $expecting:literal, $($number:ident)?) => {
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $kind;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$kind, E> {
                        text.parse().map_err(E::custom)
                    }
                    $(
                        fn visit_u64<E: de::Error>(self, $number: u64) -> Result<$kind, E> {
                            Ok($kind($number))
                        }

                        fn visit_i64<E: de::Error>(self, $number: i64) -> Result<$kind, E> {
                            u64::try_from($number).map($kind).map_err(|_| E::custom("is negative"))
                        }
                    )?
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

written_as_text!(HumanDuration, "a duration such as `250ms` or `5m`",);
written_as_text!(ByteSize, "a size such as `64MiB`", bytes);
