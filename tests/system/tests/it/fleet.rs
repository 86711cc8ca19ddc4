//! Simulated nodes that write known events to Kafka through the real wire format.

use crate::place::{Count, Place};
use crate::program::{self, Program};

/// What the producer had acknowledged.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) events: u64,
    pub(crate) messages: u64,
    /// What a table of these events must hold.
    pub(crate) expected: Count,
}

/// `causeway-loadtest fleet`, writing until it is stopped.
pub(crate) struct Fleet(Program);

impl Account {
    /// What was acknowledged of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut groups = self.expected.groups.clone();
        other.expected.groups.iter().for_each(|(node, rows)| *groups.entry(node.clone()).or_default() += rows);
        let (rows, sum) = (self.expected.rows + other.expected.rows, self.expected.sum + other.expected.sum);
        let expected = Count { rows, sum, groups };
        Self { events: self.events + other.events, messages: self.messages + other.messages, expected }
    }
}

impl Fleet {
    /// Writes `events` events of `nodes` nodes as fast as it can, 200 in a message, and returns what was acknowledged.
    #[track_caller]
    pub(crate) fn send(place: &Place, nodes: u32, events: u64, seed: u64) -> Account {
        let mut command = program::command("causeway-loadtest");
        command.args(["fleet", "--out", "kafka", "--brokers", &place.brokers(), "--rows-per-message", "200"]);
        command.args(["--events", &events.to_string(), "--seed", &seed.to_string(), "--nodes", &nodes.to_string()]);
        account(&program::run(command).ok().json())
    }

    /// Starts `nodes` nodes that write `rate` events a second together.
    pub(crate) fn start(place: &Place, nodes: u32, rate: u32, seed: u64) -> Self {
        let mut command = program::command("causeway-loadtest");
        command.args(["fleet", "--out", "kafka", "--brokers", &place.brokers(), "--rows-per-message", "200"]);
        command.args(["--events", "1000000000", "--seed", &seed.to_string()]);
        command.args(["--nodes", &nodes.to_string(), "--rate", &rate.to_string()]);
        Self(Program::start(command))
    }

    /// Lets it finish what it has sent, and asks what that was.
    #[track_caller]
    pub(crate) fn stop(self) -> Account {
        account(&self.0.terminate().ok().json())
    }
}

/// What `causeway-loadtest fleet` prints.
fn account(report: &serde_json::Value) -> Account {
    let mut expected = Count { rows: 0, sum: 0, groups: Default::default() };
    for (node, seqs) in report["nodes"].as_object().unwrap() {
        let (first, next) = (seqs["first_seq"].as_i64().unwrap(), seqs["next_seq"].as_i64().unwrap());
        expected.groups.insert(node.clone(), (next - first) as u64);
        expected.rows += (next - first) as u64;
        expected.sum += (first..next).map(i128::from).sum::<i128>();
    }
    let account = Account {
        events: report["events"].as_u64().unwrap(),
        messages: report["messages"].as_u64().unwrap(),
        expected,
    };
    assert_eq!(account.events, account.expected.rows);
    account
}
