//! The terminal as it was before the prompt.

use std::io;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::output;

/// The escape sequence of xterm that ends bracketed paste, which the editor has begun.
const BRACKETED_PASTE_OFF: &[u8] = b"\x1b[?2004l";

/// Restores the terminal when dropped: an editor whose thread is abandoned while it reads leaves the terminal in raw
/// mode.
pub(super) struct Terminal(Option<Termios>);

impl Terminal {
    pub(super) fn now() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let Some(before) = self.0.take() else { return };
        // The editor was not reading and has restored the mode itself.
        if tcgetattr(io::stdin()).is_ok_and(|now| now == before) {
            return;
        }
        // `TCSADRAIN` lets what was written reach the terminal in its present mode first (termios(3)). Errors are
        // ignored: in a drop there is no caller to report them to.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
        let _ = output::write(BRACKETED_PASTE_OFF);
    }
}
