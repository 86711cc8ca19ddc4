//! The prompt: statements end with `;`, history is kept, Ctrl-C drops the line, or stops a query and leaves, Ctrl-D leaves.

use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use service_kit::run::{Drain, Exit, report};

use super::{QueryError, Session};
use crate::output;
use crate::table_list::listed;

const HELP: &str = "\
SQL;         run a statement, over as many lines as it takes
\\d           list tables and views
\\d NAME      describe a table
\\q           leave (or Ctrl-D)
";

/// Reads and runs statements until the user leaves.
pub(super) async fn run(session: &Session<'_>, drain: &Drain) -> Result<Exit, QueryError> {
    let mut editor = DefaultEditor::new().map_err(QueryError::Prompt)?;
    let history = history_file();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    eprintln!("causeway {} at {}; \\? for help", service_kit::program::VERSION, session.client.server());
    let mut statement = String::new();
    loop {
        let prompt = if statement.is_empty() { "causeway> " } else { "       -> " };
        // Reading a key blocks a thread, which must not be one that answers are waited for on.
        let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(QueryError::Prompt(error)),
        };
        if statement.is_empty() && line.trim_start().starts_with('\\') {
            if line.trim() == "\\q" {
                break;
            }
            command(session, line.trim()).await;
            continue;
        }
        statement = format!("{statement}{line}\n");
        let Some(sql) = statement.trim().strip_suffix(';') else { continue };
        let _ = editor.add_history_entry(statement.trim());
        answer(session, sql.to_owned(), drain).await;
        statement.clear();
        if drain.is_cancelled() {
            break;
        }
    }
    if let Some(file) = &history {
        // A history that cannot be kept is not worth a failure.
        let _ = editor.save_history(file);
    }
    Ok(Exit::Done)
}

async fn answer(session: &Session<'_>, sql: String, drain: &Drain) {
    tokio::select! {
        outcome = session.answer(&sql) => {
            if let Err(error) = outcome {
                eprintln!("{}", report(&error));
            }
        }
        () = drain.cancelled() => eprintln!("stopped"),
    }
}

async fn command(session: &Session<'_>, line: &str) {
    let outcome = match line.split_once(' ').unwrap_or((line, "")) {
        ("\\d", "") => tables(session).await,
        ("\\d", name) => {
            let name = name.trim().trim_end_matches(';');
            session.answer(&format!("DESCRIBE {name}")).await.map(|_| ())
        }
        _ => {
            eprint!("{HELP}");
            Ok(())
        }
    };
    if let Err(error) = outcome {
        eprintln!("{}", report(&error));
    }
}

async fn tables(session: &Session<'_>) -> Result<(), QueryError> {
    let document: serde_json::Value = session.client.get("api/v1/tables", &[]).await?;
    Ok(output::text(&listed(&document))?)
}

/// `$XDG_STATE_HOME/causeway/history`, made private because statements may hold names of people and jobs.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let dir = state.or_else(home)?.join("causeway");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}
