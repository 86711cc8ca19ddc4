//! `causeway-ingest` as a member of the group.

use std::ops::{Deref, DerefMut};

use crate::place::Place;
use crate::program::Program;

pub(crate) struct Ingest(pub(crate) Program);

impl Ingest {
    pub(crate) fn start(place: &Place) -> Self {
        Self(Program::start(place.command("causeway-ingest")))
    }

    /// A member with further settings, as `key=value`.
    pub(crate) fn start_with(place: &Place, settings: &[&str]) -> Self {
        let mut command = place.command("causeway-ingest");
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        Self(Program::start(command))
    }

    /// A member that is the same one after a restart.
    pub(crate) fn start_as(place: &Place, instance_id: &str) -> Self {
        let mut command = place.command("causeway-ingest");
        command.args(["--set", &format!("kafka.instance_id={instance_id}")]);
        Self(Program::start(command))
    }

    /// Commits of one table, or of all, that this process has carried out.
    pub(crate) fn commits(&self, table: &str) -> u64 {
        let table = format!("table=\"{table}");
        let count = self.0.metric("causeway_ingest_commits_total", &[&table, "outcome=\"committed\""]);
        count.unwrap_or(0.0) as u64
    }

    /// Partitions of a topic that it reads.
    pub(crate) fn partitions(&self, topic: &str) -> usize {
        let label = format!("causeway_ingest_next_offset{{topic=\"{topic}\"");
        self.0.metrics().unwrap_or_default().lines().filter(|line| line.starts_with(&label)).count()
    }
}

impl Deref for Ingest {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl DerefMut for Ingest {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}
