//! The tracer: the probes in the kernel, and everything one does with them.

use std::collections::HashMap;
use std::fmt;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libbpf_rs::{ErrorKind, Link, MapCore, MapFlags, MapHandle};
use thiserror::Error;

use crate::attach::{AttachError, Attached, FileId, Library, LibraryFile, Plan};
use crate::class::Class;
use crate::counters::{self, Counters, WaitTotals};
use crate::environments::Environments;
use crate::load::{self, LoadError, Loaded, Options, Sampling};
use crate::probes::Method;
use crate::record::{Notice, Record};
use crate::rings::{RingMaps, Rings};
use crate::skeleton::TracerSkel;
use crate::skeleton::types::cw_target;
use crate::sys::{self, Waker};

/// Loaded probes. Dropping it detaches them.
///
/// Meant for one thread that calls [`Tracer::poll`] about every 100 ms; it may be loaded on another one.
// Fields are dropped in this order: what uses the programs before the programs.
pub struct Tracer {
    rings: Rings,
    libraries: HashMap<FileId, Probed>,
    /// Files whose links are being dropped, each on a thread of its own: the kernel takes a tenth of a second over it,
    /// or one and a half where each function has a link.
    releasing: HashMap<FileId, JoinHandle<()>>,
    host_links: Vec<Link>,
    method: Method,
    sampling: Sampling,
    detached: bool,
    skeleton: TracerSkel<'static>,
}

/// A library file with probes, and what keeps them there.
struct Probed {
    attached: Attached,
    _links: Vec<Link>,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("method", &self.method)
            .field("libraries", &self.libraries.len())
            .field("detached", &self.detached)
            .finish_non_exhaustive()
    }
}

/// Why the rings could not be read.
#[derive(Debug, Error)]
pub enum PollError {
    #[error("cannot read the rings of the probes")]
    Rings { source: std::io::Error },
    #[error("cannot read the counters of class {}", class.name())]
    Counters { class: Class, source: libbpf_rs::Error },
    #[error("cannot read the sums of waits")]
    WaitTotals { source: libbpf_rs::Error },
    #[error("cannot reach the environments that the probes keep")]
    Environments { source: libbpf_rs::Error },
}

/// Why a process is not traced.
#[derive(Debug, Error)]
pub enum TraceError {
    #[error("cannot trace process {pid}: {limit} processes are traced already; raise max_processes")]
    Full { pid: i32, limit: u32 },
    #[error("cannot change the tracing of process {pid}")]
    Refused { pid: i32, source: libbpf_rs::Error },
}

