//! The brokers that librdkafka has in its list. From 2.10 on it removes each broker that a metadata response does not
//! name. A response that names none (the only broker is fenced) may leave the list empty for good: what would add the
//! bootstrap servers again is cancelled by the same response. <https://github.com/confluentinc/librdkafka/issues/5301>
#![expect(unsafe_code, reason = "rd_kafka_brokers_add is not in rdkafka's safe interface")]

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::Statistics;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

/// Interval at which librdkafka reports statistics, in milliseconds.
pub(super) const STATISTICS_EVERY_MS: &str = "1000";
/// Reports without any broker until the bootstrap servers are added again: in most cases librdkafka finds brokers by
/// itself before.
const NONE_KNOWN_REPORTS: u32 = 2;
/// Reports without a connected broker until the same is done: a broker that is to be removed stays in the list as long
/// as a request refers to it.
const NONE_UP_REPORTS: u32 = 15;

/// Whether librdkafka has any broker in its list, by its reports.
#[derive(Debug, Default)]
pub(super) struct KnownBrokers {
    /// How many reports in a row named none.
    none_known: AtomicU32,
    /// How many reports in a row named none that is connected.
    none_up: AtomicU32,
}

impl KnownBrokers {
    pub(super) fn update(&self, statistics: &Statistics) {
        // The coordinator of the group and the client's own queue are listed as brokers as well.
        let brokers = statistics.brokers.values().filter(|b| b.source == "learned" || b.source == "configured");
        let mut is_known = false;
        let mut is_up = false;
        for broker in brokers {
            is_known = true;
            is_up |= broker.state == "UP";
        }
        // `Relaxed`: each counter stands for itself, and a report late or early does no harm.
        for (is_there, count) in [(is_known, &self.none_known), (is_up, &self.none_up)] {
            let in_a_row = if is_there { 0 } else { count.load(Ordering::Relaxed).saturating_add(1) };
            count.store(in_a_row, Ordering::Relaxed);
        }
    }

    /// Adds the bootstrap servers to the client again when its list is empty, or when it has reached no broker for a
    /// while. Servers that are in the list stay as they are.
    pub(super) fn restore<C: ClientContext>(&self, client: &Client<C>, bootstrap_servers: &str) {
        let none_known = self.none_known.load(Ordering::Relaxed);
        let none_up = self.none_up.load(Ordering::Relaxed);
        if none_known < NONE_KNOWN_REPORTS && none_up < NONE_UP_REPORTS {
            return;
        }
        // Counted anew: the next attempt follows after as many reports again, not with the next poll.
        self.none_known.store(0, Ordering::Relaxed);
        self.none_up.store(0, Ordering::Relaxed);
        // The client was opened with this text, which therefore holds no zero byte.
        let Ok(servers) = CString::new(bootstrap_servers) else { return };
        // SAFETY: the client outlives the call, which copies the text and may be made from any thread.
        let added = unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
        if none_known >= NONE_KNOWN_REPORTS {
            tracing::warn!(
                bootstrap_servers,
                added,
                "the kafka client had no broker any more; the bootstrap servers are added again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rdkafka::statistics::Broker;

    use super::*;

    /// A report of brokers by source and state.
    fn report(brokers: &[(&str, &str)]) -> Statistics {
        let broker = |(source, state): &(&str, &str)| {
            let broker = Broker { source: (*source).to_owned(), state: (*state).to_owned(), ..Broker::default() };
            (format!("{source} {state}"), broker)
        };
        Statistics { brokers: brokers.iter().map(broker).collect::<HashMap<_, _>>(), ..Statistics::default() }
    }

    #[test]
    fn reports_in_a_row_that_name_no_broker_or_none_that_is_up_are_counted() {
        let known = KnownBrokers::default();
        type Reported<'a> = &'a [(&'a str, &'a str)];
        let reports: [(Reported<'_>, (u32, u32)); 7] = [
            (&[("configured", "UP"), ("internal", "UP")], (0, 0)),
            (&[("logical", "UP"), ("internal", "UP")], (1, 1)),
            (&[("learned", "DOWN"), ("logical", "UP")], (0, 2)),
            (&[], (1, 3)),
            (&[("logical", "UP")], (2, 4)),
            (&[("configured", "TRY_CONNECT")], (0, 5)),
            (&[("learned", "DOWN"), ("configured", "UP")], (0, 0)),
        ];
        for (brokers, counted) in reports {
            known.update(&report(brokers));
            let found = (known.none_known.load(Ordering::Relaxed), known.none_up.load(Ordering::Relaxed));
            assert_eq!(found, counted, "{brokers:?}");
        }
    }
}
