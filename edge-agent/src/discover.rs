//! Which processes use CUDA or NCCL, and through which library files: found in the memory maps of `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use bpf::LibraryKind;

use crate::process::Process;

/// A library file, told apart by device and inode: containers have many paths to the same file, and many files at one path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileKey(String);

/// A library that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLibrary {
    pub key: FileKey,
    pub kind: LibraryKind,
    /// A path that reaches the file from here, through the root of a process that maps it.
    pub path: PathBuf,
}

/// What a scan has found for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    pub libraries: Vec<FoundLibrary>,
    /// Processes that map such a library.
    pub pids: Vec<i32>,
}

/// Remembers what earlier scans have found.
#[derive(Debug)]
pub struct Discovery {
    own_pid: i32,
    libraries: HashSet<FileKey>,
    /// Process and start time, so that a reused number is a new process.
    processes: HashMap<i32, u64>,
}

impl Discovery {
    /// `own_pid` is never found: the agent does not trace itself.
    pub fn new(own_pid: i32) -> Self {
        Self { own_pid, libraries: HashSet::new(), processes: HashMap::new() }
    }

    /// Looks at every process.
    pub fn scan(&mut self) -> Findings {
        let pids = list_pids();
        let alive: HashSet<i32> = pids.iter().copied().collect();
        self.processes.retain(|pid, _| alive.contains(pid));
        let mut findings = Findings::default();
        for pid in pids {
            self.look_at(pid, &mut findings);
        }
        findings
    }

    /// Looks at some processes: those that the probes gave notice of.
    pub fn look(&mut self, pids: &[i32]) -> Findings {
        let mut findings = Findings::default();
        for pid in pids {
            self.look_at(*pid, &mut findings);
        }
        findings
    }

    /// True while a found process is the one whose maps were read.
    pub fn is_still_there(&self, pid: i32) -> bool {
        self.processes.get(&pid) == Process::start_of(pid).as_ref()
    }

    /// A library that could not be probed is found again by the next scan.
    pub fn forget(&mut self, library: &FoundLibrary) {
        self.libraries.remove(&library.key);
    }

    fn look_at(&mut self, pid: i32, findings: &mut Findings) {
        if pid == self.own_pid {
            return;
        }
        // Read before the maps, so that who has the number later is not mistaken for who had these maps.
        let started = Process::start_of(pid).unwrap_or(0);
        // Processes end while we look at them, and other users' may be closed to us: both read as nothing.
        let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return };
        let mut uses = false;
        for (key, kind, path) in libraries(&maps) {
            uses = true;
            if !self.libraries.contains(&key) {
                let path = Path::new("/proc").join(pid.to_string()).join("root").join(path.trim_start_matches('/'));
                self.libraries.insert(key.clone());
                findings.libraries.push(FoundLibrary { key, kind, path });
            }
        }
        if uses && self.processes.insert(pid, started) != Some(started) {
            findings.pids.push(pid);
        }
    }
}

fn list_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Executable mappings of probed libraries, once per file. A deleted file has no path that reaches it.
fn libraries(maps: &str) -> Vec<(FileKey, LibraryKind, &str)> {
    let mut found: Vec<(FileKey, LibraryKind, &str)> = Vec::new();
    for line in maps.lines() {
        // address perms offset device inode path, the last after padding.
        let mut words = line.splitn(6, ' ');
        let (_, permissions, _, device, inode) = (words.next(), words.next(), words.next(), words.next(), words.next());
        let (Some(permissions), Some(device), Some(inode)) = (permissions, device, inode) else { continue };
        let path = words.next().unwrap_or_default().trim_start();
        if !permissions.contains('x') || !path.starts_with('/') || path.ends_with(" (deleted)") {
            continue;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let Some(kind) = LibraryKind::of_file_name(name) else { continue };
        let key = FileKey(format!("{device} {inode}"));
        if !found.iter().any(|(known, ..)| *known == key) {
            found.push((key, kind, path));
        }
    }
    found
}

#[cfg(test)]
mod tests;
