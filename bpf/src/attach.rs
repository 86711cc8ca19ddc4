//! Attaches the rows of the probe table to one library file: all its functions in one link where the kernel can.
//!
//! The unit is the file, not the process: a probe fires in every process that maps it, now or later. A file is attached
//! once, whichever path (through `/proc/PID/root`, a bind mount, a container layer) leads to it, and until it is
//! released: the kernel holds the file and its mount meanwhile.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
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

pub use elf::{DataSymbol, ElfError, FirstInstruction, data_symbol};

/// Uprobes of every process, present and future.
const ALL_PROCESSES: i32 = -1;

/// A file to probe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Library {
    /// Any path that leads to the file from here; for one inside a container, through `/proc/PID/root`.
    pub path: PathBuf,
    /// Which rows of the probe table apply.
    pub kind: LibraryKind,
}

/// One probed function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedProbe {
    /// The function's name in the symbol table of the file, without a version.
    pub symbol: &'static str,
    /// The operation that its calls are recorded as.
    pub op: Op,
    /// By the row of the probe table. With `Options::launch_sample`, some calls of [`Timing::Entry`] are timed all the
    /// same.
    pub timing: Timing,
    /// The tracer's: one for all of its probes.
    pub method: Method,
    /// Offset of the probe in the file; past an `endbr64` if the function begins with one.
    pub offset: u64,
    /// What the kernel does with the instruction at `offset`, which makes most of the cost of a call.
    pub first_instruction: FirstInstruction,
}

/// What came of [`Tracer::attach`](crate::Tracer::attach).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// By the path it was first probed by.
    pub library: Library,
    /// Equal for every path that leads to the file.
    pub id: FileId,
    /// The file was probed before, perhaps by another path; nothing was done.
    pub already: bool,
    /// One per function, in the order of the probe table.
    pub probes: Vec<AttachedProbe>,
    /// Symbols of the probe table that the file does not have. Normal for variants and older versions.
    pub absent: Vec<&'static str>,
    /// What libbpf warned of meanwhile; mostly empty.
    pub warnings: String,
}

impl Attached {
    /// Probes whose first instruction the kernel single-steps, which makes each call expensive (about 10 µs in a
    /// virtual machine).
    pub fn single_stepped(&self) -> impl Iterator<Item = &AttachedProbe> {
        self.probes.iter().filter(|p| p.first_instruction == FirstInstruction::SingleStepped)
    }
}

/// Why a library is not probed.
#[derive(Debug, Error)]
pub enum AttachError {
    #[error("cannot open library {}", path.display())]
    Open { path: PathBuf, source: io::Error },
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
    /// True when it is the file's fault: another attempt would end the same. A file that looks malformed may just not
    /// have been read, over a network perhaps.
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
    /// On overlayfs only: every container's mount is a device of its own over the same inode of the layer below, which
    /// is where the kernel puts the probe. Two attachments would record each call twice.
    overlay: Option<(u64, i64)>,
}

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let overlay = fstatfs(file)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
        Ok(Self {
            // On overlayfs `st_dev` differs per mount: size and time of change take its place, since inodes of
            // different layers may be equal.
            device: if overlay { 0 } else { meta.dev() },
            inode: meta.ino(),
            overlay: overlay.then(|| (meta.size(), meta.mtime())),
        })
    }
}

/// Opens what a process calls a library. The user who started the process has chosen the file: a pipe must not block
/// the agent.
fn open_file(path: &Path) -> Result<File, AttachError> {
    // open(2): O_NONBLOCK for a FIFO, O_NOCTTY for a terminal. Only then can the type be examined without a race.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot_open(path))?;
    if file.metadata().map_err(cannot_open(path))?.is_file() {
        Ok(file)
    } else {
        Err(AttachError::NotAFile { path: path.to_owned() })
    }
}

fn cannot_open(path: &Path) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Open { path: path.to_owned(), source }
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
        let id = FileId::of(&file).map_err(cannot_open(&library.path))?;
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
        let rows: Vec<&Probe> = CALLS.iter().filter(|p| p.library == library.kind).collect();
        let wanted: HashSet<&'static str> = rows.iter().flat_map(|p| p.symbols).copied().collect();
        let found =
            elf::functions(&file, &wanted).map_err(|source| AttachError::Elf { path: library.path.clone(), source })?;
        let mut offsets = HashSet::new();
        let mut points = Vec::new();
        let mut absent = Vec::new();
        let named = rows.into_iter().flat_map(|row| row.symbols.iter().map(move |symbol| (row, *symbol)));
        for (row, symbol) in named {
            match found.iter().find(|f| f.symbol == symbol) {
                // Two names of one function: a second probe there would record each call twice.
                Some(function) if !offsets.insert(function.offset) => {}
                Some(function) => points.push(Point { row, function: *function }),
                None => absent.push(symbol),
            }
        }
        if points.is_empty() {
            return Err(AttachError::NoFunctions { path: library.path, kind: library.kind });
        }
        Ok(Plan { id, file, library, points, absent })
    }
}

