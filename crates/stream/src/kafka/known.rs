//! The brokers that librdkafka knows. From 2.10 on it forgets each broker that a metadata response does not name. A response
//! that names none (the only broker is fenced) may leave it without any, for good: what would add the bootstrap servers again
//! is cancelled by the same response. <https://github.com/confluentinc/librdkafka/issues/5301>
#![expect(unsafe_code, reason = "rd_kafka_brokers_add is not in rdkafka's safe interface")]

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::Statistics;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

/// Interval at which librdkafka reports what it knows, in milliseconds.
pub(super) const STATISTICS_EVERY_MS: &str = "1000";
/// librdkafka is given this many reports to find brokers by itself: it does in most cases.
const REPORTS: u32 = 2;

/// Whether librdkafka knows any broker, by its reports.
#[derive(Debug, Default)]
pub(super) struct KnownBrokers {
    /// How many reports in a row named none.
    none_in: AtomicU32,
}

impl KnownBrokers {
    pub(super) fn update(&self, statistics: &Statistics) {
        // The coordinator of the group and the client's own queue are listed as brokers as well.
        let is_any = statistics.brokers.values().any(|b| b.source == "learned" || b.source == "configured");
        let none_in = if is_any { 0 } else { self.none_in.load(Ordering::Relaxed).saturating_add(1) };
        self.none_in.store(none_in, Ordering::Relaxed);
    }

    /// Names the bootstrap servers to the client again when it knows no broker.
    pub(super) fn restore<C: ClientContext>(&self, client: &Client<C>, bootstrap_servers: &str) {
        if self.none_in.load(Ordering::Relaxed) < REPORTS {
            return;
        }
        self.none_in.store(0, Ordering::Relaxed);
        // The client was opened with this text: it holds no zero.
        let Ok(servers) = CString::new(bootstrap_servers) else { return };
        // SAFETY: the client outlives the call, which copies the text and may be made from any thread.
        let added = unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
        tracing::warn!(
            bootstrap_servers,
            added,
            "the kafka client knew no broker any more; the bootstrap servers are named to it again"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rdkafka::statistics::Broker;

    use super::*;

    fn report(sources: &[&str]) -> Statistics {
        let broker = |source: &&str| {
            let broker = Broker { source: (*source).to_owned(), ..Broker::default() };
            ((*source).to_owned(), broker)
        };
        Statistics { brokers: sources.iter().map(broker).collect::<HashMap<_, _>>(), ..Statistics::default() }
    }

    #[test]
    fn a_client_without_brokers_is_known_by_two_reports_in_a_row() {
        let known = KnownBrokers::default();
        let reports: [(&[&str], u32); 7] = [
            (&["configured", "internal"], 0),
            (&["logical", "internal"], 1),
            (&["learned", "logical"], 0),
            (&[], 1),
            (&["logical"], 2),
            (&["logical"], 3),
            (&["configured"], 0),
        ];
        for (sources, none_in) in reports {
            known.update(&report(sources));
            assert_eq!(known.none_in.load(Ordering::Relaxed), none_in, "{sources:?}");
        }
    }
}
