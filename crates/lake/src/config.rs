//! The `[catalog]` section of the configuration, and the lake's place from it and the `[store]` section of `objects`.

use objects::config::StoreConfig;
use serde::{Deserialize, Serialize};
use service_kit::config::{Problem, SecretUri};

use crate::open::LakeOptions;

/// The `[catalog]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogConfig {
    /// `sqlite:///absolute/path/catalog.sqlite` or `postgres://user:password@host/database`.
    pub uri: SecretUri,
}

/// What is wrong with the two sections of a program that requires a lake.
pub fn problems(catalog: &CatalogConfig, store: &StoreConfig) -> Vec<Problem> {
    catalog.problem().into_iter().chain(store.problem()).collect()
}

impl CatalogConfig {
    fn problem(&self) -> Option<Problem> {
        let uri = self.uri.expose();
        // Without `memory:`: a service would lose its tables when it ends.
        let schemes = ["sqlite://", "postgres://", "postgresql://"];
        if schemes.iter().any(|scheme| uri.len() > scheme.len() && uri.starts_with(scheme)) {
            return None;
        }
        let verb = if uri.is_empty() { "must name the" } else { "is no" };
        let what = format!("{verb} catalog: `sqlite:///path/catalog.sqlite` or `postgres://…`");
        Some(Problem::new("catalog.uri", what))
    }
}

/// Where the lake is, from the two sections.
pub fn lake_options(catalog: &CatalogConfig, store: &StoreConfig) -> LakeOptions {
    LakeOptions {
        catalog_uri: catalog.uri.expose().to_owned(),
        warehouse: store.warehouse.clone(),
        s3: store.s3_options(),
    }
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
