//! `causeway query`: SQL from the command line, a file, standard input, or typed at a prompt.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use answers::completeness::Completeness;
use clap::{Args, ValueEnum, ValueHint};
use futures::StreamExt;
use query_api::wire::{CutAnswer, SqlAnswer, SqlRequest};
use serde_json::value::RawValue;
use service_kit::run::{Drain, Exit, Fatal, note};

use crate::client::{Client, ClientError, completeness_of};
use crate::output::{self, OutputError, Reader, table::TextTable};

mod limit;
mod script;
mod shell;
pub(crate) mod talk;

use limit::Limit;
use script::{Script, Statement};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people
    #[default]
    Table,
    /// One array of objects
    Json,
    /// One object per line
    Ndjson,
    /// Comma-separated values with a heading
    Csv,
    /// Arrow IPC stream
    Arrow,
    /// Parquet file
    Parquet,
}

impl Format {
    /// The media type that is requested. JSON objects come line by line and are put into an array here, with every
    /// number as sent.
    const fn accept(self) -> &'static str {
        match self {
            Self::Table => "application/json",
            Self::Json | Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    const fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }
}

const EXAMPLES: &str = "\
Examples:
  causeway query 'SELECT node, count(*) FROM events GROUP BY node'
  causeway query --since 1h --nodes gpu-node-01,gpu-node-02 'SELECT op_name, avg(duration) FROM events GROUP BY 1'
  causeway query -f report.sql --format csv --limit all > report.csv
  causeway query                                    # a prompt; \\? lists its commands";

