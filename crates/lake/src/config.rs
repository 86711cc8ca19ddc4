//! The `[catalog]` and `[store]` sections of the configuration, shared by every program that opens the lake.

use serde::{Deserialize, Serialize};
use service_kit::config::{Secret, SecretUri};

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
