//! The environment that a program has now. `/proc/PID/environ` shows the memory that exec filled; what a program sets
//! later (`setenv`, `os.environ`) is in memory of its own, to which the C library's variable `environ` leads.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use bpf::DataSymbol;

use super::statement::{Statement, VARIABLES};
use crate::discover::{Mapping, mappings};

/// The names of the variable in glibc and musl.
const SYMBOLS: &[&str] = &["environ", "__environ"];
/// Variables that are looked at.
const VARIABLES_MAX: usize = 4096;
/// Bytes of one variable that are read; the wanted ones are shorter, and the rest is cut off.
const VARIABLE_BYTES: usize = 192;
/// Files whose symbols are cached.
const FILES_MAX: usize = 1024;

/// Reads the environments of processes, and caches where programs and C libraries keep them.
#[derive(Debug, Default)]
pub(crate) struct Environs {
    /// By device, inode and time of change.
    symbols: HashMap<(u64, u64, i64), Option<DataSymbol>>,
}

impl Environs {
    /// Reads what the environment of a process states now. `None` when it cannot be read: the process is gone or closed
    /// to us, or its program has no C library that keeps one.
    pub(crate) fn read(&mut self, pid: i32) -> Option<Statement> {
        let dir = Path::new("/proc").join(pid.to_string());
        let mappings = mappings(pid)?;
        let memory = File::open(dir.join("mem")).ok()?;
        // A program that refers to the variable may have a copy relocation: the variable then lies in its own memory,
        // and the C library uses it there.
        let of_program = File::open(dir.join("exe")).ok().and_then(|program| {
            let start = first_of_inode(&mappings, program.metadata().ok()?.ino())?;
            self.address(&program, start)
        });
        let address = of_program.or_else(|| {
            let library = mappings.iter().find(|mapping| mapping.offset == 0 && is_c_library(mapping))?;
            let file = library.open(&dir)?;
            self.address(&file, library.start)
        })?;
        Some(Statement::of_environment(&variables(&memory, address)?))
    }

    /// Where the variable of a file lies that is mapped from `start` on.
    fn address(&mut self, file: &File, start: u64) -> Option<u64> {
        let meta = file.metadata().ok()?;
        let key = (meta.dev(), meta.ino(), meta.mtime());
        if self.symbols.len() >= FILES_MAX {
            self.symbols.clear();
        }
        let symbol = *self.symbols.entry(key).or_insert_with(|| bpf::data_symbol(file, SYMBOLS).ok().flatten());
        let DataSymbol { address, base, is_fixed } = symbol?;
        // Else the load bias applies: symbols are relative to the address at which the file's first byte was mapped.
        if is_fixed { Some(address) } else { address.checked_sub(base)?.checked_add(start) }
    }
}

fn first_of_inode(mappings: &[Mapping], inode: u64) -> Option<u64> {
    mappings.iter().find(|mapping| mapping.inode == inode && mapping.offset == 0).map(|mapping| mapping.start)
}

/// `libc.so.6`, `libc-2.31.so`, `ld-musl-x86_64.so.1`.
fn is_c_library(mapping: &Mapping) -> bool {
    let name = mapping.name();
    let name = String::from_utf8_lossy(name.as_bytes());
    name.starts_with("libc.so") || (name.starts_with("libc-") && name.ends_with(".so")) || name.starts_with("ld-musl-")
}

/// The wanted variables of the environment that the pointer at `address` leads to, as `NAME=VALUE` with a zero at each
/// end. `None` when the memory cannot be read.
fn variables(memory: &File, address: u64) -> Option<Vec<u8>> {
    let mut list = pointer(memory, address)?;
    let mut text = Vec::new();
    for _ in 0..VARIABLES_MAX {
        let variable = pointer(memory, list)?;
        // environ(7): a null pointer ends the array.
        if variable == 0 {
            break;
        }
        // One that is being changed, or lies at the end of mapped memory, is left out.
        if let Some(variable) = wanted(memory, variable) {
            text.extend_from_slice(&variable);
            text.push(0);
        }
        list = list.checked_add(size_of::<u64>() as u64)?;
    }
    Some(text)
}

fn pointer(memory: &File, address: u64) -> Option<u64> {
    let mut bytes = [0; size_of::<u64>()];
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

fn wanted(memory: &File, address: u64) -> Option<Vec<u8>> {
    let mut bytes = [0; VARIABLE_BYTES];
    let read = memory.read_at(&mut bytes, address).ok()?;
    let text = bytes[..read].split(|byte| *byte == 0).next()?;
    let name = text.split(|byte| *byte == b'=').next()?;
    // Names that share their first 16 bytes are one name to the probes; here they are compared alike.
    let is_wanted = VARIABLES.iter().any(|known| known.as_bytes() == name) || name.starts_with(b"OMPI_COMM_WORLD_");
    is_wanted.then(|| text.to_vec())
}

#[cfg(test)]
mod tests {
    //! A real process that has changed its environment since it began.

    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_a_program_has_set_since_it_began_is_read() {
        let python = "import os, time; os.environ.update(RANK='5', WORLD_SIZE='8', LOCAL_RANK='1'); del os.environ['POD_NAME']; time.sleep(60)";
        let mut command = Command::new("python3");
        command.args(["-c", python]).env("RANK", "0").env("POD_NAME", "old").stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut environs = Environs::default();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut seen = None;
        while Instant::now() < deadline
            // While it changes, parts of both states are seen.
            && seen.as_ref().is_none_or(|s: &Statement| s.pod.is_some() || s.ranks.is_none_or(|ranks| ranks.rank != 5))
        {
            seen = environs.read(pid);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = seen.unwrap();
        let ranks = seen.ranks.unwrap();
        assert_eq!((ranks.rank, ranks.local_rank, ranks.world_size), (5, Some(1), Some(8)));
        assert_eq!(seen.pod, None);
        assert_eq!(environs.read(pid), None, "it is gone");
    }
}
