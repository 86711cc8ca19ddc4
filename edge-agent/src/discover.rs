//! Which processes use CUDA or NCCL, and through which library files: found in the memory maps of `/proc`.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bpf::LibraryKind;

use crate::process::Process;

/// Libraries taken from one process. None that trains maps more than a few, and each costs the kernel a set of probes.
const LIBRARIES_MAX: usize = 32;
/// Mappings of one process that are looked at: many times what one that trains has.
const MAPPINGS_MAX: usize = 1 << 18;

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

    /// True while a found process is the one whose maps were read, and lives. One that has ended keeps its number until its parent
    /// asks for its status, which may be never; its maps are empty.
    pub fn is_still_there(&self, pid: i32) -> bool {
        self.processes.get(&pid) == Process::start_of(pid).as_ref() && has_maps(pid)
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
        let Ok(maps) = File::open(maps_of(pid)) else { return };
        let mut uses = false;
        for (key, kind, path) in libraries(BufReader::new(maps)) {
            uses = true;
            if !self.libraries.contains(&key) {
                let path = Path::new("/proc").join(pid.to_string()).join("root").join(path);
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

fn maps_of(pid: i32) -> String {
    format!("/proc/{pid}/maps")
}

fn has_maps(pid: i32) -> bool {
    File::open(maps_of(pid)).and_then(|mut maps| maps.read(&mut [0])).is_ok_and(|bytes| bytes > 0)
}

/// Executable mappings of probed libraries, once per file, with their paths below the process's root.
fn libraries(mut maps: impl BufRead) -> Vec<(FileKey, LibraryKind, PathBuf)> {
    let mut found: Vec<(FileKey, LibraryKind, PathBuf)> = Vec::new();
    let mut line = Vec::new();
    for _ in 0..MAPPINGS_MAX {
        line.clear();
        // A process that ends meanwhile has no more maps.
        if !maps.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) || found.len() >= LIBRARIES_MAX {
            break;
        }
        let Some((key, kind, path)) = library(line.trim_ascii_end()) else { continue };
        if !found.iter().any(|(known, ..)| *known == key) {
            found.push((key, kind, path.to_owned()));
        }
    }
    found
}

/// The library that one line of maps is an executable mapping of. A deleted file has no path that reaches it.
fn library(line: &[u8]) -> Option<(FileKey, LibraryKind, &Path)> {
    // address perms offset device inode path, the last after padding. A path is bytes; all before it is ASCII.
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (_, permissions, _) = (words.next()?, words.next()?, words.next()?);
    let (device, inode) = (words.next()?, words.next()?);
    let path = words.next()?.trim_ascii_start().strip_prefix(b"/")?;
    if !permissions.contains(&b'x') || path.ends_with(b" (deleted)") {
        return None;
    }
    let path = Path::new(OsStr::from_bytes(path));
    let kind = LibraryKind::of_file_name(&path.file_name()?.to_string_lossy())?;
    let key = FileKey(format!("{} {}", String::from_utf8_lossy(device), String::from_utf8_lossy(inode)));
    Some((key, kind, path))
}

#[cfg(test)]
mod tests;
