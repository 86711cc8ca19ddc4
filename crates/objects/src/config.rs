//! The `[store]` section of the configuration, shared by every program that opens the warehouse.

use serde::{Deserialize, Serialize};
use service_kit::config::{Problem, Secret};

use crate::tiers::Tiers;

/// Where and how to reach S3. Keys that are absent come from the environment (`AWS_…`, instance or web identity).
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// Base URL of an S3-compatible server; AWS itself when absent. `http://` is accepted only here.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when absent.
    pub region: Option<String>,
    /// From the environment when absent.
    pub access_key_id: Option<String>,
    /// Belongs to the access key; from the environment when absent.
    pub secret_access_key: Option<Secret<String>>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most servers that are not AWS need it.
    pub path_style: bool,
    /// `[store.tiers]`: when the rule of the bucket moves objects, and what classes cost.
    pub tiers: Tiers,
}

/// The `[store]` section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// `/absolute/path`, `file:///absolute/path` or `s3://bucket/prefix`.
    pub warehouse: String,
    /// Base URL of an S3-compatible server; AWS itself when absent.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when absent.
    pub region: Option<String>,
    /// Absent: from the environment (`AWS_…`, instance or web identity).
    pub access_key_id: Option<String>,
    /// Belongs to the access key; from the environment when absent.
    pub secret_access_key: Option<Secret<String>>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most servers that are not AWS need it.
    pub path_style: bool,
    /// `[store.tiers]`: when the rule of the bucket moves objects, and what classes cost.
    pub tiers: Tiers,
}

impl StoreConfig {
    /// What is wrong with the section of a program that requires a warehouse.
    pub fn problem(&self) -> Option<Problem> {
        for scheme in ["/", "file:///", "s3://"] {
            // A scheme alone names no place.
            if self.warehouse.len() > scheme.len() && self.warehouse.starts_with(scheme) {
                return None;
            }
        }
        let verb = if self.warehouse.is_empty() { "must name the" } else { "is no" };
        Some(Problem::new("store.warehouse", format!("{verb} warehouse: `/path` or `s3://bucket/prefix`")))
    }

    /// How to reach S3; `None` for a warehouse in a directory.
    pub fn s3_options(&self) -> Option<S3Options> {
        self.warehouse.starts_with("s3://").then(|| S3Options {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            path_style: self.path_style,
            tiers: self.tiers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warehouse_that_names_no_place_is_refused() {
        for (warehouse, what) in [
            ("", "must name the warehouse: `/path` or `s3://bucket/prefix`"),
            ("rel/ative", "is no warehouse: `/path` or `s3://bucket/prefix`"),
            ("s3://", "is no warehouse: `/path` or `s3://bucket/prefix`"),
        ] {
            let store = StoreConfig { warehouse: warehouse.to_owned(), ..StoreConfig::default() };
            assert_eq!(store.problem(), Some(Problem::new("store.warehouse", what)), "{warehouse}");
        }
        for warehouse in ["/w", "file:///w", "s3://b/p"] {
            let store = StoreConfig { warehouse: warehouse.to_owned(), ..StoreConfig::default() };
            assert_eq!(store.problem(), None, "{warehouse}");
            assert_eq!(store.s3_options().is_some(), warehouse == "s3://b/p");
        }
    }
}
