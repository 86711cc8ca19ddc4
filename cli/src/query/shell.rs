//! The prompt: statements end with `;`, history is kept. Ctrl-C drops the line or cancels the statement that runs, Ctrl-D
//! leaves.

use std::path::PathBuf;

use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::{FileHistory, History};
use rustyline::{Config, Editor};
use service_kit::run::{Drain, Exit, Interrupts, note, report};

use super::script::{Script, Statement};
use super::{QueryError, Session};
use crate::client::Position;
use crate::output;
use crate::table_list::listed;

const HELP: &str = "\
SQL;         run a statement, over as many lines as it takes; Ctrl-C cancels it
\\d           list tables and views
\\d NAME      describe a table
\\?           this help
\\q           leave (or Ctrl-D, exit, quit)";

/// What follows a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    Leave,
}

/// Reads and runs statements until the user leaves, or a signal ends the program.
pub(super) async fn run(session: &Session<'_>, drain: &Drain) -> Result<Exit, QueryError> {
    let mut history = FileHistory::new();
    let file = history_file();
    if let Some(file) = &file {
        // The first time there is none.
        let _ = history.load(file);
    }
    let interrupts = Interrupts::take().map_err(QueryError::Signals)?;
    let mut prompt = Prompt { session, drain, interrupts, text: String::new() };
    note(&format!("causeway {} at {}; \\? for help", service_kit::program::VERSION, session.client.server()));
    let terminal = tcgetattr(std::io::stdin()).ok();
    loop {
        let sign = if prompt.text.is_empty() { "causeway> " } else { "       -> " };
        // Reading a key blocks a thread, which the end of the process does not wait for.
        let reading = tokio::task::spawn_blocking(move || read_line(sign, history));
        let line = tokio::select! {
            read = reading => read.unwrap_or_else(|abandoned| Err(std::io::Error::other(abandoned).into())),
            () = drain.cancelled() => {
                // The reader has the terminal in a mode of its own.
                if let Some(terminal) = &terminal {
                    let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, terminal);
                }
                note("");
                return Ok(Exit::Interrupted);
            }
        };
        let (back, line) = line.map_err(QueryError::Prompt)?;
        history = back;
        match line {
            Ok(line) => {
                let typed = format!("{}{line}", prompt.text);
                let next = prompt.take(&line).await;
                if prompt.text.is_empty() {
                    let _ = history.add(typed.trim());
                    // A history that cannot be kept is not worth a failure.
                    let _ = file.as_ref().map(|file| history.save(file));
                }
                if next == Next::Leave {
                    break;
                }
            }
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => prompt.text.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(QueryError::Prompt(error)),
        }
    }
    Ok(if drain.is_cancelled() { Exit::Interrupted } else { Exit::Done })
}

/// Reads one line at the terminal. An editor has SIGINT for itself while it exists: it must be gone when a statement runs, which
/// SIGINT is to cancel.
fn read_line(sign: &str, history: FileHistory) -> Result<(FileHistory, Result<String, ReadlineError>), ReadlineError> {
    let mut editor = Editor::<(), FileHistory>::with_history(Config::default(), history)?;
    let line = editor.readline(sign);
    Ok((std::mem::take(editor.history_mut()), line))
}

/// What has been typed, and what runs it.
struct Prompt<'a> {
    session: &'a Session<'a>,
    drain: &'a Drain,
    interrupts: Interrupts,
    /// Lines of a statement that has not ended yet.
    text: String,
}

impl Prompt<'_> {
    async fn take(&mut self, line: &str) -> Next {
        let word = line.trim().trim_end_matches(';');
        if self.text.is_empty() && matches!(word, "exit" | "quit" | "\\q") {
            return Next::Leave;
        }
        if self.text.is_empty() && word == "help" {
            note(HELP);
            return Next::Line;
        }
        if self.text.is_empty() && word.starts_with('\\') {
            return self.command(word).await;
        }
        self.text += line;
        self.text.push('\n');
        let Script { mut ended, mut rest, is_broken } = Script::of(&self.text);
        if is_broken && self.text.trim_end().ends_with(';') {
            // It ends as its author sees it, and the server says what is wrong with it.
            ended.extend(rest.take());
        }
        self.text = rest.map(|rest| format!("{}\n", rest.sql)).unwrap_or_default();
        for statement in ended {
            if self.answer(&statement).await == Next::Leave {
                return Next::Leave;
            }
        }
        Next::Line
    }

    async fn command(&mut self, line: &str) -> Next {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("\\d", "") => return self.tables().await,
            ("\\d", name) => {
                let sql = format!("DESCRIBE {}", name.trim());
                return self.answer(&Statement { sql, begins: Position { line: 1, column: 1 } }).await;
            }
            ("\\?", _) => note(HELP),
            (unknown, _) => note(&format!("there is no command `{unknown}`; \\? lists them")),
        }
        Next::Line
    }

    /// Runs one statement. The server cancels it when the connection closes.
    async fn answer(&mut self, statement: &Statement) -> Next {
        let session = self.session;
        self.until_done(async { session.answer(statement).await.map(drop) }).await
    }

    async fn tables(&mut self) -> Next {
        let client = self.session.client;
        let listing = async { Ok(output::text(&listed(&client.get("api/v1/tables", &[]).await?))?) };
        self.until_done(listing).await
    }

    /// Asks the server, until it has answered or the user has seen enough of waiting.
    async fn until_done(&mut self, asking: impl Future<Output = Result<(), QueryError>>) -> Next {
        self.interrupts.forget();
        tokio::select! {
            outcome = asking => {
                if let Err(error) = outcome {
                    note(&report(&error));
                }
            }
            () = self.interrupts.next() => note("cancelled"),
            () = self.drain.cancelled() => return Next::Leave,
        }
        Next::Line
    }
}

/// `$XDG_STATE_HOME/causeway/history`, made private because statements may hold names of people and jobs.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let dir = state.or_else(home)?.join("causeway");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}
