//! The prompt: statements end with `;`, history is kept. Ctrl-C drops what was typed, or cancels the statement that
//! runs with the rest of its line; Ctrl-D leaves.

use std::ffi::OsString;
use std::path::PathBuf;

use answers::tables::Tables;
use rustyline::error::ReadlineError;
use service_kit::run::{Drain, Exit, Interrupts, note, report};

use super::script::{Script, Statement};
use super::{QueryError, Session};
use crate::output;
use crate::table_list::listed;

mod editor;
mod sigint;
mod terminal;

use editor::LineEditor;
use terminal::Terminal;

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
    /// The user has cancelled a statement: the rest of its line is not run.
    Cancelled,
    Leave,
}

/// Reads and runs statements until the user leaves, or a signal ends the program.
pub(super) async fn run(session: &Session<'_>, drain: &Drain) -> Result<Exit, QueryError> {
    // From here on SIGINT ends a statement and not the program. The state of the terminal is recorded before the editor
    // changes it.
    let interrupts = Interrupts::take().map_err(QueryError::Signals)?;
    let _terminal = Terminal::now();
    let editor = LineEditor::start(history_file()).map_err(|error| QueryError::Prompt(error.into()))?;
    let mut prompt = Prompt { session, drain, interrupts, editor, text: String::new() };
    note(&format!("causeway {} at {}; \\? for help", service_kit::program::VERSION, session.client.server()));
    while let Some(line) = prompt.read().await? {
        let typed = format!("{}{line}", prompt.text);
        // The editor's thread writes the history before it reads the next line. The word that leaves the prompt is not
        // recorded: it would be written while the process ends.
        if prompt.take(&line).await == Next::Leave {
            break;
        }
        if prompt.text.is_empty() {
            prompt.editor.remember(typed.trim().to_owned());
        }
    }
    Ok(if drain.is_cancelled() { Exit::Interrupted } else { Exit::Done })
}

/// The state of the prompt: what was typed, and what runs it.
struct Prompt<'a> {
    session: &'a Session<'a>,
    drain: &'a Drain,
    interrupts: Interrupts,
    editor: LineEditor,
    /// Lines of a statement that has not ended yet.
    text: String,
}

impl Prompt<'_> {
    fn sign(&self) -> &'static str {
        if self.text.is_empty() { "causeway> " } else { "       -> " }
    }

    /// The next line; none when the user leaves, or a signal ends the program.
    async fn read(&mut self) -> Result<Option<String>, QueryError> {
        // A Ctrl-C that arrived after its statement had ended must not drop the line that is typed next.
        self.interrupts.forget();
        self.editor.ask(self.sign());
        loop {
            let line = tokio::select! {
                line = self.editor.line() => line,
                // While an editor has the terminal in a mode of its own, Ctrl-C is a key. Elsewhere the terminal has
                // dropped the line that was being typed, and the reading goes on.
                () = self.interrupts.next() => {
                    self.text.clear();
                    output::text(&format!("\n{}", self.sign()))?;
                    continue;
                }
                () = self.drain.cancelled() => {
                    note("");
                    return Ok(None);
                }
            };
            match line {
                Ok(line) => return Ok(Some(line)),
                // Ctrl-C as a key of the editor: the statement that was begun is dropped, as in a shell.
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {
                    self.text.clear();
                    self.editor.ask(self.sign());
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(QueryError::Prompt(error)),
            }
        }
    }

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
        let (statements, open) = Script::of(&self.text).entered();
        self.text = open;
        for statement in statements {
            match self.answer(&statement).await {
                Next::Line => {}
                Next::Cancelled => {
                    // Ctrl-C ends the line: the statements after the one that was running are not run either.
                    self.text.clear();
                    return Next::Cancelled;
                }
                Next::Leave => return Next::Leave,
            }
        }
        Next::Line
    }

    async fn command(&mut self, line: &str) -> Next {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("\\d", "") => return self.tables().await,
            ("\\d", name) => {
                return self.answer(&Statement::alone(format!("DESCRIBE {}", name.trim()))).await;
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
        let listing = async {
            let found: Tables = client.get("api/v1/tables", &[]).await?;
            Ok(output::text(&listed(&found.tables))?)
        };
        self.until_done(listing).await
    }

    /// Asks the server, until it has answered or the user interrupts.
    async fn until_done(&mut self, asking: impl Future<Output = Result<(), QueryError>>) -> Next {
        // The branches that end first drop `asking`, and with it the connection: the server cancels a statement whose
        // client is gone.
        tokio::select! {
            outcome = asking => {
                if let Err(error) = outcome {
                    note(&report(&error));
                }
                Next::Line
            }
            () = self.interrupts.next() => {
                note("cancelled");
                Next::Cancelled
            }
            () = self.drain.cancelled() => Next::Leave,
        }
    }
}

/// `$XDG_STATE_HOME/causeway/history` (XDG Base Directory Specification). rustyline makes the file accessible to its
/// owner alone: statements may contain names of people and jobs.
fn history_file() -> Option<PathBuf> {
    let dir = state_dir(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))?.join("causeway");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}

/// The directory of state, from the two variables.
fn state_dir(named: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // The specification has an empty variable count as unset, and a relative path ignored: the history would lie in
    // whatever directory the program is started in.
    let named = named.map(PathBuf::from).filter(|dir| dir.is_absolute());
    named.or_else(|| Some(PathBuf::from(home?).join(".local/state")).filter(|dir| dir.is_absolute()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(named: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
        state_dir(named.map(Into::into), home.map(Into::into))
    }

    #[test]
    fn the_history_lies_in_an_absolute_directory_or_nowhere() {
        assert_eq!(dir(Some("/state"), Some("/home/ann")), Some("/state".into()));
        for unusable in [None, Some(""), Some("state"), Some("./state")] {
            assert_eq!(dir(unusable, Some("/home/ann")), Some("/home/ann/.local/state".into()), "{unusable:?}");
            assert_eq!(dir(unusable, Some("")), None, "{unusable:?}");
            assert_eq!(dir(unusable, None), None, "{unusable:?}");
        }
    }
}
