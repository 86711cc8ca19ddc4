//! What `/proc` says about a process: its rank and job from the environment, its container from the cgroup.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use event_schema::batch::ProcessInfo;

/// Who says which rank a process is: rank, rank on its node, number of ranks. The first whose rank is set and a number tells
/// all three, since each counts something else: under `srun torchrun`, SLURM counts the launchers.
const RANKS: &[[&str; 3]] = &[
    ["RANK", "LOCAL_RANK", "WORLD_SIZE"],
    ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"],
];
/// The first that is set wins.
const JOB_ID: &[&str] = &["CAUSEWAY_JOB_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"];
/// An environment may be megabytes; what we look for is not worth more than this.
const ENVIRON_BYTES_MAX: u64 = 1 << 20;
/// A job name longer than this is cut: it becomes a word of every row.
const NAME_BYTES_MAX: usize = 128;

/// Facts about one process. Those that could not be read (it is gone, or another user's) are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot when it started: tells it from a later process of the same number.
    pub start_ticks: u64,
    /// The kernel's name of its first thread; command lines may hold secrets and are not read.
    pub name: String,
    pub rank: Option<i32>,
    pub local_rank: Option<i32>,
    pub world_size: Option<i32>,
    pub job_id: Option<String>,
    pub cgroup_path: Option<String>,
    pub container_id: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
}

impl Process {
    /// Reads what is known of a process now. `None` when there is no such process.
    pub fn read(pid: i32) -> Option<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let (name, start_ticks) = parse_stat(&fs::read(dir.join("stat")).ok()?)?;
        let mut process = Self { pid, start_ticks, name, ..Self::default() };
        let environ = read_at_most(&dir.join("environ"), ENVIRON_BYTES_MAX);
        process.take_environment(&parse_environment(&environ));
        if let Ok(cgroup) = fs::read(dir.join("cgroup")) {
            process.take_cgroup(&String::from_utf8_lossy(&cgroup));
        }
        Some(process)
    }

    /// When a process started, in clock ticks since boot. `None` when there is no such process.
    pub fn start_of(pid: i32) -> Option<u64> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|(_, start_ticks)| start_ticks)
    }

    /// As [`Self::start_of`]; `None` also for a process that has ended and whose parent has not asked for its status, but not for
    /// one whose first thread alone has ended.
    pub fn living_start_of(pid: i32) -> Option<u64> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let (_, start_ticks) = parse_stat(&stat)?;
        let stat = String::from_utf8_lossy(&stat);
        let (_, rest) = stat.rsplit_once(')')?;
        // Fields 3 and 20 of stat(5): state, number of threads.
        let mut fields = rest.split_whitespace();
        let (state, threads) = (fields.next()?, fields.nth(16)?);
        let has_ended = matches!(state, "Z" | "X" | "x") && threads.parse::<u32>().is_ok_and(|threads| threads <= 1);
        (!has_ended).then_some(start_ticks)
    }

    /// What every event of the process carries. `cgroup_id` is the event's own.
    pub fn info(&self, cgroup_id: i64) -> ProcessInfo<'_> {
        ProcessInfo {
            rank: self.rank,
            local_rank: self.local_rank,
            world_size: self.world_size,
            job_id: self.job_id.as_deref(),
            cgroup_id,
            container_id: self.container_id.as_deref(),
            pod: self.pod.as_deref(),
            namespace: self.namespace.as_deref(),
        }
    }

    fn take_environment(&mut self, environment: &HashMap<&str, &str>) {
        let number = |name: &str| environment.get(name)?.parse::<i32>().ok().filter(|value| *value >= 0);
        let text = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| environment.get(name).copied());
            values.find(|value| !value.is_empty()).map(cut)
        };
        let by = RANKS.iter().find(|[rank, ..]| number(rank).is_some());
        [self.rank, self.local_rank, self.world_size] = by.map_or([None; 3], |names| names.map(number));
        self.job_id = text(JOB_ID);
        self.pod = text(&["POD_NAME"]);
        self.namespace = text(&["POD_NAMESPACE"]);
        // Kubernetes names the container's host after the pod, unless it shares the node's network.
        if self.pod.is_none() && environment.contains_key("KUBERNETES_SERVICE_HOST") {
            self.pod = text(&["HOSTNAME"]);
        }
    }

    fn take_cgroup(&mut self, cgroup: &str) {
        let paths: Vec<&str> = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
        self.container_id = paths.iter().find_map(|path| container_id(path));
        // The unified hierarchy is the last line; on v1 hosts its path is `/`, and the longest path says more.
        self.cgroup_path = paths.into_iter().max_by_key(|path| path.len()).map(str::to_owned);
    }
}

/// Name and start time from `/proc/PID/stat`. The name may hold spaces and parentheses: it ends at the last one. It need not be
/// text, since the kernel cuts it after 15 bytes, also inside a character.
fn parse_stat(stat: &[u8]) -> Option<(String, u64)> {
    let stat = String::from_utf8_lossy(stat);
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // Field 22 of stat(5); `rest` begins at field 3.
    let start_ticks = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some((name.to_owned(), start_ticks))
}

/// Whole variables of an environment, as far as they are text.
fn parse_environment(environ: &[u8]) -> HashMap<&str, &str> {
    let variables = environ.split(|byte| *byte == 0).filter_map(|variable| str::from_utf8(variable).ok());
    variables.filter_map(|variable| variable.split_once('=')).collect()
}

fn read_at_most(path: &Path, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A process of another user reads as an empty environment: its rank is then not known.
    let _ = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    bytes
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(NAME_BYTES_MAX);
    text[..end].to_owned()
}

/// The 64 hexadecimal digits by which docker, containerd, CRI-O and podman name a container in its cgroup path.
fn container_id(path: &str) -> Option<String> {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words = path.rsplit(|c: char| !c.is_ascii_alphanumeric());
    words.find(is_id).map(str::to_owned)
}

#[cfg(test)]
mod tests;
