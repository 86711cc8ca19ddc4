//! Opens, sizes, configures and loads the probes, and attaches those of the host. Every refusal names what is missing.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, Link, PrintLevel, set_print};
use thiserror::Error;

use crate::host::{self, BTF_PATH, Kernel, PID_NAMESPACE_ADVICE};
use crate::probes::{FAMILIES, Method, Tracepoint};
use crate::skeleton::{OpenTracerSkel, TracerSkel, TracerSkelBuilder};

/// What can be chosen before loading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Calls and waits; a power of two, at least a page. A record takes 96 bytes.
    pub data_ring_bytes: u32,
    /// Exec, exit and fork of traced processes.
    pub critical_ring_bytes: u32,
    /// Hints for discovery.
    pub notice_ring_bytes: u32,
    /// Runnable waits shorter than this are summed and counted, not recorded.
    pub min_runnable_ns: u64,
    /// The same for blocked waits.
    pub min_blocked_ns: u64,
    /// Traced processes at one time.
    pub max_processes: u32,
    /// Threads of traced processes at one time.
    pub max_threads: u32,
    /// Trace every process that calls a probed library. If not, only those named by `trace_process` and their children.
    pub adopt_callers: bool,
    /// How to attach to libraries; `None` takes the best method of the running kernel.
    pub method: Option<Method>,
    /// One launch in so many, chosen at random, is timed; 0 for none.
    pub launch_sample: u32,
    /// Names of the environment variables that are kept from the exec of each process on; at most [`VARIABLES_MAX`]. Of
    /// a name longer than 15 bytes the first 16 count.
    pub variables: &'static [&'static str],
}

/// Most names that [`Options::variables`] may have.
pub const VARIABLES_MAX: usize = 24;

impl Default for Options {
    fn default() -> Self {
        Self {
            data_ring_bytes: 8 << 20,
            critical_ring_bytes: 256 << 10,
            notice_ring_bytes: 64 << 10,
            min_runnable_ns: 0,
            min_blocked_ns: 0,
            max_processes: 4096,
            max_threads: 16384,
            adopt_callers: true,
            method: None,
            launch_sample: 0,
            variables: &[],
        }
    }
}

/// Why the probes are not running.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("{option} is {value}: a ring is a power of two of bytes and at least {page} bytes")]
    RingSize { option: &'static str, value: u32, page: u32 },
    #[error("{option} is 0: it must be at least 1")]
    Zero { option: &'static str },
    #[error("{count} environment variables are more than the {VARIABLES_MAX} that are kept")]
    TooManyVariables { count: usize },
    #[error(
        "this process is in a PID namespace of its own, where the host's process numbers in records cannot be resolved: {}",
        PID_NAMESPACE_ADVICE
    )]
    PidNamespace,
    #[error("the kernel offers no BTF at {BTF_PATH}: boot a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf,
    #[error("kernel {release} is too old: the probes need 5.15 or later")]
    OldKernel { release: String },
    #[error(
        "not permitted to load BPF programs: this process lacks {missing}; run it as root, or grant the capabilities \
         (AmbientCapabilities= in a systemd unit, securityContext.capabilities in a pod)"
    )]
    MissingCapabilities { missing: String },
    #[error(
        "not permitted to load BPF programs although the capabilities are there: kernel lockdown, seccomp or a security \
         module forbids it (see /sys/kernel/security/lockdown and the kernel log)"
    )]
    Forbidden { source: libbpf_rs::Error },
    #[error("the kernel refused the probes: {log}")]
    Refused { log: String, source: libbpf_rs::Error },
    #[error("cannot attach to tracepoint {name}")]
    Tracepoint { name: &'static str, source: libbpf_rs::Error },
    #[error("cannot read the rings of the probes")]
    Rings { source: std::io::Error },
}

impl LoadError {
    /// True when the options are at fault, not the machine.
    pub fn is_wrong_option(&self) -> bool {
        matches!(self, Self::RingSize { .. } | Self::Zero { .. } | Self::TooManyVariables { .. })
    }
}

