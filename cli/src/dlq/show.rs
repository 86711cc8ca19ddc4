//! `causeway dlq show`: one dead letter, with its headers and its bytes.

use clap::{Args, ValueHint};
use event_schema::position::Message;
use ingest::repair::letters::{self, Coordinates, Letter, Messages};
use serde_json::json;
use service_kit::run::Exit;

use super::{DlqError, document, find, rfc3339};
use crate::output::{self, in_line};
use crate::place::{Place, PlaceArgs};

/// Bytes of the value in a line.
const LINE_BYTES: usize = 16;

/// Shows a message that did not decode: why, its headers, and its bytes
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The message, as `causeway dlq list` names it
    #[arg(value_name = "LOG/PARTITION@OFFSET", value_hint = ValueHint::Other)]
    message: Coordinates,
    /// Bytes of the value that are shown
    #[arg(long, value_name = "N", default_value_t = 256)]
    bytes: usize,
    /// Print it as JSON, with all bytes of key, headers and value in hexadecimal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

pub(super) async fn run(args: &ShowArgs, place: &Place) -> Result<Exit, DlqError> {
    let lake = place.open().await?;
    let letters = letters::letters(&lake, None).await?;
    let letter = find(&letters, &args.message)?;
    let message = Messages::of(&lake, [args.message.clone()].into()).await?.next().await?.map(|(_, message)| message);
    if args.json {
        output::json(&as_json(&args.message, letter, message.as_ref()))?;
    } else {
        output::text(&as_text(args, letter, message.as_ref()))?;
    }
    Ok(Exit::Done)
}

fn as_json(place: &Coordinates, letter: &Letter, message: Option<&Message>) -> serde_json::Value {
    let mut document = document(place, letter);
    document["key"] = json!(message.and_then(|message| message.key.as_deref()).map(hexadecimal));
    document["payload"] = json!(message.map(|message| hexadecimal(&message.payload)));
    let headers = message.map(|message| message.headers.iter());
    let headers = headers.map(|headers| headers.map(|(name, value)| json!([name, hexadecimal(value)])));
    document["headers"] = json!(headers.map(Iterator::collect::<Vec<_>>));
    document
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn as_text(args: &ShowArgs, letter: &Letter, message: Option<&Message>) -> String {
    let mut text = format!("message:   {}\n", in_line(&args.message.to_string()));
    // Causes and details quote what the message holds, which is not trusted.
    text += &format!("cause:     {}\n           {}\n", in_line(&letter.cause), in_line(&letter.detail));
    text += &format!("log time:  {}\ningested:  {}\n", rfc3339(letter.log_us), rfc3339(letter.arrived_us));
    if let Some(replay) = &letter.replay {
        text += &format!("replayed:  as {}\n", in_line(&replay.to_string()));
    }
    // `ops.dlq` has the bytes too, and no headers: a replay needs both.
    let Some(message) = message else {
        return text + "bronze.messages does not hold the message: it cannot be replayed\n";
    };
    if let Some(key) = &message.key {
        text += &format!("key:       {}\n", shown(key));
    }
    for (name, value) in &message.headers {
        text += &format!("header:    {} = {}\n", in_line(name), shown(value));
    }
    text += &format!("value:     {} bytes\n", message.payload.len());
    let seen = &message.payload[..message.payload.len().min(args.bytes)];
    text += &dump(seen);
    match message.payload.len() - seen.len() {
        0 => text,
        rest => text + &format!("and {rest} bytes more: --bytes {} shows all\n", message.payload.len()),
    }
}

/// Bytes as text where they are some, else in hexadecimal.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hexadecimal(bytes)),
    }
}

/// Offset, bytes and printable characters, as `hexdump -C` prints them.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(LINE_BYTES).enumerate() {
        let pairs: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        // Printable ASCII; a byte of a longer character would break the columns.
        let characters = chunk.iter().map(|byte| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        });
        let characters: String = characters.collect();
        text += &format!(
            "{:08x}  {:<width$}  |{characters}|\n",
            line * LINE_BYTES,
            pairs.join(" "),
            width = 3 * LINE_BYTES - 1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_their_offsets_and_no_control_character() {
        let text = dump(b"CSWY\x00\x1b[31m0123456789");
        assert_eq!(
            text,
            "00000000  43 53 57 59 00 1b 5b 33 31 6d 30 31 32 33 34 35  |CSWY..[31m012345|\n\
             00000010  36 37 38 39                                      |6789|\n"
        );
        assert_eq!(dump(b""), "");
        assert_eq!((shown(b"n1"), shown(b"n\x1b"), shown(b"\xff")), ("n1".into(), "0x6e1b".into(), "0xff".into()));
    }
}
