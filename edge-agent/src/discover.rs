//! Which processes use CUDA or NCCL, and through which library files: found in the memory maps of `/proc`.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpf::LibraryKind;

use crate::process::{Process, Stat};

mod learn;
mod maps;
mod reach;
mod scout;
mod survey;
mod untraced;

pub(crate) use maps::{Mapping, mappings};
pub(crate) use scout::{Alive, Contact, Found, Scout};
pub use survey::{MappedLibrary, survey};
pub(crate) use untraced::Untraced;

/// Libraries taken from one process. A training process maps few, and each costs the kernel a set of probes.
const LIBRARIES_MAX: usize = 32;
/// Scans in a row that must not have seen a library before it counts as unused. A single scan may miss a process that
/// is being made.
const SCANS_UNSEEN: u64 = 2;
/// One scan of this many reads the maps of every process, also of those that seem unchanged.
const SCANS_TO_LOOK_AT_ALL: u64 = 15;
/// Pauses after failures, in seconds. None after the first: the process may have ended, and another one may lead to the
/// file.
const TRY_AGAIN_SECONDS: [u64; 7] = [0, 2, 4, 8, 16, 32, 64];

/// A library file, identified by device and inode: containers have many paths to the same file, and many files at one
/// path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileKey(String);

/// A library that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLibrary {
    /// By which [`Discovery::probed`] and [`Discovery::failed`] name it.
    pub key: FileKey,
    /// By the name of the file.
    pub kind: LibraryKind,
    /// Paths that may reach the file from here, through a process that maps it; the likeliest first.
    pub paths: Vec<PathBuf>,
    /// It has no name any more, and is reached through the mapping itself, with CAP_CHECKPOINT_RESTORE or
    /// CAP_SYS_ADMIN.
    pub is_deleted: bool,
}

/// A process that maps such a library. The start time distinguishes it from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundProcess {
    /// Process (thread group) id in the host's namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl FoundProcess {
    /// True while it is the process whose maps were read, and lives. One that has ended keeps its number until its
    /// parent reaps it, which may never happen. Its maps are not read here: that may block with the process.
    pub fn is_still_there(self) -> bool {
        Process::living_start_of(self.pid) == Some(self.start_ticks)
    }
}

/// What was found for the first time, or is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Library files to probe.
    pub libraries: Vec<FoundLibrary>,
    /// Processes to trace.
    pub processes: Vec<FoundProcess>,
    /// Every process looked at that maps such a library, new or not.
    pub users: Vec<FoundProcess>,
}

/// What a look at every process has shown.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Start times of the processes there were, if all could be looked at.
    pub alive: Option<HashMap<i32, u64>>,
    /// Libraries that no process maps any more. They have been dropped.
    pub gone: Vec<FileKey>,
}

/// Why a library has no probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file itself cannot be probed; another attempt fails as well.
    File,
    /// Another attempt may succeed: perhaps the process that led to the file has ended.
    Passing,
    /// Too many files have probes.
    NoRoom,
}

/// Keeps what was found before.
#[derive(Debug)]
pub struct Discovery {
    own_pid: i32,
    /// How long a library that no process maps is kept.
    keep: Duration,
    libraries: HashMap<FileKey, Known>,
    processes: HashMap<i32, User>,
    /// Processes whose maps were read.
    looked_at: HashMap<i32, Size>,
    /// Number of the scan that is under way, or was last.
    scan: u64,
    /// Every process could be looked at, but those that are closed to us or ended meanwhile.
    is_whole: bool,
    alive: HashMap<i32, u64>,
}

/// A process that maps probed libraries.
#[derive(Debug)]
struct User {
    /// So that a reused number is a new process.
    start_ticks: u64,
    libraries: Vec<FileKey>,
}

/// A process and the size of its address space: while both are what they were, it has hardly mapped anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    start_ticks: u64,
    bytes: u64,
}

/// Why a process is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A part of a scan: its maps are not read when it seems to have changed nothing.
    Scan,
    /// The probes gave notice of it.
    Notice,
}

/// A library that was found.
#[derive(Debug, Default)]
struct Known {
    /// Number of the last scan before or in which it was seen.
    seen: u64,
    seen_at: Option<Instant>,
    failures: usize,
    is_new: bool,
    /// When it is to be found again, after it could not be probed.
    again: Option<Instant>,
    /// Why it has no probes; set once the reason has been reported.
    reason: Option<String>,
}

impl Known {
    /// True when no process maps it since the last scans, and it was kept long enough.
    fn is_gone(&self, scan: u64, keep: Duration, now: Instant) -> bool {
        let is_old = self.seen_at.is_none_or(|at| now.saturating_duration_since(at) >= keep);
        self.seen + SCANS_UNSEEN <= scan && is_old
    }

    /// True when it could not be probed before, and is to be tried again now.
    fn is_due(&self, now: Instant) -> bool {
        self.again.is_some_and(|at| at <= now)
    }

    /// Notes the scan and the time at which it was seen.
    fn note(&mut self, scan: u64, now: Instant) {
        self.seen = scan;
        self.seen_at = Some(now);
    }
}

