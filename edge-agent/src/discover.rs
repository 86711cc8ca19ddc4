//! Which processes use CUDA or NCCL, and through which library files: found in the memory maps of `/proc`.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpf::LibraryKind;

use crate::process::Process;

mod learn;
mod maps;
mod scout;
mod survey;
mod untraced;

pub(crate) use maps::{Mapping, mappings};
pub(crate) use scout::{Alive, Contact, Found, Scout};
pub use survey::{MappedLibrary, survey};
pub(crate) use untraced::Untraced;

/// Libraries taken from one process. None that trains maps more than a few, and each costs the kernel a set of probes.
const LIBRARIES_MAX: usize = 32;
/// A library that so many scans in a row have not seen is mapped by nobody. One may miss a process that was just being made.
const SCANS_UNSEEN: u64 = 2;
/// The first failure may be that the process ended, and another one leads to the file: only the next ones are waited after.
const TRY_AGAIN_SECONDS: [u64; 7] = [0, 2, 4, 8, 16, 32, 64];

/// A library file, told apart by device and inode: containers have many paths to the same file, and many files at one path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileKey(String);

/// A library that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLibrary {
    pub key: FileKey,
    pub kind: LibraryKind,
    /// Paths that may reach the file from here, through a process that maps it; the likeliest first.
    pub paths: Vec<PathBuf>,
    /// It has no name any more, and is reached through the mapping itself, by those who may.
    pub is_deleted: bool,
}

/// A process that maps such a library. The start time tells it from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundProcess {
    pub pid: i32,
    pub start_ticks: u64,
}

impl FoundProcess {
    /// True while it is the one whose maps were read, and lives. One that has ended keeps its number until its parent asks for its
    /// status, which may be never. Its maps are not asked for here: reading them may hang with the process.
    pub fn is_still_there(self) -> bool {
        Process::living_start_of(self.pid) == Some(self.start_ticks)
    }
}

/// What was found for the first time, or is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    pub libraries: Vec<FoundLibrary>,
    pub processes: Vec<FoundProcess>,
    /// Every process looked at that maps such a library, new or not.
    pub users: Vec<FoundProcess>,
}

/// What a look at every process has shown.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Start times of the processes there were, if all could be looked at.
    pub alive: Option<HashMap<i32, u64>>,
    /// Libraries that nobody maps any more. They are forgotten.
    pub gone: Vec<FileKey>,
}

/// Why a library has no probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file can never be probed.
    File,
    /// It may be another time: the process that led to it has ended, perhaps.
    Passing,
    /// Too many have them.
    NoRoom,
}

/// Remembers what was found before.
#[derive(Debug)]
pub struct Discovery {
    own_pid: i32,
    /// How long a library that nobody maps is remembered.
    keep: Duration,
    libraries: HashMap<FileKey, Known>,
    processes: HashMap<i32, User>,
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

/// A library that was found.
#[derive(Debug, Default)]
struct Known {
    /// Number of the last scan before or in which it was seen.
    seen: u64,
    seen_at: Option<Instant>,
    failures: usize,
    is_told: bool,
    /// When it is to be found again, after it could not be probed.
    again: Option<Instant>,
    /// Why it has no probes; set once the reason has been reported.
    reason: Option<String>,
}

impl Discovery {
    /// `own_pid` is never found: the agent does not trace itself.
    pub fn new(own_pid: i32, keep: Duration) -> Self {
        Self {
            own_pid,
            keep,
            libraries: HashMap::new(),
            processes: HashMap::new(),
            scan: 0,
            is_whole: true,
            alive: HashMap::new(),
        }
    }

    /// Begins a scan: the processes to look at, before it ends.
    pub fn begin_scan(&mut self) -> VecDeque<i32> {
        let pids = list_pids();
        self.scan += 1;
        self.is_whole = !pids.is_empty();
        self.alive.clear();
        pids
    }

    /// Ends a scan. One that could not look everywhere, for want of descriptors perhaps, says of nobody that he is gone.
    pub fn end_scan(&mut self, now: Instant) -> Scanned {
        let (scan, alive) = (self.scan, std::mem::take(&mut self.alive));
        if !self.is_whole {
            self.libraries.values_mut().for_each(|known| known.seen = scan);
            return Scanned::default();
        }
        self.processes.retain(|pid, _| alive.contains_key(pid));
        let keep = self.keep;
        let is_gone = |known: &Known| {
            let is_old = known.seen_at.is_none_or(|at| now.saturating_duration_since(at) >= keep);
            known.seen + SCANS_UNSEEN <= scan && is_old
        };
        let gone = self.libraries.extract_if(|_, known| is_gone(known)).map(|(key, _)| key).collect();
        Scanned { alive: Some(alive), gone }
    }

