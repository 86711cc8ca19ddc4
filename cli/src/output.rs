//! Standard output: data only. A reader that closes the pipe (`| head`) ends the command without an error.

use std::io::{self, Write};

use serde::Serialize;
use service_kit::run::printable;

pub(crate) mod table;

/// Why data could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
pub(crate) struct OutputError(#[source] io::Error);

/// Whether standard output still has a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Listens,
    /// It has closed the pipe: nothing more is written.
    Gone,
}

/// Writes to standard output.
pub(crate) fn write(data: &[u8]) -> Result<Reader, OutputError> {
    let mut out = io::stdout().lock();
    // Without the flush a last line without its break stays in the buffer of `Stdout`, and an error of writing it is
    // lost.
    match out.write_all(data).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Listens),
        // Rust programs ignore SIGPIPE, so that a closed pipe is EPIPE of write(2).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(OutputError(error)),
    }
}

/// Writes text. Control characters, which a terminal would interpret, are escaped: names of threads are untrusted
/// input.
pub(crate) fn text(text: &str) -> Result<(), OutputError> {
    write(printable(text).as_bytes()).map(|_| ())
}

/// A text in one line, with its control characters escaped.
pub(crate) fn in_line(text: &str) -> String {
    printable(&text.replace('\n', "\\n").replace('\t', "\\t")).into_owned()
}

/// Escapes the control characters of bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(crate) struct Printable {
    /// The beginning of a character or a line's end whose rest is in the next piece.
    cut: Vec<u8>,
}

impl Printable {
    pub(crate) fn pass(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.cut);
        bytes.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&bytes) {
            // No length of an error: the piece ends within a character, whose other bytes are in the next piece.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // CSV ends its lines with `\r\n` (RFC 4180), which is one line break; a `\r` alone is a control character
            // to escape.
            _ => bytes.len() - usize::from(bytes.ends_with(b"\r")),
        };
        self.cut = bytes.split_off(whole);
        printable(&String::from_utf8_lossy(&bytes).replace("\r\n", "\n")).into_owned().into_bytes()
    }
}

/// Writes a JSON document, indented on a terminal.
pub(crate) fn json(value: &impl Serialize) -> Result<(), OutputError> {
    let is_for_people = io::IsTerminal::is_terminal(&io::stdout());
    let document = if is_for_people { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    // The escapes of text are those of JSON.
    text(&format!("{}\n", document.map_err(|error| OutputError(error.into()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_made_fit_wherever_they_are_cut() {
        let whole = "n\u{e9}\u{9b}m,\u{1b}]0;x\u{7}\r\n\u{1f600}\r\n".as_bytes();
        for at in 0..whole.len() {
            let mut printable = Printable::default();
            let mut out = printable.pass(&whole[..at]);
            out.extend(printable.pass(&whole[at..]));
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "n\u{e9}\\u009bm,\\u001b]0;x\\u0007\n\u{1f600}\n",
                "cut at {at}"
            );
        }
    }
}
