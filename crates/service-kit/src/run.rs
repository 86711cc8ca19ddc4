//! The life of a program: a runtime, a drain token that SIGTERM or SIGINT cancels, an exit code, and one report of what
//! went wrong. A signal a second or more later ends the program at once, in every state of its body.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// Cancelled when the program should finish what it has begun and end. Cheap to clone.
pub type Drain = CancellationToken;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The program did what was asked.
    Done = 0,
    /// It could not.
    Failed = 1,
    /// The request was wrong: command line or configuration.
    Usage = 2,
    /// It answered, but not from all the data (`--strict`).
    Incomplete = 3,
    /// A signal ended it before it was done. [`service`] returns 128 and the number of the signal, as shells do.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that a program may end with. It gives the exit code.
pub trait Fatal: Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Signals that come within this time are one.
const ONE_SIGNAL: Duration = Duration::from_secs(1);
/// How long the body may take to be dropped when it is abandoned.
const ABANDONED_WITHIN: Duration = Duration::from_secs(1);

/// Runs a program to its end: call it from `main` and return what it returns.
///
/// `body` gets the drain token and should return soon after it is cancelled. The first SIGTERM or SIGINT cancels the
/// token, one that comes a second or more later abandons `body`, and ends the process soon where `body` cannot be
/// abandoned since it blocks its thread. An error is written to standard error with all its causes.
pub fn service<E, F>(body: impl FnOnce(Drain) -> F) -> ExitCode
where
    E: Fatal,
    F: Future<Output = Result<Exit, E>>,
{
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, Exit::Failed),
    };
    let exit = runtime.block_on(async {
        let drain = Drain::new();
        // Before the body runs: a signal without a handler would end the process (signal(7)).
        let signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => return fail(&error, Exit::Failed),
        };
        let first = Arc::new(OnceLock::new());
        let abandoned = CancellationToken::new();
        // On a thread of the runtime, since that of the body may be blocked, for example in a write to a pipe that is
        // full.
        tokio::spawn(signals.drain_then_abandon(drain.clone(), abandoned.clone(), Arc::clone(&first)));
        tokio::select! {
            outcome = body(drain) => {
                let exit = outcome.unwrap_or_else(|error| {
                    note(&report(&error));
                    error.exit()
                });
                match exit {
                    // The shell convention: 128 and the number of the signal.
                    Exit::Interrupted => signalled(&first).into(),
                    exit => exit.into(),
                }
            }
            () = abandoned.cancelled() => signalled(&first).into(),
        }
    });
    // The process ends with the tasks that still run. A shutdown of the runtime would wait for a blocking task that
    // never ends, and take the timers from tasks that use them: each would panic.
    std::mem::forget(runtime);
    exit
}

/// An error and its causes, one per line, for people.
pub fn report(error: &dyn Error) -> String {
    format!("error: {}", chain(error).join("\n  caused by: "))
}

/// An error and its causes in one line, for tables and conditions.
pub fn in_a_line(error: &dyn Error) -> String {
    chain(error).join(": ")
}

/// The text of an error and of its causes, each once: many libraries repeat the cause in their own text.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let says = error.to_string();
        // A text that ends with its cause has it already.
        if !said.iter().any(|said| said.ends_with(&says)) {
            said.push(says);
        }
        cause = error.source();
    }
    said
}

/// Writes a line to standard error, fit for a terminal. A standard error that is closed or full loses the line and
/// stops nothing.
pub fn note(line: &str) {
    // Not `eprintln!`, which panics where standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// A text whose control characters are shown as in JSON (`\u001b`), but for line breaks and tabs. Names of threads,
/// nodes and files are untrusted input that a terminal would interpret.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal would act on it instead of showing it.
fn is_obeyed(c: char) -> bool {
    // Escape sequences begin with a control character (C0 or C1, ECMA-48): without it a terminal prints the rest.
    c.is_control() && !matches!(c, '\n' | '\t')
}

fn fail(error: &dyn Error, exit: Exit) -> ExitCode {
    note(&report(error));
    exit.into()
}

/// The exit code of a program that a signal has ended.
fn signalled(first: &OnceLock<u8>) -> u8 {
    SIGNALLED + first.get().copied().unwrap_or(SIGINT)
}

/// What an exit code adds to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;
/// Numbers of the signals, the same on every Linux.
const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Whether [`Interrupts`] has SIGINT for itself. Signals belong to the process, and so does this.
static SIGINT_IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// SIGINT for a body that acts on it by itself, such as a prompt. While the value lives, SIGINT does not drain the
/// program.
#[derive(Debug)]
pub struct Interrupts(Signal);

impl Interrupts {
    /// Takes SIGINT from [`service`].
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn take() -> std::io::Result<Self> {
        // The handler first: a SIGINT between the two steps drains the program, and none is lost.
        let interrupts = Self(signal(SignalKind::interrupt())?);
        SIGINT_IS_TAKEN.store(true, Ordering::SeqCst);
        Ok(interrupts)
    }

    /// Waits for the next SIGINT.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }

    /// Discards the signals that came so far, so that [`Self::next`] waits for one that is still to come.
    pub fn forget(&mut self) {
        while self.0.recv().now_or_never().flatten().is_some() {}
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        SIGINT_IS_TAKEN.store(false, Ordering::SeqCst);
    }
}

/// Logs on a thread of its own: standard error may be a pipe that is full and that is not read.
fn log_aside(log: impl FnOnce() + Send + 'static) {
    drop(tokio::task::spawn_blocking(log));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The number of the next signal that is the program's to act on.
    async fn next(&mut self) -> u8 {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return SIGTERM,
                _ = self.interrupt.recv() => {
                    if !SIGINT_IS_TAKEN.load(Ordering::SeqCst) {
                        return SIGINT;
                    }
                }
            }
        }
    }

    /// Drains at the first signal, abandons the body at a later one, and then ends the process.
    async fn drain_then_abandon(mut self, drain: Drain, abandoned: CancellationToken, first: Arc<OnceLock<u8>>) {
        let number = self.next().await;
        first.get_or_init(|| number);
        drain.cancel();
        log_aside(|| tracing::info!("draining: finishing what was begun; a later signal ends at once"));
        // `timeout` and some supervisors signal a process and then its group, and mean one signal.
        let until = tokio::time::Instant::now() + ONE_SIGNAL;
        while tokio::time::timeout_at(until, self.next()).await.is_ok() {}
        self.next().await;
        abandoned.cancel();
        log_aside(|| tracing::warn!("another signal: ending without draining"));
        tokio::time::sleep(ABANDONED_WITHIN).await;
        // A body that blocks its thread is ended in no other way.
        std::process::exit(signalled(&first).into());
    }
}
