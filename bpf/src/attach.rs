//! Attaches the rows of the probe table to one library file: all its functions in one link where the kernel can.
//!
//! The unit is the file, not the process: a probe fires in every process that maps it, now or later. A file is attached
//! once, whichever path (through `/proc/PID/root`, a bind mount, a container layer) leads to it, and until it is released:
//! the kernel holds the file and its mount meanwhile.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use event_schema::catalog::Op;
use libbpf_rs::{ErrorKind, Link, ProgramMut, UprobeMultiOpts, UprobeOpts};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use thiserror::Error;

use crate::load::{Sampling, log_end, take_log};
use crate::probes::{CALLS, LibraryKind, Method, Probe, Timing};
use crate::skeleton::TracerProgs;

mod elf;

use elf::Function;
pub use elf::{DataSymbol, ElfError, FirstInstruction, data_symbol};

/// Uprobes of every process, present and future.
const ALL_PROCESSES: i32 = -1;

/// A file to probe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Library {
    /// Any path that leads to the file from here; for one inside a container, through `/proc/PID/root`.
    pub path: PathBuf,
    pub kind: LibraryKind,
}

/// One probed function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedProbe {
    pub symbol: &'static str,
    pub op: Op,
    pub timing: Timing,
    pub method: Method,
    /// Offset of the probe in the file; past an `endbr64` if the function begins with one.
    pub offset: u64,
    pub first_instruction: FirstInstruction,
}

/// What came of [`Tracer::attach`](crate::Tracer::attach).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// By the path it was first probed by.
    pub library: Library,
    pub id: FileId,
    /// The file was probed before, perhaps by another path; nothing was done.
    pub already: bool,
    pub probes: Vec<AttachedProbe>,
    /// Symbols of the probe table that the file does not have. Normal for variants and older versions.
    pub absent: Vec<&'static str>,
    /// What libbpf warned of meanwhile; mostly empty.
    pub warnings: String,
}

impl Attached {
    /// Probes whose first instruction the kernel single-steps, which makes each call dear (about 10 µs in a virtual machine).
    pub fn single_stepped(&self) -> impl Iterator<Item = &AttachedProbe> {
        self.probes.iter().filter(|p| p.first_instruction == FirstInstruction::SingleStepped)
    }
}

/// Why a library is not probed.
#[derive(Debug, Error)]
pub enum AttachError {
    #[error("cannot open library {}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{} is not an ELF file that can be read", path.display())]
    Elf { path: PathBuf, source: ElfError },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} has none of the functions probed in a library of kind {kind:?}", path.display())]
    NoFunctions { path: PathBuf, kind: LibraryKind },
    #[error(
        "not permitted to attach {} probes to {}: grant CAP_BPF and CAP_PERFMON, and CAP_SYS_ADMIN on kernels before 6.6",
        method.name(), path.display()
    )]
    NotPermitted { path: PathBuf, method: Method, source: libbpf_rs::Error },
    #[error("the kernel refused {} probes on {}: {log}", method.name(), path.display())]
    Refused { path: PathBuf, method: Method, log: String, source: libbpf_rs::Error },
    #[error("the tracer is detached: load a new one to attach {}", path.display())]
    Detached { path: PathBuf },
}

impl AttachError {
    /// True when it is the file's fault: another attempt would end the same. A file that looks malformed may just not have been
    /// read, over a network perhaps.
    pub fn is_final(&self) -> bool {
        let is_too_large = matches!(self, Self::Elf { source: ElfError::TooLarge, .. });
        is_too_large || matches!(self, Self::NotAFile { .. } | Self::NoFunctions { .. })
    }
}

/// Which file it is, however it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
    /// On overlayfs only: every container's mount is a device of its own over the same inode of the layer below, which is
    /// where the kernel puts the probe. Two attachments would record each call twice.
    overlay: Option<(u64, i64)>,
}

impl FileId {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        let overlay = fstatfs(file)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
        Ok(Self {
            device: if overlay { 0 } else { meta.dev() },
            inode: meta.ino(),
            overlay: overlay.then(|| (meta.size(), meta.mtime())),
        })
    }
}

/// Opens what a process calls a library. The user who started the process has chosen the file: a pipe must not block the agent.
fn open_file(path: &Path) -> Result<File, AttachError> {
    let error = |source| AttachError::Open { path: path.to_owned(), source };
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(error)?;
    if file.metadata().map_err(error)?.is_file() {
        Ok(file)
    } else {
        Err(AttachError::NotAFile { path: path.to_owned() })
    }
}

/// An opened library.
#[derive(Debug)]
pub struct LibraryFile {
    id: FileId,
    file: File,
    library: Library,
}

