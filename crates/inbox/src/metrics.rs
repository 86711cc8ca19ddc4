//! Prometheus metrics of the bulk path.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Landed and tagged.
    Landed,
    /// Announced again after it was dealt with.
    Repeated,
    /// Outside of the prefix.
    PassedOver,
    /// Put to the dead letters.
    Failed,
    /// Left for another attempt.
    Deferred,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::Repeated => "repeated",
            Self::PassedOver => "passed_over",
            Self::Failed => "failed",
            Self::Deferred => "deferred",
        }
    }
}

/// What the bulk path counts. Cheap to clone; clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    objects: Family<OutcomeLabel, Counter>,
    pub(crate) rows: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) foreign: Counter,
    pub(crate) held: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("bulk_objects", "Objects of the bucket, by what became of them", metrics.objects.clone());
        registry.register("bulk_rows", "Rows of objects that landed, known before or not", metrics.rows.clone());
        registry.register_with_unit(
            "bulk_read",
            "Bytes of objects that were fetched; streams are read twice",
            Unit::Bytes,
            metrics.read_bytes.clone(),
        );
        registry.register(
            "bulk_foreign_messages",
            "Messages of the queue that are no events of the bucket, and were left there",
            metrics.foreign.clone(),
        );
        registry.register("bulk_held_messages", "Messages of the queue that are worked on", metrics.held.clone());
        metrics
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        self.objects.get_or_create(&OutcomeLabel { outcome: outcome.name() }).inc();
    }
}
