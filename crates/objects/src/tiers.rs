//! Which storage class the lifecycle rule of a bucket gives an object, and what classes cost. Pure: what S3 really did
//! is in [`crate::Storage`].
//!
//! The rule moves objects to S3 Glacier Instant Retrieval after a day and to S3 Glacier Deep Archive after a year,
//! where they carry the tag [`COMPLETE`]. Only files that a commit names carry it.

use serde::{Deserialize, Serialize};

/// The tag, name and value, without which the rule moves nothing.
pub const COMPLETE: (&str, &str) = ("processing_status", "complete");
/// S3 bills storage by 2^30 bytes (Amazon S3 pricing, "GB").
const GB: f64 = 1_073_741_824.0;
/// A lifecycle rule leaves smaller objects where they are (Amazon S3 User Guide, "Constraints and considerations for
/// transitions").
const LEAST_MOVED_BYTES: u64 = 128 << 10;
/// Each archived object has 8 KiB more in Standard and 32 KiB in its own class (User Guide, "S3 Glacier storage
/// classes").
const ARCHIVE_INDEX_BYTES: u64 = 8 << 10;
const ARCHIVE_OVERHEAD_BYTES: u64 = 32 << 10;
/// Days of a month, by which copies of archived objects are billed.
const MONTH_DAYS: f64 = 30.0;

/// Where S3 keeps an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageClass {
    Standard,
    /// S3 Glacier Instant Retrieval: read at once, and paid for by the byte.
    InstantRetrieval,
    /// S3 Glacier Flexible Retrieval, which no rule of ours uses.
    FlexibleRetrieval,
    DeepArchive,
    /// Any other, such as Standard-IA: read at once.
    Other,
}

impl StorageClass {
    /// The class by `x-amz-storage-class` of an answer, which S3 leaves out of Standard.
    pub fn of(header: Option<&str>) -> Self {
        match header {
            None | Some("STANDARD") => Self::Standard,
            Some("GLACIER_IR") => Self::InstantRetrieval,
            Some("GLACIER") => Self::FlexibleRetrieval,
            Some("DEEP_ARCHIVE") => Self::DeepArchive,
            Some(_) => Self::Other,
        }
    }

    /// Whether an object must be restored before it can be read.
    pub fn is_archive(self) -> bool {
        matches!(self, Self::FlexibleRetrieval | Self::DeepArchive)
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "S3 Standard",
            Self::InstantRetrieval => "Glacier Instant Retrieval",
            Self::FlexibleRetrieval => "Glacier Flexible Retrieval",
            Self::DeepArchive => "Glacier Deep Archive",
            Self::Other => "another class",
        }
    }
}

/// An object, as far as the rule looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its size.
    pub bytes: u64,
    /// Whole days since it was written.
    pub age_days: i64,
    /// Whether its table tiers (`tables::def::TableDef::tiers`).
    pub may_tier: bool,
    /// Whether it carries [`COMPLETE`].
    pub is_complete: bool,
}

/// When objects move, and what it costs. The rule of the bucket must have the same days.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tiers {
    /// Days until an object moves to Glacier Instant Retrieval.
    pub instant_after_days: u32,
    /// Days until it moves to Glacier Deep Archive.
    pub archive_after_days: u32,
    /// What classes cost.
    pub prices: Prices,
}

impl Default for Tiers {
    fn default() -> Self {
        Self { instant_after_days: 1, archive_after_days: 365, prices: Prices::default() }
    }
}

impl Tiers {
    /// The class that the rule gives. S3 applies rules once a day, so that an object may be a day behind.
    pub fn class(&self, object: &Object) -> StorageClass {
        if !object.may_tier || !object.is_complete || object.bytes < LEAST_MOVED_BYTES {
            return StorageClass::Standard;
        }
        if self.may_be_archived(object.age_days) {
            StorageClass::DeepArchive
        } else if object.age_days >= i64::from(self.instant_after_days) {
            StorageClass::InstantRetrieval
        } else {
            StorageClass::Standard
        }
    }

    /// Whether an object of this age may lie in the archive.
    pub fn may_be_archived(&self, age_days: i64) -> bool {
        age_days >= i64::from(self.archive_after_days)
    }
}

/// How a copy of an archived object is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// Within 48 hours.
    Bulk,
    /// Within 12 hours.
    Standard,
}

impl Speed {
    /// The name in `RestoreObject`.
    pub fn tier(self) -> &'static str {
        match self {
            Self::Bulk => "Bulk",
            Self::Standard => "Standard",
        }
    }

    /// How long S3 takes for Deep Archive at most, hours (User Guide, "Archive retrieval options").
    pub fn hours(self) -> u32 {
        match self {
            Self::Bulk => 48,
            Self::Standard => 12,
        }
    }
}

/// What a class costs, US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassPrices {
    /// A GB (2^30 bytes) for a month.
    pub gb_month: f64,
    /// A GB that is read.
    pub retrieval_gb: f64,
    /// 1,000 reads (GET).
    pub thousand_reads: f64,
}

/// What restoring costs, US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RestorePrices {
    /// A GB that is restored.
    pub gb: f64,
    /// 1,000 objects that are restored.
    pub thousand_objects: f64,
}

const STANDARD: ClassPrices = ClassPrices { gb_month: 0.023, retrieval_gb: 0.0, thousand_reads: 0.0004 };
const INSTANT: ClassPrices = ClassPrices { gb_month: 0.004, retrieval_gb: 0.03, thousand_reads: 0.01 };
const BULK: RestorePrices = RestorePrices { gb: 0.0025, thousand_objects: 0.025 };

