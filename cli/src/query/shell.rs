//! The prompt: statements end with `;`, history is kept. Ctrl-C drops the line or cancels the statement that runs, Ctrl-D
//! leaves.

use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
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

/// Reads and runs statements until the user leaves.
pub(super) async fn run(session: &Session<'_>, drain: &Drain) -> Result<Exit, QueryError> {
    let mut editor = DefaultEditor::new().map_err(QueryError::Prompt)?;
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    let interrupts = Interrupts::take().map_err(QueryError::Signals)?;
    let mut prompt = Prompt { session, drain, interrupts, text: String::new() };
    note(&format!("causeway {} at {}; \\? for help", service_kit::program::VERSION, session.client.server()));
    loop {
        let sign = if prompt.text.is_empty() { "causeway> " } else { "       -> " };
        // Reading a key blocks a thread, which must not be one that answers are waited for on.
        match tokio::task::block_in_place(|| editor.readline(sign)) {
            Ok(line) => {
                let typed = format!("{}{line}", prompt.text);
                let next = prompt.take(&line).await;
                if prompt.text.is_empty() {
                    let _ = editor.add_history_entry(typed.trim());
                }
                if next == Next::Leave {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => prompt.text.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(QueryError::Prompt(error)),
        }
    }
    if let Some(file) = &history {
        // A history that cannot be kept is not worth a failure.
        let _ = editor.save_history(file);
    }
    Ok(Exit::Done)
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
        let Script { ended, rest } = Script::of(&self.text);
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
            ("\\d", "") => self.tables().await,
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
        self.interrupts.forget();
        tokio::select! {
            outcome = self.session.answer(statement) => {
                if let Err(error) = outcome {
                    note(&report(&error));
                }
            }
            () = self.interrupts.next() => note("cancelled"),
            () = self.drain.cancelled() => return Next::Leave,
        }
        Next::Line
    }

    async fn tables(&self) {
        let outcome = self.session.client.get("api/v1/tables", &[]).await;
        let outcome = outcome.map_err(QueryError::from).and_then(|document| Ok(output::text(&listed(&document))?));
        if let Err(error) = outcome {
            note(&report(&error));
        }
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
