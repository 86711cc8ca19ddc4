//! Records that are not events: the session (this run of the agent on this node), processes and cgroups.

use std::fs;

use event_schema::batch::{RowError, Rows, Value};
use event_schema::kind::RecordKind;

use crate::batcher::Cut;
use crate::cgroups::Cgroup;
use crate::process::{Process, RankSource};

/// Why a record could not be made: it does not fit the catalogue, which is a defect of the program.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

/// This run of the agent on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Unix nanoseconds.
    pub started_ns: i64,
    /// By `/proc/cpuinfo`.
    pub cpu_model: Option<String>,
    /// CPUs that this process may use; 0 when that is not known.
    pub cpu_cores: i64,
    /// MiB, by `/proc/meminfo`.
    pub mem_total_mb: Option<i64>,
    /// Release of the running kernel, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_release: Option<String>,
    /// Name and version of this program.
    pub agent_version: String,
    /// How libraries are probed, and thresholds.
    pub flags: String,
}

impl Session {
    /// Reads the facts of the node.
    pub fn read(started_ns: i64, agent_version: &str, flags: String) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, |n| i64::try_from(n.get()).unwrap_or(i64::MAX));
        Self {
            started_ns,
            // Kernels for arm64 print no `model name`: there it is absent.
            cpu_model: read("/proc/cpuinfo").and_then(|text| field(&text, "model name", ':')),
            cpu_cores: cores,
            // proc(5) writes kB where it means KiB.
            mem_total_mb: read("/proc/meminfo").and_then(|text| kib(&text, "MemTotal")).map(|kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            os_release: read("/etc/os-release").and_then(|text| field(&text, "PRETTY_NAME", '=')),
            agent_version: agent_version.to_owned(),
            flags,
        }
    }

    /// The record of the session; with `stopped_ns` when it ends.
    pub fn record(&self, boot_ns: i64, stopped_ns: Option<i64>) -> Result<Cut, FactError> {
        record(
            RecordKind::Session,
            [
                ("boot_ns", Value::Long(boot_ns)),
                ("started_ns", Value::Long(self.started_ns)),
                ("stopped_ns", long(stopped_ns)),
                ("cpu_model", text(self.cpu_model.as_deref())),
                ("cpu_cores", Value::Long(self.cpu_cores)),
                ("mem_total_mb", long(self.mem_total_mb)),
                ("kernel", text(self.kernel.as_deref())),
                ("os_release", text(self.os_release.as_deref())),
                ("agent_version", text(Some(&self.agent_version))),
                ("flags", text(Some(&self.flags))),
            ],
        )
    }
}

/// Facts of processes and cgroups that wait to be sent: those that are met together go in one message of each kind.
#[derive(Debug)]
pub struct Facts {
    processes: Rows,
    cgroups: Rows,
}

impl Default for Facts {
    fn default() -> Self {
        Self { processes: Rows::new(RecordKind::Process), cgroups: Rows::new(RecordKind::Cgroup) }
    }
}

impl Facts {
    /// Adds what is known of a process. `untraced` is the reason why its calls are not recorded, if they are not.
    pub fn add_process(
        &mut self,
        process: &Process,
        cgroup_id: Option<i64>,
        boot_ns: i64,
        untraced: Option<&str>,
    ) -> Result<(), FactError> {
        let (ranks, source) = process.ranks().unzip();
        Ok(self.processes.push([
            ("boot_ns", Value::Long(boot_ns)),
            ("pid", Value::Long(i64::from(process.pid))),
            ("name", text(Some(&process.name))),
            ("rank", int(ranks.map(|ranks| ranks.rank))),
            ("local_rank", int(ranks.and_then(|ranks| ranks.local_rank))),
            ("world_size", int(ranks.and_then(|ranks| ranks.world_size))),
            ("job_id", text(process.job_id())),
            ("cgroup_id", long(cgroup_id)),
            ("container_id", text(process.container_id.as_deref())),
            ("pod", text(process.pod())),
            ("namespace", text(process.namespace())),
            ("rank_source", text(source.map(RankSource::name))),
            ("untraced", text(untraced)),
        ])?)
    }

    /// Adds what is known of a cgroup.
    pub fn add_cgroup(&mut self, cgroup: &Cgroup, boot_ns: i64) -> Result<(), FactError> {
        Ok(self.cgroups.push([
            ("boot_ns", Value::Long(boot_ns)),
            ("cgroup_id", Value::Long(cgroup.id)),
            ("container_id", text(cgroup.container_id.as_deref())),
            ("cgroup_path", text(cgroup.path.as_deref())),
            ("pod", text(cgroup.pod.as_deref())),
            ("namespace", text(cgroup.namespace.as_deref())),
        ])?)
    }

    /// Processes and cgroups that wait.
    pub fn len(&self) -> usize {
        self.processes.len() + self.cgroups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out the facts that wait, as one batch per kind.
    pub fn cut(&mut self) -> Result<Vec<Cut>, FactError> {
        let waiting = [&mut self.processes, &mut self.cgroups].into_iter().filter(|rows| !rows.is_empty());
        waiting.map(|rows| Ok(Cut::of_records(rows.kind(), rows.finish()?))).collect()
    }
}

fn record<const N: usize>(kind: RecordKind, values: [(&'static str, Value); N]) -> Result<Cut, FactError> {
    let mut rows = Rows::new(kind);
    rows.push(values)?;
    Ok(Cut::of_records(kind, rows.finish()?))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn text(value: Option<&str>) -> Value {
    value.map_or(Value::Null, |value| Value::Text(value.to_owned()))
}

fn long(value: Option<i64>) -> Value {
    value.map_or(Value::Null, Value::Long)
}

fn int(value: Option<i32>) -> Value {
    long(value.map(i64::from))
}

/// The value of the first line that begins with `name`, without quotes.
fn field(text: &str, name: &str, separator: char) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(separator)?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn kib(text: &str, name: &str) -> Option<i64> {
    field(text, name, ':')?.trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests;
