//! The configuration of `causeway-compactor`.

use std::path::PathBuf;

use lake::config::CatalogConfig;
use maintenance::{Limits, Policy};
use objects::config::StoreConfig;
use serde::{Deserialize, Serialize};
use service_kit::admin::AdminConfig;
use service_kit::config::{ByteSize, HumanDuration, Problem};

use crate::options::Options;

/// The sections `causeway-compactor` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `[catalog]`: the Iceberg catalog.
    pub catalog: CatalogConfig,
    /// `[store]`: where the objects of the tables are.
    pub store: StoreConfig,
    /// `[compactor]`: which files are merged, and what that may take.
    pub compactor: CompactorConfig,
    /// `[admin]`: the port with metrics and readiness.
    pub admin: AdminConfig,
}

/// The `[compactor]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactorConfig {
    /// Size that data files are merged to.
    pub target_size: ByteSize,
    /// So many files of about one size are merged into one. A lower number makes fewer files and more work.
    pub fan_in: u16,
    /// Files that one commit takes away at most.
    pub files_per_commit: u16,
    /// A day is merged to files of the target size when it ended so long ago and got no file since.
    pub quiet: HumanDuration,
    /// Memory of the one rewrite that runs.
    pub memory: ByteSize,
    /// Directory for sorted runs that do not fit into the memory; the system's for temporary files when absent.
    pub spill: Option<PathBuf>,
    /// Bytes of such runs at most.
    pub spill_size: ByteSize,
    /// Bytes of data files that are read in an hour at most; as fast as it can when absent.
    pub bytes_per_hour: Option<ByteSize>,
    /// How long to wait when there is nothing to do.
    pub interval: HumanDuration,
    /// How long a task stays with a compactor that is gone.
    pub lease: HumanDuration,
}

impl Default for CompactorConfig {
    fn default() -> Self {
        let Options { policy, limits, interval, bytes_per_hour, lease } = Options::default();
        Self {
            target_size: ByteSize(policy.target_bytes),
            fan_in: u16::try_from(policy.fan_in).unwrap_or(u16::MAX),
            files_per_commit: u16::try_from(policy.files_per_commit).unwrap_or(u16::MAX),
            quiet: HumanDuration(policy.quiet),
            memory: ByteSize(limits.memory_bytes as u64),
            // Not the directory itself: it depends on the environment, and `config show` would print it as set.
            spill: None,
            spill_size: ByteSize(limits.spill_bytes),
            bytes_per_hour: bytes_per_hour.map(ByteSize),
            interval: HumanDuration(interval),
            lease: HumanDuration(lease),
        }
    }
}

/// Less memory than this holds no row group and batch of a dozen inputs.
const MEMORY_MIN_BYTES: u64 = 32 << 20;
/// A shorter lease would end between two requests to a catalog that is slow for a moment.
const LEASE_MIN: HumanDuration = HumanDuration::from_secs(15);

impl CompactorConfig {
    pub fn options(&self) -> Options {
        // `TMPDIR` where it is set.
        let spill = self.spill.clone().unwrap_or_else(std::env::temp_dir);
        Options {
            policy: Policy {
                target_bytes: self.target_size.0,
                fan_in: usize::from(self.fan_in),
                files_per_commit: usize::from(self.files_per_commit),
                quiet: self.quiet.0,
            },
            limits: Limits {
                memory_bytes: usize::try_from(self.memory.0).unwrap_or(usize::MAX),
                spill,
                spill_bytes: self.spill_size.0,
            },
            interval: self.interval.0,
            bytes_per_hour: self.bytes_per_hour.map(|size| size.0),
            lease: self.lease.0,
        }
    }

    /// What is wrong with the section.
    pub fn problems(&self) -> Vec<Problem> {
        // All at once: a configuration is corrected in one go.
        let rules = [
            (self.target_size.0 >= 1 << 20, "target_size", "must be at least 1 MiB"),
            (self.fan_in >= 2, "fan_in", "must be at least 2"),
            (self.files_per_commit >= self.fan_in, "files_per_commit", "must not be below `compactor.fan_in`"),
            (self.memory.0 >= MEMORY_MIN_BYTES, "memory", "must be at least 32 MiB"),
            (self.bytes_per_hour.is_none_or(|size| size.0 > 0), "bytes_per_hour", "must be more than zero, or absent"),
            (!self.interval.0.is_zero(), "interval", "must be longer than zero"),
            (self.lease >= LEASE_MIN, "lease", "must be at least 15s"),
        ];
        let broken = rules.into_iter().filter(|(holds, ..)| !holds);
        broken.map(|(_, key, what)| Problem::new(format!("compactor.{key}"), what)).collect()
    }
}

impl service_kit::config::Settings for Settings {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = lake::config::problems(&self.catalog, &self.store);
        problems.extend(self.compactor.problems());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_section_gives_the_default_options() {
        let config = CompactorConfig::default();
        assert_eq!(config.options(), Options::default());
        assert_eq!(config.problems(), []);
    }

    #[test]
    fn what_cannot_work_is_named() {
        let config = CompactorConfig {
            target_size: ByteSize(1),
            fan_in: 1,
            files_per_commit: 0,
            memory: ByteSize(0),
            bytes_per_hour: Some(ByteSize(0)),
            interval: HumanDuration::default(),
            lease: HumanDuration::default(),
            ..CompactorConfig::default()
        };
        let named: Vec<String> = config.problems().into_iter().map(|problem| problem.key).collect();
        let keys = ["target_size", "fan_in", "files_per_commit", "memory", "bytes_per_hour", "interval", "lease"];
        assert_eq!(named, keys.map(|key| format!("compactor.{key}")));
    }
}