/// What classes cost, US dollars without tax. The defaults are those of the public price list of Amazon S3 for
/// us-east-1 (<https://aws.amazon.com/s3/pricing/>, June 2026), the first 50 TB of a month; requests of other kinds and
/// traffic out of the region are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prices {
    /// S3 Standard.
    pub standard: ClassPrices,
    /// Glacier Instant Retrieval.
    pub instant: ClassPrices,
    /// A GB for a month in Deep Archive.
    pub archive_gb_month: f64,
    /// Restoring within 48 hours.
    pub bulk: RestorePrices,
    /// Restoring within 12 hours.
    pub within_hours: RestorePrices,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            standard: STANDARD,
            instant: INSTANT,
            archive_gb_month: 0.000_99,
            bulk: BULK,
            within_hours: RestorePrices { gb: 0.02, thousand_objects: 0.10 },
        }
    }
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / GB
}

fn thousands(count: u64) -> f64 {
    count as f64 / 1_000.0
}

impl Prices {
    /// What an object costs for a month; `None` in a class without a price here.
    pub fn month(&self, class: StorageClass, bytes: u64) -> Option<f64> {
        match class {
            StorageClass::Standard => Some(gb(bytes) * self.standard.gb_month),
            // Billed as if it had this size at least.
            StorageClass::InstantRetrieval => Some(gb(bytes.max(LEAST_MOVED_BYTES)) * self.instant.gb_month),
            StorageClass::DeepArchive => {
                let own = gb(bytes + ARCHIVE_OVERHEAD_BYTES) * self.archive_gb_month;
                Some(own + gb(ARCHIVE_INDEX_BYTES) * self.standard.gb_month)
            }
            StorageClass::FlexibleRetrieval | StorageClass::Other => None,
        }
    }

    /// What a query that reads objects whole costs, each with some requests; `None` where they cannot be read as they
    /// are, or have no price here.
    pub fn query(&self, class: StorageClass, bytes: u64, reads: u64) -> Option<f64> {
        let prices = match class {
            StorageClass::Standard => self.standard,
            StorageClass::InstantRetrieval => self.instant,
            StorageClass::FlexibleRetrieval | StorageClass::DeepArchive | StorageClass::Other => return None,
        };
        Some(gb(bytes) * prices.retrieval_gb + thousands(reads) * prices.thousand_reads)
    }

    /// What copies of objects in Deep Archive cost, kept for some days beside the archived objects.
    pub fn restore(&self, speed: Speed, bytes: u64, objects: u64, days: u32) -> f64 {
        let prices = match speed {
            Speed::Bulk => self.bulk,
            Speed::Standard => self.within_hours,
        };
        let copies = gb(bytes) * self.standard.gb_month * f64::from(days) / MONTH_DAYS;
        gb(bytes) * prices.gb + thousands(objects) * prices.thousand_objects + copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn object(age_days: i64) -> Object {
        Object { bytes: GIB, age_days, may_tier: true, is_complete: true }
    }

    #[test]
    fn the_rule_moves_complete_objects_of_tables_that_tier_by_their_age() {
        let rule = Tiers::default();
        for (age_days, class) in [
            (-1, StorageClass::Standard),
            (0, StorageClass::Standard),
            (1, StorageClass::InstantRetrieval),
            (364, StorageClass::InstantRetrieval),
            (365, StorageClass::DeepArchive),
        ] {
            assert_eq!(rule.class(&object(age_days)), class, "{age_days}");
        }
        let old = object(1_000);
        for stays in [
            Object { may_tier: false, ..old },
            Object { is_complete: false, ..old },
            Object { bytes: LEAST_MOVED_BYTES - 1, ..old },
        ] {
            assert_eq!(rule.class(&stays), StorageClass::Standard, "{stays:?}");
        }
    }

    #[test]
    fn a_month_a_query_and_a_restore_cost_what_the_price_list_says() {
        let prices = Prices::default();
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        close(prices.month(StorageClass::Standard, 1_000 * GIB).unwrap(), 23.0);
        close(prices.month(StorageClass::InstantRetrieval, 1_000 * GIB).unwrap(), 4.0);
        // Small objects are billed as larger ones.
        close(prices.month(StorageClass::InstantRetrieval, 1).unwrap(), 0.004 / 8_192.0);
        let index = 0.023 / 131_072.0 + 0.000_99 / 32_768.0;
        close(prices.month(StorageClass::DeepArchive, 1_000 * GIB).unwrap(), 0.99 + index);
        close(prices.query(StorageClass::Standard, 1_000 * GIB, 10_000).unwrap(), 0.004);
        close(prices.query(StorageClass::InstantRetrieval, 1_000 * GIB, 10_000).unwrap(), 30.1);
        assert_eq!(prices.query(StorageClass::DeepArchive, GIB, 1), None);
        close(prices.restore(Speed::Bulk, 1_000 * GIB, 2_000, 3), 2.5 + 0.05 + 2.3);
        close(prices.restore(Speed::Standard, 1_000 * GIB, 2_000, 30), 20.0 + 0.2 + 23.0);
    }

    #[test]
    fn classes_are_known_by_the_names_of_s3() {
        let headers = [None, Some("GLACIER_IR"), Some("GLACIER"), Some("DEEP_ARCHIVE"), Some("STANDARD_IA")];
        assert_eq!(headers.map(|header| StorageClass::of(header).is_archive()), [false, false, true, true, false]);
        assert_eq!(StorageClass::of(None), StorageClass::Standard);
    }
}