impl Discovery {
    /// `own_pid` is never found: the agent does not trace itself.
    pub fn new(own_pid: i32, keep: Duration) -> Self {
        Self {
            own_pid,
            keep,
            libraries: HashMap::new(),
            processes: HashMap::new(),
            looked_at: HashMap::new(),
            scan: 0,
            is_whole: true,
            alive: HashMap::new(),
        }
    }

    /// Begins a scan: the processes to look at, before it ends.
    pub fn begin_scan(&mut self) -> VecDeque<i32> {
        let pids = list_pids();
        self.scan += 1;
        // `/proc` lists this process at least: an empty list means that it could not be read.
        self.is_whole = !pids.is_empty();
        self.alive.clear();
        pids
    }

    /// Ends a scan. One that could not look everywhere, for want of descriptors perhaps, reports no process as gone.
    pub fn end_scan(&mut self, now: Instant) -> Scanned {
        let scan = self.scan;
        let alive = std::mem::take(&mut self.alive);
        if !self.is_whole {
            // A library that this scan may not have reached does not age by it.
            self.libraries.values_mut().for_each(|known| known.seen = scan);
            return Scanned::default();
        }
        self.processes.retain(|pid, _| alive.contains_key(pid));
        self.looked_at.retain(|pid, _| alive.contains_key(pid));
        let keep = self.keep;
        let gone = self.libraries.extract_if(|_, known| known.is_gone(scan, keep, now));
        Scanned { gone: gone.map(|(key, _)| key).collect(), alive: Some(alive) }
    }

    /// Looks at some processes.
    pub fn look(
        &mut self,
        pids: impl IntoIterator<Item = i32>,
        occasion: Occasion,
        now: Instant,
        findings: &mut Findings,
    ) {
        for pid in pids {
            self.look_at(pid, occasion, now, findings);
        }
    }

    /// A library has probes.
    pub fn probed(&mut self, library: &FileKey) {
        if let Some(known) = self.libraries.get_mut(library) {
            known.reason = None;
            known.is_new = false;
        }
    }

    /// Processes of which no call is recorded although they map libraries, with the reason. A process that maps at
    /// least one library with probes is traced.
    pub fn untraced(&self) -> impl Iterator<Item = (FoundProcess, &str)> {
        self.processes.iter().filter_map(move |(pid, user)| {
            Some((FoundProcess { pid: *pid, start_ticks: user.start_ticks }, self.reason(user)?))
        })
    }

    /// Why the first of a process's libraries has no probes. `None` when one of them has, or no reason was reported
    /// yet.
    fn reason(&self, user: &User) -> Option<&str> {
        let reasons = user.libraries.iter().map(|key| self.libraries.get(key)?.reason.as_deref());
        reasons.collect::<Option<Vec<_>>>()?.first().copied()
    }

    /// A library could not be probed: it is found again later, unless it never can be. True when that is to be logged,
    /// once.
    pub fn failed(&mut self, library: &FileKey, fault: Fault, reason: &str, now: Instant) -> bool {
        let Some(known) = self.libraries.get_mut(library) else { return false };
        // Exponential backoff, from the second failure on.
        let pause = TRY_AGAIN_SECONDS[known.failures.min(TRY_AGAIN_SECONDS.len() - 1)];
        known.again = (fault != Fault::File).then(|| now + Duration::from_secs(pause));
        known.failures += 1;
        // The first passing failure is not reported: it is the usual one, of a process that has just ended.
        let is_new = !known.is_new && (fault != Fault::Passing || known.failures > 1);
        known.is_new |= is_new;
        if known.is_new {
            known.reason = Some(reason.to_owned());
        }
        is_new
    }

    fn look_at(&mut self, pid: i32, occasion: Occasion, now: Instant, findings: &mut Findings) {
        // Read before the maps: a later process of this number is not mistaken for the one that had these maps.
        let stat = Stat::read(pid);
        self.alive.extend(stat.as_ref().map(|stat| (pid, stat.start_ticks)));
        if pid == self.own_pid || stat.as_ref().is_some_and(Stat::is_kernel_thread) {
            return;
        }
        // Without a stat the process is gone: its maps cannot be opened either.
        let start_ticks = stat.as_ref().map_or(0, |stat| stat.start_ticks);
        let process = FoundProcess { pid, start_ticks };
        let size = Size { start_ticks, bytes: stat.map_or(0, |stat| stat.address_space_bytes) };
        if occasion == Occasion::Scan && self.seems_unchanged(pid, size, now) {
            if self.goes_on_using(process, now) {
                findings.users.push(process);
            }
            return;
        }
        let Some(Mapped { libraries, has_mappings }) = self.mapped(pid) else { return };
        self.looked_at.insert(pid, size);
        if !has_mappings && Process::living_start_of(pid) == Some(start_ticks) {
            // Its first thread has ended, which takes the maps out of sight; the others go on using what it has mapped.
            self.goes_on_using(process, now);
            return;
        }
        self.take_libraries(process, libraries, now, findings);
    }