    /// Looks at some processes: a part of a scan, or those that the probes gave notice of.
    pub fn look(&mut self, pids: impl IntoIterator<Item = i32>, now: Instant, findings: &mut Findings) {
        for pid in pids {
            self.look_at(pid, now, findings);
        }
    }

    /// A library has probes.
    pub fn probed(&mut self, library: &FileKey) {
        if let Some(known) = self.libraries.get_mut(library) {
            (known.reason, known.is_told) = (None, false);
        }
    }

    /// Processes whose calls into a library are not recorded, with the reason.
    pub fn untraced(&self) -> impl Iterator<Item = (FoundProcess, &str)> {
        let reason = |user: &User| {
            let mut libraries = user.libraries.iter().filter_map(|key| self.libraries.get(key));
            libraries.find_map(|library| library.reason.as_deref())
        };
        self.processes.iter().filter_map(move |(pid, user)| {
            Some((FoundProcess { pid: *pid, start_ticks: user.start_ticks }, reason(user)?))
        })
    }

    /// A library could not be probed: it is found again later, unless it never can be. True when that is to be told, once.
    pub fn failed(&mut self, library: &FileKey, fault: Fault, reason: &str, now: Instant) -> bool {
        let Some(known) = self.libraries.get_mut(library) else { return false };
        let pause = TRY_AGAIN_SECONDS[known.failures.min(TRY_AGAIN_SECONDS.len() - 1)];
        known.again = (fault != Fault::File).then(|| now + Duration::from_secs(pause));
        known.failures += 1;
        let is_told = !known.is_told && (fault != Fault::Passing || known.failures > 1);
        known.is_told |= is_told;
        if known.is_told {
            known.reason = Some(reason.to_owned());
        }
        is_told
    }

    fn look_at(&mut self, pid: i32, now: Instant, findings: &mut Findings) {
        // Read before the maps, so that who has the number later is not mistaken for who had these maps.
        let start_ticks = Process::start_of(pid);
        self.alive.extend(start_ticks.map(|start_ticks| (pid, start_ticks)));
        if pid == self.own_pid {
            return;
        }
        let maps = match maps::open(pid) {
            Ok(maps) => maps,
            Err(error) => {
                // Processes end while we look at them, and other users' may be closed to us: both have nothing to find.
                let is_expected = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                    || error.raw_os_error() == Some(nix::libc::ESRCH);
                self.is_whole &= is_expected;
                return;
            }
        };
        let dir = Path::new("/proc").join(pid.to_string());
        let mut mapped = Vec::new();
        for (key, kind, mapping) in libraries(maps) {
            mapped.push(key.clone());
            if self.is_to_be_found(&key, now) {
                let paths = mapping.paths(&maps::root_of(&dir)).into_iter().map(|path| dir.join(path)).collect();
                findings.libraries.push(FoundLibrary { key, kind, paths, is_deleted: mapping.is_deleted });
            }
        }
        let uses = !mapped.is_empty();
        let start_ticks = start_ticks.unwrap_or(0);
        let was_found = self.processes.get(&pid).is_some_and(|user| user.start_ticks == start_ticks);
        if !uses && was_found && Process::living_start_of(pid) == Some(start_ticks) {
            // Its first thread has ended, which takes the maps out of sight; the others go on using what it has mapped.
            self.is_whole = false;
        }
        if uses {
            let process = FoundProcess { pid, start_ticks };
            self.processes.insert(pid, User { start_ticks, libraries: mapped });
            findings.users.push(process);
            findings.processes.extend((!was_found).then_some(process));
        }
    }

    /// Notes that a library was seen. True for one that is new, or due to be tried again.
    fn is_to_be_found(&mut self, key: &FileKey, now: Instant) -> bool {
        let scan = self.scan;
        if let Some(known) = self.libraries.get_mut(key) {
            (known.seen, known.seen_at) = (scan, Some(now));
            return known.again.take_if(|at| *at <= now).is_some();
        }
        self.libraries.insert(key.clone(), Known { seen: scan, seen_at: Some(now), ..Known::default() });
        true
    }
}

fn list_pids() -> VecDeque<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return VecDeque::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Executable mappings of probed libraries, once per file.
fn libraries(maps: impl BufRead) -> Vec<(FileKey, LibraryKind, Mapping)> {
    let mut found: Vec<(FileKey, LibraryKind, Mapping)> = Vec::new();
    maps::read(maps, |mapping| {
        if let Some(kind) = kind_of(&mapping) {
            let key = FileKey(format!("{} {}", mapping.device, mapping.inode));
            if !found.iter().any(|(known, ..)| *known == key) {
                found.push((key, kind, mapping));
            }
        }
        found.len() < LIBRARIES_MAX
    });
    found
}

fn kind_of(mapping: &Mapping) -> Option<LibraryKind> {
    let kind = LibraryKind::of_file_name(&mapping.name().to_string_lossy());
    kind.filter(|_| mapping.is_executable)
}

#[cfg(test)]
mod tests;