/// The probes in the kernel, and the links that keep those of the host attached.
pub(crate) struct Loaded {
    pub(crate) skeleton: TracerSkel<'static>,
    pub(crate) host_links: Vec<Link>,
    pub(crate) method: Method,
    pub(crate) sampling: Sampling,
}

/// How the durations of a sample of launches are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// None are.
    Off,
    /// Only a call that was chosen has a return probe (kernel 6.13, with [`Method::UprobeMulti`]).
    Session,
    /// Each call has a return probe, which about doubles its cost.
    ReturnProbes,
}

impl Sampling {
    fn of(options: &Options, kernel: &Kernel, method: Method) -> Self {
        match method {
            _ if options.launch_sample == 0 => Self::Off,
            Method::UprobeMulti if kernel.at_least(6, 13) => Self::Session,
            Method::UprobeMulti | Method::Uprobe => Self::ReturnProbes,
        }
    }
}

pub(crate) fn load(options: &Options) -> Result<Loaded, LoadError> {
    check(options)?;
    // Without /proc the namespace cannot be determined; the next checks name what is missing.
    if let Ok(false) = host::is_in_hosts_pid_namespace() {
        return Err(LoadError::PidNamespace);
    }
    // Each of these checks excludes a cause that the kernel itself would report as a bare error number.
    let kernel = Kernel::running();
    if !std::path::Path::new(BTF_PATH).exists() {
        return Err(LoadError::NoBtf);
    }
    if !kernel.at_least(5, 15) {
        return Err(LoadError::OldKernel { release: kernel.release });
    }
    let has_multi = kernel.at_least(6, 6);
    let method = options.method.unwrap_or(if has_multi { Method::UprobeMulti } else { Method::Uprobe });
    let sampling = Sampling::of(options, &kernel, method);
    // libbpf prints to standard error by default; its text is kept for the error message instead.
    set_print(Some((PrintLevel::Warn, keep_log)));
    let (skeleton, sampling) = or_without_session(sampling, |sampling| open_and_load(options, has_multi, sampling))?;
    let host_links = attach_host(&skeleton)?;
    Ok(Loaded { skeleton, host_links, method, sampling })
}

/// Loads without the session program when the kernel refuses it: a refusal of that program alone must not prevent
/// tracing.
fn or_without_session<T>(
    sampling: Sampling,
    load: impl Fn(Sampling) -> Result<T, LoadError>,
) -> Result<(T, Sampling), LoadError> {
    let otherwise = Sampling::ReturnProbes;
    match load(sampling) {
        Err(refused @ LoadError::Refused { .. }) if sampling == Sampling::Session => {
            load(otherwise).map(|loaded| (loaded, otherwise)).map_err(|_| refused)
        }
        loaded => loaded.map(|loaded| (loaded, sampling)),
    }
}

fn open_and_load(options: &Options, has_multi: bool, sampling: Sampling) -> Result<TracerSkel<'static>, LoadError> {
    take_log();
    // libbpf-rs requires a place for the object that outlives the skeleton. One pointer is leaked per tracer; an agent
    // loads one.
    let place = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open = TracerSkelBuilder::default().open(place).map_err(refusal)?;
    configure(&mut open, options).map_err(refusal)?;
    // A kernel without these attach types refuses the programs, and with them the whole object.
    open.progs.call_entry_multi.set_autoload(has_multi);
    open.progs.call_return_multi.set_autoload(has_multi);
    open.progs.call_session.set_autoload(sampling == Sampling::Session);
    open.load().map_err(refusal)
}

fn check(options: &Options) -> Result<(), LoadError> {
    const PAGE: u32 = 4096;
    for (option, value) in [
        ("data_ring_bytes", options.data_ring_bytes),
        ("critical_ring_bytes", options.critical_ring_bytes),
        ("notice_ring_bytes", options.notice_ring_bytes),
    ] {
        if !value.is_power_of_two() || value < PAGE {
            return Err(LoadError::RingSize { option, value, page: PAGE });
        }
    }
    for (option, value) in [("max_processes", options.max_processes), ("max_threads", options.max_threads)] {
        if value == 0 {
            return Err(LoadError::Zero { option });
        }
    }
    let count = options.variables.len();
    if count > VARIABLES_MAX { Err(LoadError::TooManyVariables { count }) } else { Ok(()) }
}

