//! The editor of lines, on a thread of its own: reading a key blocks it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::sigint;

type Line = Result<String, ReadlineError>;

/// One editor for all lines of a prompt. It keeps what was typed ahead of the line that it gives.
pub(super) struct LineEditor {
    requests: Sender<Request>,
    lines: UnboundedReceiver<Line>,
}

enum Request {
    /// Show this sign, and read a line.
    Line(&'static str),
    /// Add a text to the history.
    Remember(String),
}

impl LineEditor {
    /// Starts the thread, which the end of the process does not wait for. `history` is the file of the history.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub(super) fn start(history: Option<PathBuf>) -> io::Result<Self> {
        let (requests, asked) = channel();
        let (send, lines) = unbounded_channel();
        let thread = std::thread::Builder::new().name("causeway-prompt".to_owned());
        thread.spawn(move || serve(history.as_deref(), &asked, &send))?;
        Ok(Self { requests, lines })
    }

    /// Begins to read a line.
    pub(super) fn ask(&self, sign: &'static str) {
        // A thread that has ended has printed why.
        let _ = self.requests.send(Request::Line(sign));
    }

    /// The line that was asked for.
    pub(super) async fn line(&mut self) -> Line {
        self.lines.recv().await.unwrap_or(Err(ReadlineError::Eof))
    }

    /// Adds a text to the history.
    pub(super) fn remember(&self, text: String) {
        let _ = self.requests.send(Request::Remember(text));
    }
}

/// The body of the thread.
fn serve(history: Option<&Path>, asked: &Receiver<Request>, lines: &UnboundedSender<Line>) {
    let made = sigint::kept(|| Editor::<(), FileHistory>::with_history(Config::default(), FileHistory::new()));
    let mut editor = match made {
        Ok(editor) => editor,
        Err(error) => {
            let _ = lines.send(Err(error));
            return;
        }
    };
    // A history that cannot be kept is not worth a failure, and the first time there is none.
    let _ = history.map(|history| editor.load_history(history));
    for request in asked {
        match request {
            Request::Line(sign) => {
                if lines.send(editor.readline(sign)).is_err() {
                    return;
                }
            }
            Request::Remember(text) => {
                let _ = editor.add_history_entry(text);
                // Another prompt may have added to the file meanwhile.
                let _ = history.map(|history| editor.append_history(history));
            }
        }
    }
}