impl LibraryFile {
    /// Opens a library, which costs little.
    ///
    /// # Errors
    /// It cannot be opened, or is no file.
    pub fn open(library: &Library) -> Result<Self, AttachError> {
        let file = open_file(&library.path)?;
        let id = FileId::of(&file).map_err(|source| AttachError::Open { path: library.path.clone(), source })?;
        Ok(Self { id, file, library: library.clone() })
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Finds the functions to probe: reads up to some MiB. Needs no tracer, so that no tracer need wait for it.
    ///
    /// # Errors
    /// The file cannot be read, or has none of the functions.
    pub fn plan(self) -> Result<Plan, AttachError> {
        let Self { id, file, library } = self;
        let path = || library.path.clone();
        let rows: Vec<&Probe> = CALLS.iter().filter(|p| p.library == library.kind).collect();
        let wanted: HashSet<&'static str> = rows.iter().flat_map(|p| p.symbols).copied().collect();
        let found = elf::functions(&file, &wanted).map_err(|source| AttachError::Elf { path: path(), source })?;
        let mut offsets = HashSet::new();
        let mut points = Vec::new();
        let mut absent = Vec::new();
        for row in rows {
            for symbol in row.symbols {
                match found.iter().find(|f| f.symbol == *symbol) {
                    // Two names of one function: a second probe there would record each call twice.
                    Some(f) if !offsets.insert(f.offset) => {}
                    Some(f) => points.push((row, *f)),
                    None => absent.push(*symbol),
                }
            }
        }
        if points.is_empty() {
            return Err(AttachError::NoFunctions { path: path(), kind: library.kind });
        }
        Ok(Plan { id, file, library, points, absent })
    }
}

/// A function and the row of the probe table it is probed by.
type Point = (&'static Probe, Function);

/// An opened library and where its probes go.
#[derive(Debug)]
pub struct Plan {
    id: FileId,
    file: File,
    library: Library,
    points: Vec<(&'static Probe, Function)>,
    absent: Vec<&'static str>,
}

impl Plan {
    /// Which file it is of.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The library as it was asked for.
    pub fn library(&self) -> &Library {
        &self.library
    }

    pub(crate) fn report(&self, method: Method, warnings: String) -> Attached {
        let probe = |(row, function): &(&'static Probe, Function)| AttachedProbe {
            symbol: function.symbol,
            op: row.op,
            timing: row.timing,
            method,
            offset: function.offset,
            first_instruction: function.first_instruction,
        };
        Attached {
            library: self.library.clone(),
            id: self.id,
            already: false,
            probes: self.points.iter().map(probe).collect(),
            absent: self.absent.clone(),
            warnings,
        }
    }

    /// Attaches every point. The links come in the order in which they must be dropped: entries before returns, so that no
    /// call begins that will not be seen ending. With them, what libbpf warned of.
    pub(crate) fn attach(
        &self,
        programs: &TracerProgs<'_>,
        method: Method,
        sampling: Sampling,
    ) -> Result<(Vec<Link>, String), AttachError> {
        take_log();
        // The descriptor leads the kernel to the very file whose symbols were read.
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let links = match method {
            Method::UprobeMulti => self.attach_multi(programs, &path, sampling),
            Method::Uprobe => self.attach_single(programs, &path, sampling),
        };
        let log = log_end(&take_log());
        match links {
            Ok(links) => Ok((links, log)),
            Err(source) => {
                let path = self.library.path.clone();
                Err(match source.kind() {
                    ErrorKind::PermissionDenied => AttachError::NotPermitted { path, method, source },
                    _ => AttachError::Refused { path, method, log, source },
                })
            }
        }
    }

    /// Functions with a return probe.
    fn returning(&self, sampling: Sampling) -> impl Iterator<Item = &Point> {
        let is_returning = move |row: &Probe| row.timing == Timing::Duration || sampling == Sampling::ReturnProbes;
        self.points.iter().filter(move |(row, _)| is_returning(row))
    }

    /// Functions with a program at both ends of the calls that it chooses; all others are probed at entry.
    fn in_session(&self, sampling: Sampling) -> (Vec<&Point>, Vec<&Point>) {
        self.points.iter().partition(|(row, _)| row.timing == Timing::Entry && sampling == Sampling::Session)
    }

    fn attach_multi(
        &self,
        programs: &TracerProgs<'_>,
        path: &Path,
        sampling: Sampling,
    ) -> Result<Vec<Link>, libbpf_rs::Error> {
        let attach = |program: &ProgramMut<'_>, points: &[&Point], options: UprobeMultiOpts| {
            let offsets = points.iter().map(|(_, f)| f.offset as usize).collect();
            let cookies = points.iter().map(|(row, _)| row.cookie()).collect();
            let options = UprobeMultiOpts { offsets, cookies, ..options };
            program.attach_uprobe_multi_with_opts(ALL_PROCESSES, path, "", options)
        };
        let returning: Vec<&Point> = self.returning(sampling).collect();
        let (session, entering) = self.in_session(sampling);
        let mut links = Vec::new();
        // Returns first: a return without its entry is ignored, an entry without its return would linger.
        if !returning.is_empty() {
            let options = UprobeMultiOpts { retprobe: true, ..Default::default() };
            links.push(attach(&programs.call_return_multi, &returning, options)?);
        }
        if !session.is_empty() {
            let options = UprobeMultiOpts { session: true, ..Default::default() };
            links.push(attach(&programs.call_session, &session, options)?);
        }
        if !entering.is_empty() {
            links.push(attach(&programs.call_entry_multi, &entering, UprobeMultiOpts::default())?);
        }
        links.reverse();
        Ok(links)
    }

    fn attach_single(
        &self,
        programs: &TracerProgs<'_>,
        path: &Path,
        sampling: Sampling,
    ) -> Result<Vec<Link>, libbpf_rs::Error> {
        let options = |row: &Probe, retprobe| UprobeOpts { cookie: row.cookie(), retprobe, ..Default::default() };
        let mut links = Vec::new();
        for (row, f) in self.returning(sampling) {
            let program = &programs.call_return_single;
            links.push(program.attach_uprobe_with_opts(ALL_PROCESSES, path, f.offset as usize, options(row, true))?);
        }
        for (row, f) in &self.points {
            let program = &programs.call_entry_single;
            links.push(program.attach_uprobe_with_opts(ALL_PROCESSES, path, f.offset as usize, options(row, false))?);
        }
        links.reverse();
        Ok(links)
    }
}
