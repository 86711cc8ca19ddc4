//! The metrics of the query service.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use query_engine::QueryError;

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Answered,
    /// Wrong or refused statement.
    Refused,
    /// Over a limit of memory, time or concurrency.
    Limited,
    /// Its client disconnected.
    Cancelled,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// The counters of one service.
#[derive(Debug)]
pub struct Metrics {
    queries: Family<Labels, Counter>,
    seconds: Histogram,
    rows: Counter,
    /// Queries over `/api/v1/sql` that have not been answered to the end.
    pub(crate) running: Gauge,
}

impl Metrics {
    /// Makes and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Family::default(),
            // From a query of metadata alone to the default `query.timeout`, 60 s.
            seconds: Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0]),
            rows: Counter::default(),
            running: Gauge::default(),
        };
        registry.register("queries", "Queries by how they ended", metrics.queries.clone());
        registry.register("query_seconds", "Time from arrival to the last row sent", metrics.seconds.clone());
        registry.register("rows", "Rows sent to clients", metrics.rows.clone());
        registry.register("running", "Queries over /api/v1/sql that are being answered", metrics.running.clone());
        metrics
    }

    pub(crate) fn answered(&self, error: Option<&QueryError>, took: Duration) {
        let outcome = match error {
            None => Outcome::Answered,
            Some(QueryError::Memory { .. } | QueryError::Timeout { .. } | QueryError::Busy { .. }) => Outcome::Limited,
            Some(QueryError::DataFile { .. } | QueryError::Lake { .. } | QueryError::Internal { .. }) => {
                Outcome::Failed
            }
            Some(QueryError::Cancelled) => Outcome::Cancelled,
            // All others are faults of the statement or of its session.
            Some(_) => Outcome::Refused,
        };
        self.queries.get_or_create(&Labels { outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn rows(&self, count: usize) {
        self.rows.inc_by(count as u64);
    }
}