/// A function of the file and where to put its probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    symbol: &'static str,
    /// In the file, past a leading `endbr64`.
    offset: u64,
    first_instruction: FirstInstruction,
}

/// A function and the row of the probe table it is probed by.
#[derive(Debug)]
struct Point {
    row: &'static Probe,
    function: Function,
}

impl Point {
    /// True when each call has a probe at its return.
    fn is_returning(&self, sampling: Sampling) -> bool {
        self.row.timing == Timing::Duration || sampling == Sampling::ReturnProbes
    }

    /// True when one program is at both ends of the calls that it chooses.
    fn is_in_session(&self, sampling: Sampling) -> bool {
        self.row.timing == Timing::Entry && sampling == Sampling::Session
    }

    fn offset(&self) -> usize {
        // Where an address has 32 bits no file reaches further, and the kernel refuses the largest offset.
        usize::try_from(self.function.offset).unwrap_or(usize::MAX)
    }

    fn report(&self, method: Method) -> AttachedProbe {
        let Function { symbol, offset, first_instruction } = self.function;
        AttachedProbe { symbol, op: self.row.op, timing: self.row.timing, method, offset, first_instruction }
    }

    /// Attaches a program to the entry of the function, or to its return.
    fn attach(&self, program: &ProgramMut<'_>, path: &Path, retprobe: bool) -> Result<Link, libbpf_rs::Error> {
        let options = UprobeOpts { cookie: self.row.cookie(), retprobe, ..Default::default() };
        program.attach_uprobe_with_opts(ALL_PROCESSES, path, self.offset(), options)
    }
}

/// Attaches a program to several functions of a file in one link.
fn attach_all(
    program: &ProgramMut<'_>,
    path: &Path,
    points: &[&Point],
    options: UprobeMultiOpts,
) -> Result<Link, libbpf_rs::Error> {
    let offsets = points.iter().map(|point| point.offset()).collect();
    let cookies = points.iter().map(|point| point.row.cookie()).collect();
    let options = UprobeMultiOpts { offsets, cookies, ..options };
    program.attach_uprobe_multi_with_opts(ALL_PROCESSES, path, "", options)
}

/// An opened library and where its probes go.
#[derive(Debug)]
pub struct Plan {
    id: FileId,
    file: File,
    library: Library,
    points: Vec<Point>,
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
        Attached {
            library: self.library.clone(),
            id: self.id,
            already: false,
            probes: self.points.iter().map(|point| point.report(method)).collect(),
            absent: self.absent.clone(),
            warnings,
        }
    }

    /// Attaches every point. The links come in the order in which they must be dropped: entries before returns, so that
    /// no call begins that will not be seen ending. With them, what libbpf warned of.
    pub(crate) fn attach(
        &self,
        programs: &TracerProgs<'_>,
        method: Method,
        sampling: Sampling,
    ) -> Result<(Vec<Link>, String), AttachError> {
        take_log();
        // The descriptor leads the kernel to the very file whose symbols were read.
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        // Any link that was made before a failure is dropped with the vector: a library is probed as a whole or not at
        // all.
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
        self.points.iter().filter(move |point| point.is_returning(sampling))
    }

    fn attach_multi(
        &self,
        programs: &TracerProgs<'_>,
        path: &Path,
        sampling: Sampling,
    ) -> Result<Vec<Link>, libbpf_rs::Error> {
        let returning: Vec<&Point> = self.returning(sampling).collect();
        // What is not in a session is probed at entry.
        let (session, entering): (Vec<&Point>, Vec<&Point>) =
            self.points.iter().partition(|point| point.is_in_session(sampling));
        let mut links = Vec::new();
        // Returns first: a return without its entry is ignored, an entry without its return would linger.
        if !returning.is_empty() {
            let options = UprobeMultiOpts { retprobe: true, ..Default::default() };
            links.push(attach_all(&programs.call_return_multi, path, &returning, options)?);
        }
        if !session.is_empty() {
            let options = UprobeMultiOpts { session: true, ..Default::default() };
            links.push(attach_all(&programs.call_session, path, &session, options)?);
        }
        if !entering.is_empty() {
            links.push(attach_all(&programs.call_entry_multi, path, &entering, UprobeMultiOpts::default())?);
        }
        // Rust drops the elements of a vector in order.
        links.reverse();
        Ok(links)
    }

    fn attach_single(
        &self,
        programs: &TracerProgs<'_>,
        path: &Path,
        sampling: Sampling,
    ) -> Result<Vec<Link>, libbpf_rs::Error> {
        let mut links = Vec::new();
        // Returns first, as in one link.
        for point in self.returning(sampling) {
            links.push(point.attach(&programs.call_return_single, path, true)?);
        }
        for point in &self.points {
            links.push(point.attach(&programs.call_entry_single, path, false)?);
        }
        links.reverse();
        Ok(links)
    }
}
