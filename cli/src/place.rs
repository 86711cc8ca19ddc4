//! Which lake a command works on: a directory (`--data`), or what a configuration file names.

use std::path::PathBuf;

use clap::Args;
use inbox::config::BulkConfig;
use lake::config::{CatalogConfig, lake_options};
use lake::{Lake, OpenError};
use objects::config::StoreConfig;
use serde::{Deserialize, Serialize};
use service_kit::config::{ConfigError, ConfigSource, Problem, Settings};
use service_kit::run::{Exit, Fatal};
use stream::kafka::KafkaConfig;

use crate::embedded::{DEFAULT_DIR, DataDir, EmbeddedError};

/// The flag of commands that touch the lake themselves.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// Embedded lake to work on [default: ./causeway-data, unless a configuration names catalog and store]
    #[arg(long, value_name = "DIR", env = "CAUSEWAY_DATA")]
    data: Option<PathBuf>,
}

/// The sections that locate a lake.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remote {
    pub(crate) kafka: KafkaConfig,
    pub(crate) catalog: CatalogConfig,
    pub(crate) store: StoreConfig,
    pub(crate) bulk: BulkConfig,
}

impl Settings for Remote {
    fn validate(&self) -> Vec<Problem> {
        // Both or none: none is the embedded lake.
        match (self.catalog.uri.is_empty(), self.store.warehouse.is_empty()) {
            (true, false) => vec![Problem::new("catalog.uri", "must name the catalog of `store.warehouse`")],
            (false, true) => vec![Problem::new("store.warehouse", "must name the warehouse of `catalog.uri`")],
            (true, true) => Vec::new(),
            (false, false) => lake::config::problems(&self.catalog, &self.store),
        }
    }
}

/// A lake, not yet opened.
#[derive(Debug)]
pub(crate) enum Place {
    Embedded(EmbeddedPlace),
    Remote(Box<Remote>),
}

#[derive(Debug)]
pub(crate) struct EmbeddedPlace(PathBuf);

/// Why there is no lake to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(
        "the configuration names no catalog: set `catalog.uri` and `store.warehouse`, or name a directory with --data"
    )]
    NoCatalog,
    #[error("the lake cannot be opened")]
    Open(#[from] OpenError),
}

impl Fatal for PlaceError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::NoCatalog => Exit::Usage,
            Self::Embedded(_) | Self::Open(_) => Exit::Failed,
        }
    }
}

impl EmbeddedPlace {
    /// The directory, made when absent.
    pub(crate) fn make(&self) -> Result<DataDir, PlaceError> {
        Ok(DataDir::create(&self.0)?)
    }

    /// The directory, which must hold a lake.
    pub(crate) fn existing(&self) -> Result<DataDir, PlaceError> {
        Ok(DataDir::existing(&self.0)?)
    }
}

impl Place {
    /// `--data` wins, then a configuration that names Kafka or a catalog, then the default directory.
    pub(crate) fn of(args: &PlaceArgs, config: &ConfigSource) -> Result<Self, PlaceError> {
        // Before the file is read: a broken configuration must not keep a command from a directory that is named.
        if let Some(dir) = &args.data {
            return Ok(Self::Embedded(EmbeddedPlace(dir.clone())));
        }
        let loaded = config.load_placed::<Remote>()?;
        // `places` has only what some layer sets, while the settings always have defaults. `[kafka]` alone is enough
        // for an import, which then only sends; `[store]` alone locates no table.
        let is_named = ["kafka", "catalog"].iter().any(|section| loaded.places.contains_key(*section));
        Ok(match is_named {
            true => Self::Remote(Box::new(loaded.settings)),
            false => Self::Embedded(EmbeddedPlace(DEFAULT_DIR.into())),
        })
    }

    /// Whether it is a directory that holds a lake already.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self, Self::Embedded(dir) if dir.existing().is_ok())
    }

    /// Opens an existing lake. No file and no directory is made: a mistyped path would otherwise pass for an empty
    /// lake. In a PostgreSQL database the catalog's tables are made where they are absent.
    pub(crate) async fn open(&self) -> Result<Lake, PlaceError> {
        match self {
            Self::Embedded(dir) => Ok(dir.existing()?.open_existing().await?),
            // The configuration names Kafka alone: messages can be sent there, but there is no lake to open.
            Self::Remote(remote) if remote.catalog.uri.is_empty() => Err(PlaceError::NoCatalog),
            Self::Remote(remote) => Ok(Lake::open_existing(lake_options(&remote.catalog, &remote.store)).await?),
        }
    }
}