/// Runs SQL over the whole fleet
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QueryArgs {
    /// Statement; without it: a prompt on a terminal, else standard input
    #[arg(conflicts_with = "file")]
    sql: Option<String>,
    /// Read the statement from a file (`-` for standard input)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only rows of these nodes, in every table of the statement (a port behind a name is ignored)
    #[arg(long, value_delimiter = ',', value_name = "NODE,…", value_parser = talk::asked_node, value_hint = ValueHint::Other)]
    nodes: Vec<String>,
    /// Only rows since then, in every table of the statement: a duration back from now (`90s`, `5m`, `12h`, `30d`), a
    /// time (`2026-04-03T12:00:00Z`, `2026-04-03 12:00`, `2026-04-03`; UTC where no zone is given), `today` or
    /// `yesterday`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Read the tables as they were then: a duration back from now, or a time, as for --since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
    /// Read the table that has this snapshot at it, and the others as they were then
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    snapshot: Option<i64>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Short for `--format json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Most rows, in every format; `all` for no limit
    #[arg(long, value_name = "ROWS", default_value_t)]
    limit: Limit,
    /// Exit with 3 when the answer does not cover everything, or a limit cut it
    #[arg(long)]
    strict: bool,
}

/// Why a statement gave no rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("{what} cannot be read")]
    Unreadable {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("no statement: give SQL as an argument, in a file (-f) or on standard input")]
    NoStatement,
    #[error("{count} statements, and a file of this format holds the rows of one: run them one by one")]
    OneAtATime { count: usize },
    #[error("binary rows are not written to a terminal: redirect standard output")]
    BinaryToTerminal,
    #[error("the prompt failed")]
    Prompt(#[source] rustyline::error::ReadlineError),
    #[error("the prompt cannot handle Ctrl-C")]
    Signals(#[source] io::Error),
}

impl Fatal for QueryError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoStatement | Self::OneAtATime { .. } | Self::BinaryToTerminal | Self::Unreadable { .. } => {
                Exit::Usage
            }
            Self::Client(error) => error.exit(),
            Self::Output(_) | Self::Prompt(_) | Self::Signals(_) => Exit::Failed,
        }
    }
}

/// The settings of every statement of one run.
#[derive(Debug)]
struct Session<'a> {
    client: &'a Client,
    nodes: Vec<String>,
    since: Option<String>,
    format: Format,
    limit: Limit,
    at: Option<String>,
    snapshot: Option<i64>,
}

/// Runs the command.
pub(crate) async fn run(args: QueryArgs, client: &Client, drain: &Drain) -> Result<Exit, QueryError> {
    let format = if args.json { Format::Json } else { args.format };
    // Before anything is sent: the statement would run for nothing.
    if format.is_binary() && io::stdout().is_terminal() {
        return Err(QueryError::BinaryToTerminal);
    }
    let QueryArgs { sql, file, nodes, since, at, limit, snapshot, strict, .. } = args;
    let session = Session { client, nodes, since, format, limit, at, snapshot };
    let is_prompt = sql.is_none() && file.is_none() && io::stdin().is_terminal();
    if is_prompt {
        return shell::run(&session, drain).await;
    }
    let text = tokio::select! {
        text = given(sql, file) => text?,
        () = drain.cancelled() => return Ok(Exit::Interrupted),
    };
    let statements = statements(&text)?;
    // The metadata of a Parquet file stands at its end, and a reader of an Arrow IPC stream stops at the end-of-stream
    // marker: two results in one file cannot both be read.
    if format.is_binary() && statements.len() > 1 {
        return Err(QueryError::OneAtATime { count: statements.len() });
    }
    let mut is_complete = true;
    for statement in &statements {
        let outcome = tokio::select! {
            outcome = session.answer(statement) => outcome?,
            // The server ends the statement when the connection closes.
            () = drain.cancelled() => return Ok(Exit::Interrupted),
        };
        is_complete &= outcome.is_complete;
    }
    Ok(if strict && !is_complete { Exit::Incomplete } else { Exit::Done })
}

/// The statements of a text, in turn; the last one needs no semicolon.
fn statements(text: &str) -> Result<Vec<Statement>, QueryError> {
    let statements = Script::of(text).all();
    if statements.is_empty() { Err(QueryError::NoStatement) } else { Ok(statements) }
}

/// The text of the argument, the file or standard input. A pipe or a terminal may never provide it: it is read on a
/// thread that the end of the process does not wait for.
async fn given(sql: Option<String>, file: Option<PathBuf>) -> Result<String, QueryError> {
    let file = match (sql, file) {
        (Some(sql), _) => return Ok(sql),
        (None, file) => file.filter(|file| file.as_os_str() != "-"),
    };
    let what = file.as_ref().map_or_else(|| "standard input".to_owned(), |file| file.display().to_string());
    let read = tokio::task::spawn_blocking(move || match file {
        Some(file) => std::fs::read_to_string(file),
        None => io::read_to_string(io::stdin()),
    });
    let read = read.await.unwrap_or_else(|abandoned| Err(io::Error::other(abandoned)));
    read.map_err(|source| QueryError::Unreadable { what, source })
}

struct Outcome {
    is_complete: bool,
}

/// The server's JSON answer, its cells as they were sent.
type Answer = SqlAnswer<Vec<Vec<Box<RawValue>>>>;

impl Session<'_> {
    /// Runs one statement: rows to standard output, the footer to standard error.
    async fn answer(&self, statement: &Statement) -> Result<Outcome, QueryError> {
        let request = SqlRequest {
            sql: statement.sql().to_owned(),
            limit: Some(self.limit.to_request()),
            at: self.at.clone(),
            snapshot: self.snapshot,
            since: self.since.clone(),
            nodes: self.nodes.iter().cloned().collect(),
            timeout_ms: None,
        };
        // Names the request, so that the reason of an answer that breaks off can be asked for (`X-Request-Id`).
        let id = uuid::Uuid::new_v4().to_string();
        match self.ask(&request, &id).await {
            Err(QueryError::Client(error)) => {
                Err(self.client.explained(error, &id).await.in_text_that_begins(statement.begins()).into())
            }
            answered => answered,
        }
    }

    async fn ask(&self, request: &SqlRequest, id: &str) -> Result<Outcome, QueryError> {
        let response = self.client.post("api/v1/sql", request, self.format.accept(), id).await?;
        match self.format {
            Format::Table => self.print_table(response).await,
            _ => self.stream(response, id).await,
        }
    }

    async fn print_table(&self, response: reqwest::Response) -> Result<Outcome, QueryError> {
        let status = response.status().as_u16();
        let text = self.client.body(response).await?;
        let answer: Answer = serde_json::from_str(&text).map_err(|_| self.client.foreign(status, &text))?;
        output::text(&as_table(&answer))?;
        let outcome = footer(Some(answer.rows.len()), answer.completeness.as_ref());
        if answer.truncated {
            note(self.limit.advice(answer.rows.len()));
        }
        Ok(Outcome { is_complete: outcome.is_complete && !answer.truncated })
    }

    /// Passes a streamed answer on, and counts its rows where lines are rows.
    async fn stream(&self, response: reqwest::Response, id: &str) -> Result<Outcome, QueryError> {
        let completeness = completeness_of(&response);
        let mut pieces = response.bytes_stream();
        let mut json = (self.format == Format::Json).then(JsonArray::default);
        let mut lines = 0;
        let is_shown = io::stdout().is_terminal();
        let mut printable = output::Printable::default();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|source| self.client.broken_off(source))?;
            let piece = if is_shown { printable.pass(&piece).into() } else { piece };
            // NDJSON has a row per line: within JSON a line break is always escaped (RFC 8259, section 7).
            lines += piece.iter().filter(|byte| **byte == b'\n').count();
            let reader = match &mut json {
                Some(array) => output::write(&array.pass(&piece))?,
                None => output::write(&piece)?,
            };
            if reader == Reader::Gone {
                // The reader has closed the pipe, as `head` does: no error and no footer. The connection closes with
                // this function, and the server cancels the statement.
                return Ok(Outcome { is_complete: true });
            }
        }
        if let Some(array) = json {
            output::write(&array.end())?;
        }
        // A CSV field may contain line breaks (RFC 4180), and binary forms have no lines.
        let counts_lines = matches!(self.format, Format::Json | Format::Ndjson);
        let outcome = footer(counts_lines.then_some(lines), completeness.as_ref());
        let cut = self.cut(id).await;
        if let Some(rows) = cut {
            note(self.limit.advice(rows));
        }
        Ok(Outcome { is_complete: outcome.is_complete && cut.is_none() })
    }

    /// After how many rows a streamed answer was cut. Its headers were sent before that was known, so it is asked for
    /// afterwards. The server has no record of an answer that was not cut.
    async fn cut(&self, id: &str) -> Option<usize> {
        if self.limit == Limit::All {
            return None;
        }
        // 404 means that nothing cut it. Other errors are passed over: the rows have arrived in full.
        let cut: Result<CutAnswer, ClientError> = self.client.get(&format!("api/v1/queries/{id}"), &[]).await;
        cut.ok().filter(|cut| cut.truncated).map(|cut| cut.row_count)
    }
}

/// Reports how many rows there were, from how many nodes, and what is missing.
fn footer(rows: Option<usize>, completeness: Option<&Completeness>) -> Outcome {
    note(&talk::footer(rows, completeness));
    let warning = talk::incomplete(completeness);
    if let Some(warning) = &warning {
        note(warning);
    }
    Outcome { is_complete: warning.is_none() }
}

fn as_table(answer: &Answer) -> String {
    let numbers = answer.columns.iter().enumerate().filter(|(_, c)| is_number(&c.kind)).map(|(at, _)| at);
    let mut table = TextTable::new(answer.columns.iter().map(|c| c.name.as_str())).numbers(numbers);
    for row in &answer.rows {
        table.row(row.iter().map(|cell| shown(cell.get())));
    }
    table.render()
}

/// Whether a type of SQL is one of numbers.
fn is_number(kind: &str) -> bool {
    // By its whole name: `interval`, `array(integer)` and `row(point varchar)` have the letters of one as well.
    let name = kind.split_once('(').map_or(kind, |(name, _)| name);
    matches!(name, "tinyint" | "smallint" | "integer" | "bigint" | "real" | "double" | "decimal")
}

/// A JSON value as a cell: text without its quotes, everything else as it was sent.
fn shown(json: &str) -> String {
    match json {
        "null" => "NULL".to_owned(),
        // `RawValue` keeps the text of a number: 9007199254740993 would change in a 64-bit float.
        text if text.starts_with('"') => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        other => other.to_owned(),
    }
}

/// Turns lines of objects into one array of them.
#[derive(Debug, Default)]
struct JsonArray {
    has_rows: bool,
    line_begins: bool,
}

impl JsonArray {
    fn pass(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + 8);
        for &byte in piece {
            // Noted, not written: whether a comma follows is known with the first byte of the next row, perhaps in
            // another piece.
            if byte == b'\n' {
                self.line_begins = true;
                continue;
            }
            if !self.has_rows {
                out.push(b'[');
            } else if self.line_begins {
                out.extend_from_slice(b",\n");
            }
            (self.has_rows, self.line_begins) = (true, false);
            out.push(byte);
        }
        out
    }

    fn end(&self) -> Vec<u8> {
        if self.has_rows { b"]\n".to_vec() } else { b"[]\n".to_vec() }
    }
}

#[cfg(test)]
mod tests;
