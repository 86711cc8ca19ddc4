//! `causeway config`: the configuration of all services together, because one file may serve them all.

use serde::{Deserialize, Serialize};
use service_kit::admin::AdminConfig;
use service_kit::config::{ConfigCommand, ConfigError, ConfigSource, Problem, Settings};
use service_kit::run::{Exit, Fatal};

use compactor::settings::CompactorConfig;
use edge_agent::AgentSettings;
use edge_agent::config::{AgentConfig, NodeConfig, SpoolConfig};
use inbox::config::BulkConfig;
use ingest::settings::IngestConfig;
use lake::config::CatalogConfig;
use objects::config::StoreConfig;
use query_api::settings::QueryConfig;
use stream::kafka::KafkaConfig;

use crate::output::{self, OutputError};

/// Every section.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AllSettings {
    pub(crate) node: NodeConfig,
    pub(crate) agent: AgentConfig,
    pub(crate) spool: SpoolConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) catalog: CatalogConfig,
    pub(crate) store: StoreConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) compactor: CompactorConfig,
    pub(crate) bulk: BulkConfig,
    pub(crate) query: QueryConfig,
    pub(crate) admin: AdminConfig,
}

impl AllSettings {
    pub(crate) fn of_agent(&self) -> AgentSettings {
        AgentSettings {
            node: self.node.clone(),
            agent: self.agent.clone(),
            spool: self.spool.clone(),
            kafka: self.kafka.clone(),
            admin: self.admin.clone(),
        }
    }

    fn of_ingest(&self) -> ingest::settings::Settings {
        ingest::settings::Settings {
            kafka: self.kafka.clone(),
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            ingest: self.ingest.clone(),
            bulk: self.bulk.clone(),
            admin: self.admin.clone(),
        }
    }

    fn of_compactor(&self) -> compactor::settings::Settings {
        compactor::settings::Settings {
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            compactor: self.compactor.clone(),
            admin: self.admin.clone(),
        }
    }

    fn of_query(&self) -> query_api::settings::Settings {
        query_api::settings::Settings {
            catalog: self.catalog.clone(),
            store: self.store.clone(),
            query: self.query.clone(),
        }
    }
}

impl Settings for AllSettings {
    /// The problems that each service finds in its sections, once. A file need not name a lake: without one, commands
    /// use the embedded lake.
    fn validate(&self) -> Vec<Problem> {
        let names_lake = !self.catalog.uri.is_empty() || !self.store.warehouse.is_empty();
        let mut problems: Vec<Problem> = Vec::new();
        let of_services = [
            self.of_agent().validate(),
            self.of_ingest().validate(),
            self.of_compactor().validate(),
            self.of_query().validate(),
        ];
        for problem in of_services.concat() {
            // Ingest, compactor and query require a lake, each for itself, but `up` brings its own: a file for `up`
            // names neither key.
            let is_lake = ["catalog.uri", "store.warehouse"].contains(&problem.key.as_str());
            // A section that several services read gives the same problem several times (deduplication).
            if (names_lake || !is_lake) && !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }
}

/// Why a configuration could not be checked or shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for ConfigCommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command.
pub(crate) fn run(command: ConfigCommand, source: &ConfigSource) -> Result<Exit, ConfigCommandError> {
    let mut text = Vec::new();
    let outcome = command.run::<AllSettings>(source, &mut text);
    // First: what could be decoded is shown where something else is wrong.
    output::write(&text)?;
    outcome?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_sections_of_a_file_are_those_that_some_program_reads() {
        let shown = toml::Table::try_from(AllSettings::default()).unwrap();
        let read: Vec<&str> = shown.keys().map(String::as_str).collect();
        assert_eq!(BTreeSet::from_iter(read), BTreeSet::from(sections::SECTIONS));
    }

    #[test]
    fn no_secret_shows_in_what_a_program_prints_of_its_settings() {
        let text = "[catalog]\nuri = 'postgres://ann:hush@db/iceberg'\n[store]\nwarehouse = 's3://b/w'\nsecret_access_key = 'hush'\n\
                    [kafka.sasl]\nmechanism = 'SCRAM-SHA-512'\nusername = 'ann'\npassword = 'hush'\n";
        let settings: AllSettings = toml::from_str(text).unwrap();
        let lake = lake::config::lake_options(&settings.catalog, &settings.store);
        assert_eq!(lake.catalog_uri, "postgres://ann:hush@db/iceberg");
        let services = (settings.of_agent(), settings.of_ingest(), settings.of_compactor(), settings.of_query());
        for shown in [format!("{settings:?}"), format!("{services:?}"), format!("{lake:?}")] {
            assert!(shown.contains("***") && !shown.contains("hush"), "{shown}");
        }
    }
}
