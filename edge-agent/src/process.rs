//! What is known of a process: its rank and job by its environment and NCCL, its container by its cgroup.
//!
//! Where sources differ, the latest statement wins: the environment the program has now, then the one it began with,
//! then the rank it gave to NCCL. The last is the rank in a communicator, which may be a part of the job: the largest
//! counts. It comes first when that communicator has more ranks than the environment says there are: what a worker has
//! inherited from the launcher of its node counts nodes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use event_schema::batch::ProcessInfo;

mod container;
pub(crate) mod environ;
pub(crate) mod sighting;
mod statement;

pub(crate) use sighting::Sighting;
pub use statement::{Ranks, Statement, VARIABLES};

/// Bytes of an environment that are read at most. It may be as large as the limit of exec; the wanted variables are
/// short.
const ENVIRON_BYTES_MAX: u64 = 1 << 20;

/// Facts about one process. Those that could not be read (it is gone, or another user's) are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Process (thread group) id in the host's namespace.
    pub pid: i32,
    /// Clock ticks since boot when it started: distinguishes it from a later process of the same number.
    pub start_ticks: u64,
    /// The kernel's name of its first thread; command lines may hold secrets and are not read.
    pub name: String,
    /// The environment its program began with, or that of the ancestor it was forked from.
    pub at_exec: Statement,
    /// The environment its program has now, which it may have changed since.
    pub now: Statement,
    /// What it gave to NCCL for its largest communicator.
    pub nccl: Option<Ranks>,
    /// Pod and namespace of its container, by another process there.
    pub of_container: Statement,
    /// By `/proc/PID/cgroup`; with several hierarchies the longest.
    pub cgroup_path: Option<String>,
    /// As its runtime shows it; absent outside of containers.
    pub container_id: Option<String>,
}

/// What gave the rank of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankSource {
    EnvironmentNow,
    EnvironmentAtExec,
    Nccl,
}

impl RankSource {
    /// As in `silver.processes`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EnvironmentNow => "environment",
            Self::EnvironmentAtExec => "environment at exec",
            Self::Nccl => "ncclCommInitRank",
        }
    }
}

impl Process {
    /// Reads what is known of a process now, with the memory that its program's environment was in at first: it may
    /// have been overwritten since. `None` when there is no such process. May hang with a process whose memory is
    /// locked.
    pub fn read(pid: i32) -> Option<Self> {
        let mut process = Self::glance(pid)?;
        process.at_exec = Statement::of_environment(&read_at_most(&dir_of(pid).join("environ"), ENVIRON_BYTES_MAX));
        Some(process)
    }

    /// Reads its name and cgroup alone.
    pub fn glance(pid: i32) -> Option<Self> {
        let Stat { name, start_ticks, .. } = Stat::read(pid)?;
        let mut process = Self { pid, start_ticks, name, ..Self::default() };
        let cgroup = fs::read(dir_of(pid).join("cgroup"));
        // One that has ended and is not reaped yet is shown in the root cgroup.
        if let Ok(cgroup) = cgroup
            && Self::living_start_of(pid) == Some(start_ticks)
        {
            process.take_cgroup(&String::from_utf8_lossy(&cgroup));
        }
        Some(process)
    }

    /// When a process started, in clock ticks since boot. `None` when there is no such process, or when it is a zombie.
    /// A process of which only the first thread has ended still lives.
    pub fn living_start_of(pid: i32) -> Option<u64> {
        Stat::read(pid).filter(|stat| !stat.has_ended).map(|stat| stat.start_ticks)
    }

    /// A child that was forked from it and has replaced nothing of what it inherited.
    pub fn forked(&self, pid: i32) -> Self {
        Self { pid, start_ticks: 0, ..self.clone() }
    }

    /// Takes over the cgroup that another look at it, or at its parent, has found, unless its own is known. True when
    /// it did.
    pub fn take_place(&mut self, other: &Self) -> bool {
        let is_taken = self.cgroup_path.is_none()
            && self.container_id.is_none()
            && (other.cgroup_path.is_some() || other.container_id.is_some());
        if is_taken {
            self.cgroup_path = other.cgroup_path.clone();
            self.container_id = other.container_id.clone();
        }
        is_taken
    }