fn configure(open: &mut OpenTracerSkel<'_>, options: &Options) -> Result<(), libbpf_rs::Error> {
    let cpus = libbpf_rs::num_possible_cpus()?;
    open.maps.data_ring.set_max_entries(options.data_ring_bytes)?;
    open.maps.critical_ring.set_max_entries(options.critical_ring_bytes)?;
    open.maps.notice_ring.set_max_entries(options.notice_ring_bytes)?;
    open.maps.targets.set_max_entries(options.max_processes)?;
    open.maps.threads.set_max_entries(options.max_threads)?;
    // Possible CPUs, not those online: one may be plugged in later, and CPU numbers index the map.
    open.maps.cpus.set_max_entries(u32::try_from(cpus).unwrap_or(u32::MAX))?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.config.min_runnable_ns = options.min_runnable_ns;
        rodata.config.min_blocked_ns = options.min_blocked_ns;
        // A power of two, since the ring's size is one: `submit_data` rounds down with a mask.
        rodata.config.data_wake_bytes = u64::from(options.data_ring_bytes / 4);
        rodata.config.adopt_callers = u32::from(options.adopt_callers);
        rodata.config.launch_sample = options.launch_sample;
        // `check` has refused more names than there are rows. Rows without a name keep an empty mask and match nothing.
        for (row, name) in rodata.variables.iter_mut().zip(options.variables) {
            (row.word, row.mask) = begin_of(name);
        }
    }
    Ok(())
}

/// The first 16 bytes of `NAME=` as two words, and which of their bytes there are.
fn begin_of(name: &str) -> ([u64; 2], [u64; 2]) {
    let mut begin = [0; 16];
    let mut mask = [0; 16];
    for (at, byte) in name.bytes().chain([b'=']).take(begin.len()).enumerate() {
        begin[at] = byte;
        mask[at] = u8::MAX;
    }
    (words(begin), words(mask))
}

fn words(bytes: [u8; 16]) -> [u64; 2] {
    // As the probe reads the memory of the process: two native words.
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

fn attach_host(skeleton: &TracerSkel<'static>) -> Result<Vec<Link>, LoadError> {
    let tracepoints = FAMILIES.iter().flat_map(|family| (family.tracepoints)(&skeleton.progs));
    tracepoints.map(attach_tracepoint).collect()
}

fn attach_tracepoint(tracepoint: Tracepoint<'_>) -> Result<Link, LoadError> {
    let name = tracepoint.name;
    tracepoint.program.attach_trace().map_err(|source| LoadError::Tracepoint { name, source })
}

fn refusal(source: libbpf_rs::Error) -> LoadError {
    explain(source, &take_log(), &host::missing_capabilities())
}

/// Names what is missing rather than the step at which libbpf failed. The verifier, too, refuses with "permission
/// denied", but with a log, which it prints only for a process that may load programs.
fn explain(source: libbpf_rs::Error, log: &str, missing: &[&str]) -> LoadError {
    let is_denied = source.kind() == ErrorKind::PermissionDenied;
    if is_denied && !missing.is_empty() {
        return LoadError::MissingCapabilities { missing: missing.join(" and ") };
    }
    // Refused without a verifier log: no program has reached the verifier.
    if is_denied && !log.contains(VERIFIER_LOG) {
        return LoadError::Forbidden { source };
    }
    LoadError::Refused { log: log_end(log), source }
}

/// The line by which libbpf introduces the verifier's log.
const VERIFIER_LOG: &str = "BEGIN PROG LOAD LOG";

/// The last lines, joined: the verifier's reason stands at the end of pages of reasoning.
pub(crate) fn log_end(log: &str) -> String {
    const LINES: usize = 16;
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

/// Warnings of libbpf since the last call of `take_log`, by the last load or attachment; they are more precise than its
/// error numbers.
static LOG: Mutex<String> = Mutex::new(String::new());

fn keep_log(_: PrintLevel, line: String) {
    const BYTES: usize = 4 << 20;
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() < BYTES {
        log.push_str(&line);
    }
}

pub(crate) fn take_log() -> String {
    std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests;
