//! The `[catalog]` and `[store]` sections of the configuration, shared by every program that opens the lake.

use serde::{Deserialize, Serialize};
use service_kit::config::{Problem, Secret, SecretUri};

use crate::open::LakeOptions;
use crate::store::S3Options;

/// The `[catalog]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogConfig {
    /// `sqlite:///absolute/path/catalog.sqlite` or `postgres://user:password@host/database`.
    pub uri: SecretUri,
}

/// The `[store]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// `/absolute/path`, `file:///absolute/path` or `s3://bucket/prefix`.
    pub warehouse: String,
    /// Base URL of an S3-compatible server; AWS itself when absent.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Absent: from the environment (`AWS_…`, instance or web identity).
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret<String>>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most servers that are not AWS need it.
    pub path_style: bool,
}

/// What is wrong with the two sections of a program that cannot do without a lake.
pub fn problems(catalog: &CatalogConfig, store: &StoreConfig) -> Vec<Problem> {
    let begins = |text: &str, with: &[&str]| with.iter().any(|with| text.len() > with.len() && text.starts_with(with));
    let uri = catalog.uri.expose();
    let is_catalog = begins(uri, &["sqlite://", "postgres://", "postgresql://"]);
    let is_warehouse = begins(&store.warehouse, &["/", "file:///", "s3://"]);
    let what =
        |text: &str, is: &str| if text.is_empty() { format!("must name the {is}") } else { format!("is no {is}") };
    let rules = [
        (is_catalog, "catalog.uri", what(uri, "catalog: `sqlite:///path/catalog.sqlite` or `postgres://…`")),
        (is_warehouse, "store.warehouse", what(&store.warehouse, "warehouse: `/path` or `s3://bucket/prefix`")),
    ];
    rules.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, what)| Problem::new(key, what)).collect()
}

/// Where the lake is, from the two sections.
pub fn lake_options(catalog: &CatalogConfig, store: &StoreConfig) -> LakeOptions {
    let s3 = store.warehouse.starts_with("s3://").then(|| S3Options {
        endpoint: store.endpoint.clone(),
        region: store.region.clone(),
        access_key_id: store.access_key_id.clone(),
        secret_access_key: store.secret_access_key.clone(),
        path_style: store.path_style,
    });
    LakeOptions { catalog_uri: catalog.uri.expose().to_owned(), warehouse: store.warehouse.clone(), s3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_that_cannot_be_opened_is_refused_before_it_is_tried() {
        let found = |uri: &str, warehouse: &str| {
            let store = StoreConfig { warehouse: warehouse.to_owned(), ..StoreConfig::default() };
            let problems = problems(&CatalogConfig { uri: uri.to_owned().into() }, &store);
            problems.iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found("", ""), ["catalog.uri", "store.warehouse"]);
        assert_eq!(found("mysql://db", "rel/ative"), ["catalog.uri", "store.warehouse"]);
        assert_eq!(found("sqlite://", "s3://"), ["catalog.uri", "store.warehouse"]);
        for (uri, warehouse) in
            [("sqlite:///c", "/w"), ("postgres://h/d", "s3://b/p"), ("postgresql://h/d", "file:///w")]
        {
            assert!(found(uri, warehouse).is_empty(), "{uri} {warehouse}");
        }
    }
}
