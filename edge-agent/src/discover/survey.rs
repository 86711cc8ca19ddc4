//! A look at the processes of this host from outside an agent: which libraries are used, and whether each could be
//! probed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use bpf::LibraryKind;
use service_kit::run::in_a_line;

use super::reach::open;
use super::{FileKey, FoundLibrary, libraries, maps};

/// A probed library that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedLibrary {
    /// Of the process, in the namespace of the process file system that was read.
    pub pid: i32,
    /// The kernel's name of the process.
    pub process: String,
    /// By the name of the file.
    pub kind: LibraryKind,
    /// Why the file cannot be probed; absent when it can be.
    pub fault: Option<String>,
}

/// The probed libraries that processes have mapped. Processes whose maps cannot be read are left out. `proc` is where
/// the process file system is mounted.
pub fn survey(proc: &Path) -> Vec<MappedLibrary> {
    let mut faults: HashMap<FileKey, Option<String>> = HashMap::new();
    let mut mapped = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let dir = entry.path();
        // Processes end while they are looked at.
        let Ok(file) = File::open(dir.join("maps")) else { continue };
        let process = fs::read_to_string(dir.join("comm")).unwrap_or_default().trim_end().to_owned();
        for (key, kind, mapping) in libraries(BufReader::new(file)).libraries {
            let paths = mapping.paths(&maps::root_of(&dir)).into_iter().map(|path| dir.join(path)).collect();
            let found = FoundLibrary { key: key.clone(), kind, paths, is_deleted: mapping.is_deleted };
            // Once per file: its symbol tables are read for it, and any number of processes may map the same file.
            let fault = faults.entry(key).or_insert_with(|| fault_of(&found)).clone();
            mapped.push(MappedLibrary { pid, process: process.clone(), kind, fault });
        }
    }
    mapped
}

fn fault_of(found: &FoundLibrary) -> Option<String> {
    open(found).and_then(bpf::LibraryFile::plan).err().map(|error| in_a_line(&error))
}
