//! The `[catalog]` and `[store]` sections of the configuration, shared by every program that opens the lake.

use serde::{Deserialize, Serialize, Serializer};

use crate::open::LakeOptions;
use crate::store::S3Options;

/// The `[catalog]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogConfig {
    /// `sqlite:///absolute/path/catalog.sqlite` or `postgres://user:password@host/database`.
    #[serde(serialize_with = "without_password")]
    pub uri: String,
}

/// The `[store]` section.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// `/absolute/path`, `file:///absolute/path` or `s3://bucket/prefix`.
    pub warehouse: String,
    /// Base URL of an S3-compatible server; AWS itself when absent.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Absent: from the environment (`AWS_…`, instance or web identity).
    pub access_key_id: Option<String>,
    #[serde(serialize_with = "masked")]
    pub secret_access_key: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; most servers that are not AWS need it.
    pub path_style: bool,
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig")
            .field("warehouse", &self.warehouse)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
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
    LakeOptions { catalog_uri: catalog.uri.clone(), warehouse: store.warehouse.clone(), s3 }
}

fn masked<S: Serializer>(secret: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "********").serialize(serializer)
}

/// `config show` must not tell the password in a URI.
fn without_password<S: Serializer>(uri: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let hidden = url::Url::parse(uri).ok().filter(|u| u.password().is_some()).and_then(|mut u| {
        u.set_password(Some("********")).ok()?;
        Some(u.to_string())
    });
    serializer.serialize_str(hidden.as_deref().unwrap_or(uri))
}
