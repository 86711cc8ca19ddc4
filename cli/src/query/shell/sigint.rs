//! Keeps the handler of SIGINT that the program has.
#![expect(unsafe_code, reason = "sigaction is called directly")]

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustyline::error::ReadlineError;

/// Makes a line editor without its handler of SIGINT.
///
/// rustyline installs one for the life of an editor, and restores the former one at its end. The program needs SIGINT
/// while a statement runs. The editor does not: while it reads, the terminal is in raw mode, in which Ctrl-C is a key
/// (termios(3), `ISIG`).
///
/// # Errors
/// The editor cannot be made, or the handler cannot be changed.
pub(super) fn kept<T>(make: impl FnOnce() -> Result<T, ReadlineError>) -> Result<T, ReadlineError> {
    let own = handler()?;
    let made = make();
    // Before the result is looked at: an editor that could not be made may have installed its handler before it failed.
    replace(&own)?;
    made
}

fn handler() -> Result<SigAction, Errno> {
    // nix returns the present handler only in exchange for another: its `sigaction` takes no null pointer, as
    // sigaction(2) does. A SIGINT between the two calls is ignored.
    let own = replace(&SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty()))?;
    replace(&own)?;
    Ok(own)
}

fn replace(handler: &SigAction) -> Result<SigAction, Errno> {
    // SAFETY: the handler is SIG_IGN, or one that was installed before and is never unloaded.
    unsafe { sigaction(Signal::SIGINT, handler) }
}
