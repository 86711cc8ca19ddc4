//! The life of a program: a runtime, a drain token that SIGTERM or SIGINT cancels, an exit code, and one report of what went
//! wrong. A signal a second or more after it ends the program at once.

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// Cancelled when the program should finish what it has in hand and end. Cheap to clone.
pub type Drain = CancellationToken;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Did what it was asked.
    Done = 0,
    /// Could not.
    Failed = 1,
    /// Was asked wrongly: command line or configuration.
    Usage = 2,
    /// Answered, but not from all the data (`--strict`).
    Incomplete = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error a program may end with: knows its exit code.
pub trait Fatal: Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Signals that come within this time are one.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Runs a program to its end: call it from `main` and return what it returns.
///
/// `body` gets the drain token and should return soon after it is cancelled. The first SIGTERM or SIGINT cancels the token,
/// one that comes a second or more later abandons `body`. An error is written to standard error with all its causes.
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
        let signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => return fail(&error, Exit::Failed),
        };
        tokio::select! {
            outcome = body(drain.clone()) => match outcome {
                Ok(exit) => exit.into(),
                Err(error) => fail(&error, error.exit()),
            },
            () = signals.drain_then_abort(&drain) => {
                tracing::warn!("another signal: ending without draining");
                Exit::Failed.into()
            }
        }
    });
    // A blocking task that never ends must not keep a finished program alive.
    runtime.shutdown_background();
    exit
}

/// An error and its causes, one per line, as a person reads it.
pub fn report(error: &dyn Error) -> String {
    format!("error: {}", chain(error).join("\n  caused by: "))
}

/// An error and its causes in one line, for tables and conditions.
pub fn in_a_line(error: &dyn Error) -> String {
    chain(error).join(": ")
}

/// What an error says, and its causes, each once: many libraries put the cause into their own words too.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let says = error.to_string();
        if !said.iter().any(|said| said.ends_with(&says)) {
            said.push(says);
        }
        cause = error.source();
    }
    said
}

fn fail(error: &dyn Error, exit: Exit) -> ExitCode {
    eprintln!("{}", report(error));
    exit.into()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn drain_then_abort(mut self, drain: &Drain) {
        self.next().await;
        tracing::info!("draining: finishing what is in hand; a later signal ends at once");
        drain.cancel();
        // Whoever signals a process and then its group, as `timeout` and some supervisors do, means one signal.
        let until = tokio::time::Instant::now() + ONE_SIGNAL;
        while tokio::time::timeout_at(until, self.next()).await.is_ok() {}
        self.next().await;
    }
}
