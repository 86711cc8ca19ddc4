//! The line editor, on a thread of its own, since reading a key blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::sigint;

type Line = Result<String, ReadlineError>;

/// One editor for all lines of a prompt. It retains what was typed ahead of the line that it returns.
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
        // The prompt asks for one line at a time: neither channel ever holds more than a few entries.
        let (send, lines) = unbounded_channel();
        let thread = std::thread::Builder::new().name("causeway-prompt".to_owned());
        thread.spawn(move || serve(history.as_deref(), &asked, &send))?;
        Ok(Self { requests, lines })
    }

    /// Begins to read a line.
    pub(super) fn ask(&self, sign: &'static str) {
        // A thread that has ended has sent its error as a line, which `line` returns.
        let _ = self.requests.send(Request::Line(sign));
    }

    /// The line that was asked for.
    pub(super) async fn line(&mut self) -> Line {
        // The thread has ended and its error was taken: nothing can be typed any more, as behind Ctrl-D.
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
    // The prompt works without a history: it is absent at the first start, and the directory may be read-only.
    let _ = history.map(|history| editor.load_history(history));
    // Ends when `LineEditor` is dropped, which closes the channel.
    for request in asked {
        match request {
            Request::Line(sign) => {
                if lines.send(editor.readline(sign)).is_err() {
                    return;
                }
            }
            Request::Remember(text) => {
                let _ = editor.add_history_entry(text);
                // Appended and not saved as a whole: that would delete what another prompt has added meanwhile.
                let _ = history.map(|history| editor.append_history(history));
            }
        }
    }
}
