//! Standard output: data only. A reader that has seen enough (`| head`) ends the command quietly.

use std::io::{self, Write};

use serde_json::Value;

pub(crate) mod table;

/// Why data could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
pub(crate) struct OutputError(#[source] io::Error);

/// Writes to standard output.
pub(crate) fn write(data: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError(error)),
        _ => Ok(()),
    }
}

/// Writes text.
pub(crate) fn text(text: &str) -> Result<(), OutputError> {
    write(text.as_bytes())
}

/// Writes a JSON document, indented for people on a terminal.
pub(crate) fn json(value: &Value) -> Result<(), OutputError> {
    let pretty = io::IsTerminal::is_terminal(&io::stdout());
    text(&if pretty { format!("{value:#}\n") } else { format!("{value}\n") })
}