    /// The rank by the source that counts, and which that is.
    pub fn ranks(&self) -> Option<(Ranks, RankSource)> {
        let now = self.now.ranks.map(|ranks| (ranks, RankSource::EnvironmentNow));
        let at_exec = self.at_exec.ranks.map(|ranks| (ranks, RankSource::EnvironmentAtExec));
        let stated = now.or(at_exec);
        let size = stated.and_then(|(ranks, _)| ranks.world_size);
        let nccl = self.nccl.map(|ranks| (ranks, RankSource::Nccl));
        // A communicator is no larger than its job.
        let of_more = nccl.filter(|(ranks, _)| size.is_some() && ranks.world_size > size);
        of_more.or(stated).or(nccl)
    }

    /// The rank that its environment states.
    pub fn stated_ranks(&self) -> Option<Ranks> {
        self.now.ranks.or(self.at_exec.ranks)
    }

    pub fn rank(&self) -> Option<i32> {
        self.ranks().map(|(ranks, _)| ranks.rank)
    }

    pub fn job_id(&self) -> Option<&str> {
        self.stated(|statement| statement.job_id.as_deref())
    }

    pub fn pod(&self) -> Option<&str> {
        self.stated(|statement| statement.pod.as_deref())
    }

    pub fn namespace(&self) -> Option<&str> {
        self.stated(|statement| statement.namespace.as_deref())
    }

    fn stated<'a>(&'a self, of: fn(&'a Statement) -> Option<&'a str>) -> Option<&'a str> {
        [&self.now, &self.at_exec, &self.of_container].into_iter().find_map(of)
    }

    /// What every event of the process carries. `cgroup_id` is the event's own.
    pub fn info(&self, cgroup_id: i64) -> ProcessInfo<'_> {
        let ranks = self.ranks().map(|(ranks, _)| ranks);
        ProcessInfo {
            rank: ranks.map(|ranks| ranks.rank),
            local_rank: ranks.and_then(|ranks| ranks.local_rank),
            world_size: ranks.and_then(|ranks| ranks.world_size),
            job_id: self.job_id(),
            cgroup_id,
            container_id: self.container_id.as_deref(),
            pod: self.pod(),
            namespace: self.namespace(),
        }
    }

    fn take_cgroup(&mut self, cgroup: &str) {
        let paths: Vec<&str> = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
        self.container_id = paths.iter().find_map(|path| container::container_id(path));
        // The unified hierarchy is the last line; on v1 hosts its path is `/`, and the longest path is the most
        // specific.
        self.cgroup_path = paths.into_iter().max_by_key(|path| path.len()).map(str::to_owned);
    }
}

fn dir_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    name: String,
    /// Clock ticks since boot.
    pub(crate) start_ticks: u64,
    pub(crate) address_space_bytes: u64,
    /// A zombie: all its threads have ended, and its parent has not reaped it yet.
    has_ended: bool,
    flags: u64,
}

impl Stat {
    /// `None` when there is no such process.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name may hold spaces and parentheses: it ends at the last one. It need not be text, since the kernel cuts it
    /// after 15 bytes, also inside a character.
    fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let (head, rest) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        // Fields of stat(5), 3 to 23; `rest` begins at the third.
        let fields: Vec<&str> = rest.split_whitespace().take(21).collect();
        let state = *fields.first()?;
        let threads = number(&fields, 20)?;
        Some(Self {
            name: name.to_owned(),
            start_ticks: number(&fields, 22)?,
            address_space_bytes: number(&fields, 23)?,
            // A process whose first thread has ended while others run is shown as a zombie as well; `num_threads`
            // distinguishes it.
            has_ended: matches!(state, "Z" | "X" | "x") && threads <= 1,
            flags: number(&fields, 9)?,
        })
    }

    /// True of a thread of the kernel, which has no memory of its own.
    pub(crate) fn is_kernel_thread(&self) -> bool {
        // `include/linux/sched.h`; field 9 of stat(5) shows the kernel's task flags.
        const PF_KTHREAD: u64 = 0x0020_0000;
        self.flags & PF_KTHREAD != 0
    }
}

/// A field of `/proc/PID/stat` by its number in stat(5); `fields` begin at the third.
fn number(fields: &[&str], field: usize) -> Option<u64> {
    fields.get(field - 3)?.parse().ok()
}

fn read_at_most(path: &Path, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A process of another user reads as an empty environment: its rank is then not known.
    let _ = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    bytes
}

#[cfg(test)]
mod tests;
