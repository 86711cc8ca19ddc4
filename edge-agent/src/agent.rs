//! The agent as a whole: four threads (probes, discovery, spool, shipping) and their orderly end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bpf::priority::{self, Priority};
use bpf::{AttachError, Counters, LoadError, Tracer};
use service_kit::run::{Drain, Exit, Fatal};
use stream::log::LogError;

use crate::batcher::Cut;
use crate::clock::{self, ClockError};
use crate::collect::{CollectError, Collector};
use crate::discover::Scout;
use crate::facts::{FactError, Session};
use crate::identity::{Identity, IdentityError};
use crate::metrics::Metrics;
use crate::numbering::Numbering;
use crate::options::Options;
use crate::ship::{ShipError, Shipper, Until};
use crate::spool::{HAND_OVER_LIMIT, Input, QUEUE_BATCHES, Spool, hand_over};

/// How long the agent waits for the discovery thread to end. A read of `/proc` may block with the process that it
/// reads.
const SCOUT_ENDS: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The probes' own account of the run.
    pub counters: Counters,
    /// The epoch it began with. One that uses up the numbers of a stream goes on in another.
    pub epoch: i64,
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("a library named in the options cannot be probed")]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the spool at {} cannot be used", dir.display())]
    Spool {
        dir: PathBuf,
        #[source]
        source: LogError,
    },
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error(transparent)]
    Fact(#[from] FactError),
    #[error("tracing ended")]
    Collect(#[from] CollectError),
    #[error("shipping ended; what was not shipped waits in the spool")]
    Ship(#[from] ShipError),
    #[error("cannot start the {thread} thread")]
    Thread {
        thread: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the {thread} thread panicked; see the log")]
    Panicked { thread: &'static str },
}

impl Fatal for AgentError {
    fn exit(&self) -> Exit {
        let is_wrong_option = match self {
            // Only libraries named in the options are attached before the agent runs.
            Self::Attach(_) | Self::Identity(IdentityError::BadName { .. }) => true,
            Self::Load(error) => error.is_wrong_option(),
            _ => false,
        };
        if is_wrong_option { Exit::Usage } else { Exit::Failed }
    }
}

/// An agent whose probes are loaded and whose spool is open.
#[derive(Debug)]
pub struct Agent {
    identity: Identity,
    session: Session,
    collector: Collector,
    scout: Scout,
    spool: Spool,
    shipper: Option<Shipper>,
    inputs: (SyncSender<Input>, Receiver<Input>),
    drain_timeout: Duration,
    /// Priority of all threads but the one that reads the rings.
    priority: Priority,
}

impl Agent {
    /// Loads the probes, takes an epoch and opens the spool. Nothing is traced yet.
    ///
    /// # Errors
    /// What is missing (kernel, capability), who holds the spool, or which option is wrong.
    pub fn open(options: &Options, metrics: &Metrics) -> Result<Self, AgentError> {
        // The probes are loaded first: a process that may not trace must neither use up an epoch nor create a spool.
        let tracer = Tracer::load(&options.probes)?;
        let dir = &options.spool.dir;
        let identity = Identity::establish(&options.cluster, options.node.as_deref(), dir)?;
        let flags = format!(
            "method={} min_runnable_ns={} min_blocked_ns={} launch_sample={} priority={}",
            tracer.method().name(),
            options.probes.min_runnable_ns,
            options.probes.min_blocked_ns,
            options.probes.launch_sample,
            // The priority that is permitted here, which may be lower than the configured one.
            priority::permitted().min(options.priority).name()
        );
        let session = Session::read(clock::wall_ns()?, &identity.agent, flags);
        let spool = Spool::open(options.spool.clone(), Numbering::new(identity.clone()), metrics.clone())
            .map_err(|source| AgentError::Spool { dir: dir.clone(), source })?;
        let inputs = sync_channel(QUEUE_BATCHES);
        let shipper = match &options.kafka {
            // The shipper is a sender too: rows that Kafka refuses for good return to the account of their stream.
            Some(config) => Some(Shipper::open(dir, &spool.partitions(), config, metrics.clone(), inputs.0.clone())?),
            None => None,
        };
        let (collector, scout) = Collector::open(tracer, options, inputs.0.clone(), metrics.clone())?;
        Ok(Self {
            identity,
            session,
            collector,
            scout,
            spool,
            shipper,
            inputs,
            drain_timeout: options.drain_timeout,
            priority: options.priority.min(Priority::Raised),
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Traces until `drain` is cancelled; then detaches, empties the rings, writes the account of the epoch, and gives
    /// Kafka some time to take the rest.
    ///
    /// # Errors
    /// A thread failed. Everything in the spool is kept for the next run.
    pub async fn run(self, drain: Drain) -> Result<Outcome, AgentError> {
        let ends = Arc::new(Ends::default());
        let _ending = Ending(ends.clone());
        // Cancelled by the drain, and by the end of any thread.
        let over = drain.child_token();
        let running = self.start(&ends, &over)?;
        // A thread that returns or panics cancels `over` by its drop guard: whatever ends first, all threads then end
        // in the same order.
        over.cancelled().await;
        running.end(&ends, &over).await
    }

    /// Starts the threads. The end of any of them cancels `over`.
    fn start(self, ends: &Arc<Ends>, over: &Drain) -> Result<Running, AgentError> {
        let Self { identity, session, collector, scout, spool, shipper, inputs, drain_timeout, priority } = self;
        let (sender, receiver) = inputs;
        // First of all, so that an agent that is killed later has still reported the facts of its node. No other thread
        // sends yet: the queue has room.
        pass(&sender, session.record(clock::boot_ns()?, None)?);
        let stopping = ends.clone();
        // It ends when the probe thread has ended.
        let discovering = spawn("scout", over, move || {
            priority::raise(priority);
            scout.run();
        })?;
        let collecting = spawn("probe", over, move || collector.run(&stopping.stop))?;
        let spooling = spawn("spool", over, move || {
            priority::raise(priority);
            spool.run(&receiver)
        })?;
        let shipping = shipper.map(|shipper| {
            let ends = ends.clone();
            spawn("ship", over, move || shipper.run(|| ends.until(drain_timeout)))
        });
        let shipping = shipping.transpose()?;
        tracing::info!(node = identity.node, epoch = identity.epoch, "agent started");
        Ok(Running { identity, session, sender, discovering, collecting, spooling, shipping })
    }
}

/// The threads of an agent that runs, and what its end reports.
#[derive(Debug)]
struct Running {
    identity: Identity,
    session: Session,
    sender: SyncSender<Input>,
    discovering: Worker<()>,
    collecting: Worker<Result<Counters, CollectError>>,
    spooling: Worker<()>,
    shipping: Option<Worker<Result<(), ShipError>>>,
}

impl Running {
    /// Ends the threads in the order in which a record passes them.
    async fn end(self, ends: &Ends, over: &Drain) -> Result<Outcome, AgentError> {
        let Self { identity, session, sender, discovering, collecting, spooling, shipping } = self;
        ends.stop.store(true, Ordering::Relaxed);
        // The result is examined last: after a failure of the probe thread, what it had recorded is still spooled and
        // shipped.
        let collected = collecting.join().await;
        let stopped = session.record(clock::boot_ns()?, Some(clock::wall_ns()?))?;
        // On a thread of its own: it may block while the queue is full.
        let passing = spawn("last", over, move || {
            pass(&sender, stopped);
            // The shipper holds a sender until the spool is complete: without an explicit end, each of the two threads
            // would wait for the other.
            let _ = sender.send(Input::End);
        })?;
        passing.join().await?;
        spooling.join().await?;
        // Not before the spool thread has ended: until then an empty spool does not mean that nothing follows.
        ends.spool_is_complete.store(true, Ordering::Relaxed);
        if let Some(shipping) = shipping {
            shipping.join().await??;
        }
        let counters = collected??;
        end_scout(discovering).await?;
        tracing::info!(epoch = identity.epoch, "agent ended");
        Ok(Outcome { counters, epoch: identity.epoch })
    }
}

/// Waits for the scout, which ends when the collector has dropped its end of their channels.
async fn end_scout(discovering: Worker<()>) -> Result<(), AgentError> {
    // A thread that is blocked in the kernel cannot be cancelled: it is abandoned, and ends with the process.
    match tokio::time::timeout(SCOUT_ENDS, discovering.join()).await {
        Ok(ended) => ended?,
        Err(_) => tracing::warn!("the discovery thread is still reading a process in /proc; ending without it"),
    }
    Ok(())
}

/// The flags by which the threads end, in this order.
#[derive(Debug, Default)]
struct Ends {
    stop: AtomicBool,
    spool_is_complete: AtomicBool,
    ending: std::sync::OnceLock<Instant>,
}

impl Ends {
    fn until(&self, drain_timeout: Duration) -> Until {
        if !self.spool_is_complete.load(Ordering::Relaxed) {
            return Until::Stopped;
        }
        // The timeout counts from the first call after the spool is complete, not anew from each call.
        Until::Empty { latest: *self.ending.get_or_init(Instant::now) + drain_timeout }
    }
}

/// Ends the threads when a run is left, also early: by an error, or dropped. The process may go on without the agent,
/// as `causeway up` does while it drains.
#[derive(Debug, Default)]
struct Ending(Arc<Ends>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
        // The shipper holds a sender of the spool thread, which may wait for the last sender to be gone. What is not
        // shipped waits in the spool.
        self.0.spool_is_complete.store(true, Ordering::Relaxed);
    }
}

fn pass(spool: &SyncSender<Input>, cut: Cut) {
    if hand_over(spool, Input::Cut(cut), HAND_OVER_LIMIT).is_err() {
        tracing::error!("a session record is shed: the spool thread accepts no input");
    }
}

/// A named thread whose end can be awaited, and ends the agent.
#[derive(Debug)]
struct Worker<T> {
    name: &'static str,
    thread: std::thread::JoinHandle<T>,
    ended: Drain,
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    over: &Drain,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<Worker<T>, AgentError> {
    let ended = Drain::new();
    let guards = [&ended, over].map(|token| token.clone().drop_guard());
    let thread = std::thread::Builder::new().name(format!("causeway-{name}")).spawn(move || {
        // Dropped when the body returns, and when it panics.
        let _guards = guards;
        body()
    });
    let thread = thread.map_err(|source| AgentError::Thread { thread: name, source })?;
    Ok(Worker { name, thread, ended })
}

impl<T> Worker<T> {
    async fn join(self) -> Result<T, AgentError> {
        self.ended.cancelled().await;
        self.thread.join().map_err(|_| AgentError::Panicked { thread: self.name })
    }
}

#[cfg(test)]
mod tests;
