//! The configuration of `causeway-query`.

use lake::config::CatalogConfig;
use objects::config::StoreConfig;
use serde::{Deserialize, Serialize};
use service_kit::config::{ByteSize, HumanDuration, Problem};
use service_kit::listen::ListenAddress;

use crate::http::HttpOptions;
use crate::service::Options;
use query_engine::Limits;

/// The sections `causeway-query` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[catalog]`: where the pointers of the tables are.
    pub catalog: CatalogConfig,
    /// `[store]`: where the files of the tables are.
    pub store: StoreConfig,
    /// `[query]`: the listener and the bounds of the queries.
    pub query: QueryConfig,
}

/// The `[query]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueryConfig {
    /// Address of every surface: `HOST:PORT`, or a port alone for loopback.
    pub listen: ListenAddress,
    /// The URL by which clients reach this server, when a proxy stands between: `https://causeway.example.org`.
    pub external_url: Option<String>,
    /// Memory of one query.
    pub memory: ByteSize,
    /// Temporary files of all queries together.
    pub spill: ByteSize,
    /// Longest time of one query.
    pub timeout: HumanDuration,
    /// Most rows of one JSON document; the forms that are streamed have no such limit.
    pub rows: usize,
    /// Most events that one look for chains or stragglers takes in: the newest of the window asked about.
    pub events: u64,
    /// Queries that run at once.
    pub concurrent: usize,
    /// Queries that may wait for their turn.
    pub queued: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        let Options { listen, limits, http } = Options::default();
        Self {
            listen,
            external_url: http.external_url,
            memory: ByteSize(limits.memory_bytes as u64),
            spill: ByteSize(limits.spill_bytes),
            timeout: HumanDuration(limits.time),
            rows: limits.rows,
            events: limits.events,
            concurrent: limits.concurrent,
            queued: limits.queued,
        }
    }
}

impl QueryConfig {
    pub fn options(&self) -> Options {
        let limits = Limits {
            // On a host of 32 bits `usize` is smaller: there the limit becomes the whole address space.
            memory_bytes: usize::try_from(self.memory.0).unwrap_or(usize::MAX),
            spill_bytes: self.spill.0,
            time: self.timeout.0,
            rows: self.rows,
            events: self.events,
            concurrent: self.concurrent,
            queued: self.queued,
        };
        Options { listen: self.listen.clone(), limits, http: HttpOptions { external_url: self.external_url.clone() } }
    }
}

/// Less memory than this cannot hold the batches of one scan.
const MEMORY_MIN_BYTES: u64 = 32 << 20;

impl service_kit::config::Settings for Settings {
    fn validate(&self) -> Vec<Problem> {
        let query = &self.query;
        // An absent URL breaks no rule: a prefix that passes stands for it.
        let url = query.external_url.as_deref().unwrap_or("http://");
        let rules = [
            (
                url.starts_with("http://") || url.starts_with("https://"),
                "query.external_url",
                "must begin with http:// or https://",
            ),
            (query.memory.0 >= MEMORY_MIN_BYTES, "query.memory", "must be at least 32 MiB"),
            (!query.timeout.0.is_zero(), "query.timeout", "must be longer than zero"),
            (query.rows > 0, "query.rows", "must be at least 1"),
            (query.events > 0, "query.events", "must be at least 1"),
            // No rule for `queued`: with 0, what cannot run at once is refused.
            (query.concurrent > 0, "query.concurrent", "must be at least 1"),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        let broken = broken.map(|(_, key, rule)| Problem::new(key, rule));
        lake::config::problems(&self.catalog, &self.store).into_iter().chain(broken).collect()
    }
}
