//! Keeps the handler of SIGINT that the program has.
#![expect(unsafe_code, reason = "sigaction is called directly")]

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustyline::error::ReadlineError;

/// Makes an editor of lines without its handler of SIGINT.
///
/// rustyline installs one for as long as an editor lives, and puts the handler before it back in the end. The program needs SIGINT
/// while a statement runs, and the editor does not: while it reads, the terminal is in a mode in which Ctrl-C is a key.
///
/// # Errors
/// The editor cannot be made, or the handler cannot be changed.
pub(super) fn kept<T>(make: impl FnOnce() -> Result<T, ReadlineError>) -> Result<T, ReadlineError> {
    let own = handler()?;
    let made = make();
    replace(&own)?;
    made
}

fn handler() -> Result<SigAction, Errno> {
    // The handler that there is can be had only by putting another one in its place.
    let own = replace(&SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty()))?;
    replace(&own)?;
    Ok(own)
}

fn replace(handler: &SigAction) -> Result<SigAction, Errno> {
    // SAFETY: the handler is SIG_IGN, or one that was installed before and is never unloaded.
    unsafe { sigaction(Signal::SIGINT, handler) }
}