impl Tracer {
    /// Loads the probes and attaches those of the host. Nothing is recorded until a process is traced.
    ///
    /// Names the option, kernel feature or capability at fault and what to do.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let Loaded { skeleton, host_links, method, sampling } = load::load(options)?;
        let maps = &skeleton.maps;
        let rings = RingMaps { critical: &maps.critical_ring, notice: &maps.notice_ring, data: &maps.data_ring };
        let rings = Rings::open(&rings).map_err(|source| LoadError::Rings { source })?;
        Ok(Self {
            rings,
            libraries: HashMap::new(),
            releasing: HashMap::new(),
            host_links,
            method,
            sampling,
            detached: false,
            skeleton,
        })
    }

    /// How libraries are probed on this kernel.
    pub fn method(&self) -> Method {
        self.method
    }

    /// How a sample of launches is timed.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// A way to look environments up that does not need the tracer.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn environments(&self) -> Result<Environments, PollError> {
        let maps = &self.skeleton.maps;
        let living = MapHandle::try_from(&maps.environs).map_err(|source| PollError::Environments { source })?;
        let ended = MapHandle::try_from(&maps.ended_environs).map_err(|source| PollError::Environments { source })?;
        Ok(Environments::new(living, ended))
    }

    /// Probes a library file, in every process that maps it now or later. A file that is probed already stays as it is.
    ///
    /// # Errors
    /// The file cannot be read, has none of the functions, or the kernel refuses.
    pub fn attach_library(&mut self, library: &Library) -> Result<Attached, AttachError> {
        if self.detached {
            return Err(AttachError::Detached { path: library.path.clone() });
        }
        let file = LibraryFile::open(library)?;
        match self.known(file.id()) {
            Some(attached) => Ok(attached),
            None => self.attach(&file.plan()?),
        }
    }

    /// The same for a file whose functions were found before, perhaps on another thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach(&mut self, plan: &Plan) -> Result<Attached, AttachError> {
        if self.detached {
            return Err(AttachError::Detached { path: plan.library().path.clone() });
        }
        if let Some(attached) = self.known(plan.id()) {
            return Ok(attached);
        }
        // With old links and new ones each call would be recorded twice.
        if let Some(release) = self.releasing.remove(&plan.id()) {
            let _ = release.join();
        }
        let (links, warnings) = plan.attach(&self.skeleton.progs, self.method, self.sampling)?;
        let attached = plan.report(self.method, warnings);
        self.libraries.insert(plan.id(), Probed { attached: attached.clone(), _links: links });
        Ok(attached)
    }

    fn known(&self, id: FileId) -> Option<Attached> {
        self.libraries.get(&id).map(|probed| Attached { already: true, ..probed.attached.clone() })
    }

    /// Removes the probes of a library file, so that the kernel no longer holds it and its mount. The removal runs in
    /// the background, and only an attachment of the same file waits for it. False when the file had no probes.
    pub fn release_library(&mut self, id: FileId) -> bool {
        // Threads that have ended need no join: they only dropped links.
        self.releasing.retain(|_, release| !release.is_finished());
        let Some(probed) = self.libraries.remove(&id) else { return false };
        // If no thread can be started, the closure, and with it the links, is dropped here.
        let release = thread::Builder::new().name("causeway-unlink".to_owned()).spawn(move || drop(probed));
        self.releasing.extend(release.ok().map(|release| (id, release)));
        true
    }

    fn wait_for_releases(&mut self) {
        for (_, release) in self.releasing.drain() {
            let _ = release.join();
        }
    }

    /// Library files with probes.
    pub fn libraries(&self) -> usize {
        self.libraries.len()
    }

    /// Ends a wait of [`Tracer::poll`] from another thread.
    pub fn waker(&self) -> Waker {
        self.rings.waker()
    }

    /// Records the waits and the life of process `pid` (a thread group, in the host's namespace), and of its children
    /// to be.
    ///
    /// # Errors
    /// Too many processes are traced.
    pub fn trace_process(&self, pid: i32) -> Result<(), TraceError> {
        self.set_target(pid, cw_target::CW_TARGET_TRACED)
    }

    /// Stops recording anything of process `pid`, its calls included, until it exits.
    ///
    /// # Errors
    /// Too many processes are traced.
    pub fn untrace(&self, pid: i32) -> Result<(), TraceError> {
        self.set_target(pid, cw_target::CW_TARGET_IGNORED)
    }

    /// Takes back what was decided about process `pid`: for one that turned out to be gone, whose number another
    /// process may get or have by now.
    ///
    /// # Errors
    /// The kernel's table cannot be changed.
    pub fn release(&self, pid: i32) -> Result<(), TraceError> {
        match self.skeleton.maps.targets.delete(&pid.to_ne_bytes()) {
            // The exit probe may have deleted the entry first.
            Err(source) if source.kind() != ErrorKind::NotFound => Err(TraceError::Refused { pid, source }),
            _ => Ok(()),
        }
    }

    fn set_target(&self, pid: i32, target: cw_target) -> Result<(), TraceError> {
        let targets = &self.skeleton.maps.targets;
        targets.update(&pid.to_ne_bytes(), &target.0.to_ne_bytes(), MapFlags::ANY).map_err(|source| {
            match source.kind() {
                // bpf(2): E2BIG is the answer of a hash map that holds `max_entries` already.
                ErrorKind::TooBig => TraceError::Full { pid, limit: targets.max_entries() },
                _ => TraceError::Refused { pid, source },
            }
        })
    }

    /// Waits for a probe, a [`Waker`] or `timeout`, then hands every record in the rings to `sink`, critical ones
    /// first. Probes wake the reader when the data ring has grown by a quarter, and for critical records and notices.
    /// Returns the number of records; a zero `timeout` only drains.
    ///
    /// # Errors
    /// The rings cannot be read; nothing that was handed out is lost.
    pub fn poll(&mut self, timeout: Duration, sink: &mut impl FnMut(Record)) -> Result<usize, PollError> {
        self.rings.poll(timeout, sink).map_err(|source| PollError::Rings { source })
    }

    /// Waits as [`Tracer::poll`] does, and takes nothing.
    ///
    /// # Errors
    /// The rings cannot be waited for.
    pub fn wait(&self, timeout: Duration) -> Result<(), PollError> {
        self.rings.wait(timeout).map_err(|source| PollError::Rings { source })
    }

    /// True when the last poll ended at the limit of its records: some that were made before it began may still be in
    /// the rings.
    pub fn is_behind(&self) -> bool {
        self.rings.is_behind
    }

    /// The notices that the polls so far have brought.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.rings.take_notices()
    }

    /// What was made, handed out and lost since loading. Exact once [`Tracer::detach`] has returned; before that the
    /// classes are read one after the other while probes run.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub fn counters(&self) -> Result<Counters, PollError> {
        let mut all = Counters::default();
        // Over all classes: what cannot be decoded has no class.
        all.undecodable = self.rings.received.undecodable;
        for class in Class::ALL {
            let mut of_class = counters::read(&self.skeleton.maps.counters, class)
                .map_err(|source| PollError::Counters { class, source })?;
            of_class.drained = self.rings.received.of(class);
            *all.of_mut(class) = of_class;
        }
        Ok(all)
    }

    /// Sums of waits of every living thread that was seen waiting. Those of a thread end with it.
    ///
    /// # Errors
    /// The kernel's table cannot be read.
    pub fn wait_totals(&self) -> Result<Vec<WaitTotals>, PollError> {
        let threads = &self.skeleton.maps.threads;
        let mut totals = Vec::new();
        for tid in threads.keys() {
            // Keys and values are read one by one while threads begin and end.
            let value = threads.lookup(&tid, MapFlags::ANY).map_err(|source| PollError::WaitTotals { source })?;
            // A thread that has ended since its key was read has none.
            let Some(value) = value else { continue };
            totals.extend(WaitTotals::decode(&tid, &value));
        }
        Ok(totals)
    }

    /// Detaches every probe and waits until none is running any more. What is in the rings can still be polled; after
    /// that `attempts == drained + ring_drop` holds for every class. A call that has not returned by now is neither
    /// recorded nor counted: it goes on, and its end will not be seen.
    pub fn detach(&mut self) {
        self.libraries.clear();
        self.wait_for_releases();
        self.host_links.clear();
        self.detached = true;
        sys::wait_for_running_programs();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.wait_for_releases();
    }
}
