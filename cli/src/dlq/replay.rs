//! `causeway dlq replay`: sends dead letters to the log once more, each as it was received. A message that does not
//! decode by this version is not sent, nor one whose rows are there already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::{Args, ValueHint};
use event_schema::position::Message;
use event_schema::wire::Header;
use ingest::repair::letters::{self, Coordinates, Letters, LettersError, Messages, replay_of};
use lake::Lake;
use serde::Serialize;
use service_kit::run::{Drain, Exit, Fatal};
use tables::arrival::{Arrival, Rejection};
use tables::seen::Seen;

use super::send::{SendError, Sender};
use super::{DlqError, find};
use crate::output;
use crate::output::table::TextTable;
use crate::place::{Place, PlaceArgs};

const EXAMPLES: &str = "\
Examples:
  causeway dlq list --cause unknown_version
  causeway dlq replay --all --dry-run
  causeway dlq replay LOG/0@17";

/// Sends messages that did not decode to the log once more; each lands once
///
/// A message that does not decode by this version either is refused, and the exit code is 1. One that was replayed
/// before, or whose rows have landed from another message, is not sent. Update ingest first: what it cannot decode is a
/// dead letter again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReplayArgs {
    /// Messages, as `causeway dlq list` names them
    #[arg(value_name = "LOG/PARTITION@OFFSET", value_hint = ValueHint::Other, required_unless_present = "all")]
    messages: Vec<Coordinates>,
    /// Every dead letter that was not replayed yet
    #[arg(long, conflicts_with = "messages")]
    all: bool,
    /// Show what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Why dead letters were not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("the dead letters cannot be read")]
    Letters(#[from] LettersError),
    #[error(transparent)]
    Send(#[from] SendError),
}

impl Fatal for ReplayError {
    fn exit(&self) -> Exit {
        match self {
            Self::Letters(_) => Exit::Failed,
            Self::Send(error) => error.exit(),
        }
    }
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    /// It was sent, or would be in a dry run.
    Sent,
    /// Its replay has landed before.
    Replayed { replayed_as: String },
    /// All its rows have landed from another message.
    Landed,
    /// It does not decode by this version either.
    Refused { cause: &'static str, detail: String },
    /// A part of its rows has landed, and the log does not bring the rest together with it.
    Partly,
    /// `bronze.messages` does not hold it.
    Missing,
}

impl Outcome {
    /// Whether the dead letter stays one although it was to be sent.
    fn is_failure(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Partly | Self::Missing)
    }

    fn as_text(&self, is_dry: bool) -> String {
        match self {
            Self::Sent if is_dry => "would be sent".to_owned(),
            Self::Sent => "sent".to_owned(),
            Self::Replayed { replayed_as } => format!("not sent: replayed before, as {replayed_as}"),
            Self::Landed => "not sent: its rows have landed from another message".to_owned(),
            Self::Refused { cause, detail } => format!("REFUSED: it does not decode ({cause}): {detail}"),
            Self::Partly => "REFUSED: a part of its rows has landed from another message".to_owned(),
            Self::Missing => "REFUSED: bronze.messages does not hold it".to_owned(),
        }
    }
}

type Outcomes = BTreeMap<Coordinates, Outcome>;

pub(super) async fn run(args: &ReplayArgs, place: &Place, drain: &Drain) -> Result<Exit, DlqError> {
    // Opened first where something is to be sent: what an interrupted replay left in a spool lands before it is looked
    // at, and no other replay or import into the directory runs meanwhile.
    let mut sender = match args.dry_run {
        true => None,
        false => Some(Sender::open(place, drain).await.map_err(ReplayError::Send)?),
    };
    let lake = place.open().await?;
    let letters = letters::letters(&lake, None).await?;
    let mut outcomes = chosen(args, &letters)?;
    let is_apart = matches!(place, Place::Embedded(_));
    judge(&lake, &mut outcomes, is_apart).await.map_err(ReplayError::Letters)?;
    if let Some(sender) = &mut sender {
        let sent = send(&lake, &outcomes, sender).await;
        // Also after an error: what was appended is made durable, so that it is found by the next replay.
        let finished = sender.finish(drain, sent.is_ok()).await;
        sent?;
        finished.map_err(ReplayError::Send)?;
    }
    print(args, &outcomes)?;
    Ok(if outcomes.values().any(Outcome::is_failure) { Exit::Failed } else { Exit::Done })
}

/// The dead letters that are meant; those that were not replayed yet are to be sent, as far as is known.
fn chosen(args: &ReplayArgs, letters: &Letters) -> Result<Outcomes, DlqError> {
    if args.all {
        // Those that were replayed are left out: the list would grow with every replay.
        let open = letters.iter().filter(|(_, letter)| letter.replay.is_none());
        return Ok(open.map(|(place, _)| (place.clone(), Outcome::Sent)).collect());
    }
    let mut outcomes = Outcomes::new();
    for place in &args.messages {
        // All are looked up before anything is sent: a wrong name sends nothing.
        let replayed = find(letters, place)?.replay.as_ref();
        let replayed = replayed.map(|replay| Outcome::Replayed { replayed_as: replay.to_string() });
        outcomes.insert(place.clone(), replayed.unwrap_or(Outcome::Sent));
    }
    Ok(outcomes)
}

/// The dead letters that are to be sent.
fn to_send(outcomes: &Outcomes) -> BTreeSet<Coordinates> {
    let sent = outcomes.iter().filter(|(_, outcome)| **outcome == Outcome::Sent);
    sent.map(|(place, _)| place.clone()).collect()
}

/// Decodes what is to be sent, and compares its rows with those that have landed. `is_apart`: ingest will not compare
/// the replay with the messages around its dead letter, since it lies in another partition.
async fn judge(lake: &Lake, outcomes: &mut Outcomes, is_apart: bool) -> Result<(), LettersError> {
    let mut messages = Messages::of(lake, to_send(outcomes)).await?;
    let mut headers: BTreeMap<Coordinates, Header> = BTreeMap::new();
    while let Some((place, message)) = messages.next().await? {
        // The same code as ingest's: what it would refuse is not sent.
        match Arrival::decode(message, 0).outcome {
            Ok(decoded) => drop(headers.insert(place, decoded.header)),
            Err(Rejection { cause, detail }) => drop(outcomes.insert(place, Outcome::Refused { cause, detail })),
        }
    }
    outcomes.extend(messages.missing().into_iter().map(|place| (place, Outcome::Missing)));
    let nodes = headers.values().map(|header| Arc::from(header.node.as_str())).collect();
    let mut seen = letters::landed(lake, &nodes).await?;
    // In the order of the log, in which they are sent: of two with the same rows the first is.
    for (place, header) in headers {
        outcomes.insert(place, of_rows(&header, &mut seen, is_apart));
    }
    Ok(())
}

/// What becomes of a message that decodes, by its sequence numbers.
fn of_rows(header: &Header, seen: &mut Seen, is_apart: bool) -> Outcome {
    let mut with_this = seen.clone();
    let fresh = with_this.admit(header);
    let fresh_rows: u32 = fresh.iter().map(|range| range.end - range.start).sum();
    match fresh_rows {
        _ if fresh.is_empty() => Outcome::Landed,
        // Where the log is Kafka, the replay comes to the home of its agent's run, whose log has the other rows.
        rows if is_apart && rows < header.rows => Outcome::Partly,
        _ => {
            // Of what is sent alone: the rows of a message that is left are another one's to land.
            *seen = with_this;
            Outcome::Sent
        }
    }
}

async fn send(lake: &Lake, outcomes: &Outcomes, sender: &mut Sender) -> Result<(), ReplayError> {
    let mut messages = Messages::of(lake, to_send(outcomes)).await?;
    while let Some((place, message)) = messages.next().await? {
        send_one(sender, &replay_of(&place, &message))?;
    }
    Ok(())
}

fn send_one(sender: &mut Sender, replay: &Message) -> Result<(), SendError> {
    // Decoded before, when it was judged; the kind says which table is waited for.
    match Arrival::decode(replay.clone(), 0).outcome {
        Ok(decoded) => sender.send(decoded.header.kind, replay),
        Err(_) => Ok(()),
    }
}

fn print(args: &ReplayArgs, outcomes: &Outcomes) -> Result<(), output::OutputError> {
    if args.json {
        let documents = outcomes.iter().map(|(place, outcome)| {
            let mut document = serde_json::json!(outcome);
            document["message"] = serde_json::json!(place.to_string());
            document
        });
        return output::json(
            &serde_json::json!({ "dry_run": args.dry_run, "messages": documents.collect::<Vec<_>>() }),
        );
    }
    if outcomes.is_empty() {
        return output::text("no dead letter is left to be replayed\n");
    }
    let mut table = TextTable::new(["message", "outcome"]);
    for (place, outcome) in outcomes {
        table.row([place.to_string(), outcome.as_text(args.dry_run)]);
    }
    output::text(&table.render())
}

#[cfg(test)]
mod tests {
    use event_schema::clock::Beacon;
    use event_schema::kind::RecordKind;
    use event_schema::loss::LossCounters;
    use event_schema::stream::Stream;

    use super::*;

    fn header(first_seq: i64, rows: u32) -> Header {
        Header {
            kind: RecordKind::Event,
            cluster: String::new(),
            node: "n".to_owned(),
            boot_id: "b".to_owned(),
            epoch: 0,
            stream: Stream::Data,
            first_seq,
            rows,
            first_boot_ns: 0,
            last_boot_ns: 0,
            beacon: Beacon::WALL,
            losses: LossCounters::default(),
            agent: String::new(),
        }
    }

    #[test]
    fn a_message_is_sent_unless_its_rows_have_landed_and_in_part_only_to_its_own_log() {
        let mut seen = Seen::new();
        seen.admit(&header(0, 10));
        assert_eq!(of_rows(&header(5, 5), &mut seen, true), Outcome::Landed);
        assert_eq!(of_rows(&header(5, 10), &mut seen, true), Outcome::Partly, "and its rows are not taken for sent");
        assert_eq!(of_rows(&header(5, 10), &mut seen.clone(), false), Outcome::Sent);
        assert_eq!(of_rows(&header(10, 5), &mut seen, true), Outcome::Sent);
        assert_eq!(of_rows(&header(10, 5), &mut seen, true), Outcome::Landed, "one of two with the same rows");
        // A message without rows is known by its stream, which has one at most.
        assert_eq!(of_rows(&header(15, 0), &mut seen, true), Outcome::Sent);
        assert_eq!(of_rows(&header(15, 0), &mut seen, true), Outcome::Landed);
    }
}
