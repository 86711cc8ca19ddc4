//! The metrics of the query service.

use std::time::Instant;

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
    /// It was cancelled or evicted, or its client disconnected.
    Cancelled,
    /// The lake, its files, or a fault of the server.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// The counters of one service. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    queries: Family<Labels, Counter>,
    seconds: Histogram,
    rows: Counter,
    /// Queries over `/api/v1/sql` that have not been answered to the end.
    running: Gauge,
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
        registry.register(
            "query_seconds",
            "Time from arrival to the last row sent, of Trino queries to the last page made",
            metrics.seconds.clone(),
        );
        registry.register("rows", "Rows sent to clients", metrics.rows.clone());
        registry.register("running", "Queries over /api/v1/sql that are being answered", metrics.running.clone());
        metrics
    }

    /// Begins to count a query, which arrived at `started`.
    pub(crate) fn begin(&self, started: Instant) -> Tally {
        Tally { metrics: self.clone(), started, is_shown_running: false, has_ended: false }
    }

    /// The same of a query over `/api/v1/sql`, which counts as running meanwhile.
    pub(crate) fn begin_running(&self, started: Instant) -> Tally {
        self.running.inc();
        Tally { metrics: self.clone(), started, is_shown_running: true, has_ended: false }
    }

    pub(crate) fn rows(&self, count: usize) {
        self.rows.inc_by(count as u64);
    }
}

/// One query in the metrics. It is counted once: as it ended, or else when this is dropped before its end, as it is
/// where its client disconnects.
#[derive(Debug)]
pub(crate) struct Tally {
    metrics: Metrics,
    started: Instant,
    is_shown_running: bool,
    has_ended: bool,
}

impl Tally {
    /// The query was answered, or failed.
    pub(crate) fn end(mut self, error: Option<&QueryError>) {
        self.count(error);
    }

    fn count(&mut self, error: Option<&QueryError>) {
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
        self.has_ended = true;
        self.metrics.queries.get_or_create(&Labels { outcome }).inc();
        self.metrics.seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.is_shown_running {
            self.metrics.running.dec();
        }
        if self.has_ended {
            return;
        }
        // A panic drops what its stack holds, and is a fault of ours. Else the work was dropped from outside.
        let error = match std::thread::panicking() {
            true => QueryError::Internal { message: "the query panicked".to_owned() },
            false => QueryError::Cancelled,
        };
        self.count(Some(&error));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use prometheus_client::encoding::text::encode;

    use super::*;

    /// What the metrics say of one query.
    pub(crate) fn counted(query: impl FnOnce(Tally)) -> String {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        query(metrics.begin_running(Instant::now()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_query_that_is_dropped_before_its_end_counts_as_cancelled() {
        let text = counted(drop);
        assert!(text.contains("queries_total{outcome=\"Cancelled\"} 1") && text.contains("running 0"), "{text}");
    }

    #[test]
    fn a_query_that_panics_counts_as_failed() {
        let text = counted(|tally| {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let _tally = tally;
                panic!("on purpose");
            }));
            assert!(ended.is_err());
        });
        assert!(text.contains("queries_total{outcome=\"Failed\"} 1") && text.contains("running 0"), "{text}");
    }

    #[test]
    fn a_query_that_ended_is_counted_once() {
        let text = counted(|tally| tally.end(None));
        assert!(text.contains("queries_total{outcome=\"Answered\"} 1") && !text.contains("Cancelled"), "{text}");
    }
}
