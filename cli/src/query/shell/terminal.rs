//! The terminal as it was before the prompt.

use std::io;

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::output;

/// What ends bracketed paste, which the editor has begun.
const BRACKETED_PASTE_OFF: &[u8] = b"\x1b[?2004l";

/// Restores the terminal when dropped: an editor that is abandoned while it reads leaves it in a mode of its own.
pub(super) struct Terminal(Option<Termios>);

impl Terminal {
    pub(super) fn now() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let Some(before) = self.0.take() else { return };
        if tcgetattr(io::stdin()).is_ok_and(|now| now == before) {
            return;
        }
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &before);
        let _ = output::write(BRACKETED_PASTE_OFF);
    }
}
