//! A simulated fleet for trials and demonstrations: `--simulate nodes=4,ranks=8,rate=10000`. It runs one training job,
//! in which one rank shares its CPU with another process. Its events take the path of an agent's, through the spool.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use event_schema::topics;
use fleet_sim::training::{JobSpec, TrainingJob};
use fleet_sim::{FleetError, FleetSpec};
use service_kit::clock::{Clock, SystemClock};
use service_kit::run::Drain;
use stream::log::{Appended, Fsync, FullBy, LogError, LogOptions, LogWriter, claim_partition};
use tokio::time::MissedTickBehavior;

/// How often each node sends the events that it made.
const TICK: Duration = Duration::from_millis(500);

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SimulateSpec {
    nodes: usize,
    ranks_per_node: i32,
    /// Events per second of the whole fleet.
    rate: u64,
    /// The same seed makes the same nodes; without one every run has nodes of its own.
    seed: Option<u64>,
    slow: Slow,
}

/// Which rank of the simulated job shares its CPU with another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    /// The last one.
    Last,
    Rank(i32),
    None,
}

impl Default for SimulateSpec {
    fn default() -> Self {
        Self { nodes: 4, ranks_per_node: 8, rate: 4_000, seed: None, slow: Slow::Last }
    }
}

impl FromStr for SimulateSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut spec = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not of the form key=value"))?;
            let value = value.trim();
            match key.trim() {
                // The bounds make the number of ranks at most 10,240,000, which an `i32` holds.
                "nodes" => spec.nodes = number_up_to(10_000, key, value)?,
                "ranks" => spec.ranks_per_node = number_up_to(1_024, key, value)?,
                "rate" => spec.rate = number_up_to(100_000_000, key, value)?,
                "seed" => spec.seed = Some(value.parse().map_err(|_| format!("`{value}` is not a seed"))?),
                "slow" if value == "none" => spec.slow = Slow::None,
                "slow" => {
                    spec.slow =
                        Slow::Rank(value.parse().map_err(|_| format!("`{value}` is neither a rank nor `none`"))?)
                }
                other => return Err(format!("`{other}` is not known: give nodes, ranks, rate, seed, slow")),
            }
        }
        // After all keys: the bound follows from `nodes` and `ranks`, which may follow `slow` in the text.
        match spec.slow {
            Slow::Rank(rank) if !(0..spec.ranks()).contains(&i64::from(rank)) => {
                Err(format!("there is no rank {rank} among {} ranks, which count from 0", spec.ranks()))
            }
            _ => Ok(spec),
        }
    }
}

/// The value of a key: a number from 1 to `most`, which the type is to hold.
fn number_up_to<N: TryFrom<u64>>(most: u64, key: &str, value: &str) -> Result<N, String> {
    let number = value.parse::<u64>().ok().filter(|number| (1..=most).contains(number));
    let number = number.and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| format!("`{value}` is not a number of {key} from 1 to {most}"))
}

impl SimulateSpec {
    fn ranks(&self) -> i64 {
        i64::try_from(self.nodes).unwrap_or(i64::MAX).saturating_mul(i64::from(self.ranks_per_node))
    }

    fn slow_rank(&self) -> Option<i32> {
        match self.slow {
            Slow::Last => i32::try_from(self.ranks() - 1).ok(),
            Slow::Rank(rank) => Some(rank),
            Slow::None => None,
        }
    }
}

/// Why the simulation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulateError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("the spool cannot be written")]
    Spool(#[from] LogError),
    #[error("the spool {} is full at {bytes} bytes: {by}", path.display())]
    Full { path: PathBuf, bytes: u64, by: FullBy },
}

/// A fleet and the partition of the spool that it writes.
pub(super) struct Simulation {
    job: TrainingJob,
    writer: LogWriter,
    spool: PathBuf,
}

impl Simulation {
    pub(super) fn open(spec: SimulateSpec, spool: &Path) -> Result<Self, SimulateError> {
        let now_ns = SystemClock.now_ns();
        let fleet = FleetSpec {
            nodes: spec.nodes,
            ranks_per_node: spec.ranks_per_node,
            // By default the clock: nodes of an earlier run would begin their numbers anew, and ingest drops rows that
            // it has seen.
            seed: spec.seed.unwrap_or_else(|| now_ns.unsigned_abs()),
            rows: 0,
            gap_ns: 1_000,
            start_wall_ns: now_ns,
        };
        let rate = i64::try_from(spec.rate).unwrap_or(i64::MAX);
        let job = TrainingJob::new(&fleet, JobSpec::at_rate(spec.ranks(), rate, spec.slow_rank()));
        // Synced by `ship` once per tick (group commit), as the spool thread of an agent does.
        let options = LogOptions { fsync: Fsync::Manual, ..LogOptions::default() };
        let writer = claim_partition(spool, topics::EVENTS, options)?;
        Ok(Self { job, writer, spool: spool.to_owned() })
    }

    /// Makes events until drained.
    pub(super) async fn run(mut self, drain: Drain) -> Result<(), SimulateError> {
        let mut ticks = tokio::time::interval(TICK);
        // `run_until` makes everything up to now: after a suspended machine resumes, one tick replaces all that were
        // missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick of an interval is due at once, when no iteration has ended yet.
        ticks.tick().await;
        loop {
            tokio::select! {
                () = drain.cancelled() => return Ok(()),
                // Writing and fsync(2) block: the runtime moves its other tasks off this thread.
                _ = ticks.tick() => tokio::task::block_in_place(|| self.ship())?,
            }
        }
    }

    fn ship(&mut self) -> Result<(), SimulateError> {
        for (node, message) in self.job.run_until(SystemClock.now_ns())? {
            let appended = self.writer.append(Some(node.as_bytes()), &message, SystemClock.now_ms())?;
            if let Appended::Full { bytes, by } = appended {
                return Err(SimulateError::Full { path: self.spool.clone(), bytes, by });
            }
        }
        // Sync, then delete: readers see messages up to the last sync only, and segments go once ingest has reported
        // them.
        self.writer.sync()?;
        self.writer.delete_landed()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_names_what_it_changes() {
        let spec: SimulateSpec = "nodes=2, rate=100,seed=7".parse().unwrap();
        assert_eq!(spec, SimulateSpec { nodes: 2, rate: 100, seed: Some(7), ..SimulateSpec::default() });
        assert_eq!("ranks=2,slow=7".parse::<SimulateSpec>().unwrap().slow_rank(), Some(7));
        assert_eq!(SimulateSpec::default().slow_rank(), Some(31));
        assert!("nodes=1,ranks=4,slow=4".parse::<SimulateSpec>().unwrap_err().contains("no rank 4 among 4"));
        assert!("node=2".parse::<SimulateSpec>().unwrap_err().contains("`node` is not known"));
        assert!("nodes=few".parse::<SimulateSpec>().unwrap_err().contains("`few`"));
    }
}