    /// What a process has mapped. `None` when that cannot be seen.
    fn mapped(&mut self, pid: i32) -> Option<Mapped> {
        match maps::open(pid) {
            Ok(maps) => Some(libraries(maps)),
            Err(error) => {
                // The process has ended meanwhile (ENOENT, or ESRCH once the file is open), or belongs to another user:
                // neither makes the scan incomplete.
                let is_expected = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                    || error.raw_os_error() == Some(nix::libc::ESRCH);
                self.is_whole &= is_expected;
                None
            }
        }
    }

    fn take_libraries(
        &mut self,
        process: FoundProcess,
        libraries: Vec<(FileKey, LibraryKind, Mapping)>,
        now: Instant,
        findings: &mut Findings,
    ) {
        let FoundProcess { pid, start_ticks } = process;
        // It has replaced its image, or unmapped the library (dlclose).
        if libraries.is_empty() {
            self.processes.remove(&pid);
            return;
        }
        let dir = Path::new("/proc").join(pid.to_string());
        let mut mapped = Vec::new();
        for (key, kind, mapping) in libraries {
            mapped.push(key.clone());
            if self.is_to_be_found(&key, now) {
                let paths = mapping.paths(&maps::root_of(&dir)).into_iter().map(|path| dir.join(path)).collect();
                findings.libraries.push(FoundLibrary { key, kind, paths, is_deleted: mapping.is_deleted });
            }
        }
        let before = self.processes.insert(pid, User { start_ticks, libraries: mapped });
        findings.users.push(process);
        findings.processes.extend(before.is_none_or(|user| user.start_ticks != start_ticks).then_some(process));
    }

    /// True when the maps of a process need not be read again now.
    fn seems_unchanged(&self, pid: i32, size: Size, now: Instant) -> bool {
        // Mapping a library enlarges the address space. One mapped in the place of another of equal size is found by
        // the scans that read all maps.
        if self.scan.is_multiple_of(SCANS_TO_LOOK_AT_ALL) || self.looked_at.get(&pid) != Some(&size) {
            return false;
        }
        let mut libraries = self.processes.get(&pid).into_iter().flat_map(|user| &user.libraries);
        // A library that was dropped is found again only by reading the maps.
        !libraries.any(|key| self.libraries.get(key).is_none_or(|known| known.is_due(now)))
    }

    /// Notes that a process still maps what it did. False when that was nothing.
    fn goes_on_using(&mut self, process: FoundProcess, now: Instant) -> bool {
        let user = self.processes.get(&process.pid).filter(|user| user.start_ticks == process.start_ticks);
        for key in user.into_iter().flat_map(|user| &user.libraries) {
            if let Some(known) = self.libraries.get_mut(key) {
                known.note(self.scan, now);
            }
        }
        user.is_some()
    }

    /// Notes that a library was seen. True for one that is new, or due to be tried again.
    fn is_to_be_found(&mut self, key: &FileKey, now: Instant) -> bool {
        let scan = self.scan;
        if let Some(known) = self.libraries.get_mut(key) {
            known.note(scan, now);
            return known.again.take_if(|at| *at <= now).is_some();
        }
        self.libraries.insert(key.clone(), Known { seen: scan, seen_at: Some(now), ..Known::default() });
        true
    }
}

fn list_pids() -> VecDeque<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return VecDeque::new() };
    // proc(5): the entries that are numbers are processes; threads are not listed.
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// What is to be seen in the maps of a process.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mapped {
    /// Executable mappings of probed libraries, once per file.
    libraries: Vec<(FileKey, LibraryKind, Mapping)>,
    /// There is at least one mapping, of any kind.
    has_mappings: bool,
}

fn libraries(maps: impl BufRead) -> Mapped {
    let mut found: Vec<(FileKey, LibraryKind, Mapping)> = Vec::new();
    let lines = maps::read(maps, may_be_of_library, |mapping| {
        if let Some(kind) = kind_of(&mapping) {
            let key = FileKey(format!("{} {}", mapping.device, mapping.inode));
            if !found.iter().any(|(known, ..)| *known == key) {
                found.push((key, kind, mapping));
            }
        }
        // False ends the reading: at the limit the rest of the maps is of no use.
        found.len() < LIBRARIES_MAX
    });
    Mapped { libraries: found, has_mappings: lines > 0 }
}

/// Whether it is worth taking a line of maps apart: a process has hundreds of them, and few are executable mappings of
/// a file with such a name.
fn may_be_of_library(line: &[u8]) -> bool {
    let permissions = line.iter().position(|byte| *byte == b' ').map_or(0, |space| space + 1);
    // `r-xp`: the third letter is the right to execute. Only mapped code can be called.
    if line.get(permissions + 2) != Some(&b'x') {
        return false;
    }
    let name = line.iter().rposition(|byte| *byte == b'/').map_or(line, |slash| &line[slash + 1..]);
    // `libcuda` is also the beginning of `libcudart`; `kind_of` examines the whole name.
    name.starts_with(b"libcuda") || name.starts_with(b"libnccl")
}

fn kind_of(mapping: &Mapping) -> Option<LibraryKind> {
    let kind = LibraryKind::of_file_name(&mapping.name().to_string_lossy());
    kind.filter(|_| mapping.is_executable)
}

#[cfg(test)]
mod tests;
