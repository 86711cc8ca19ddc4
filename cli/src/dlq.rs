//! `causeway dlq`: lists dead letters, shows one, and sends them to the log once more after a fix (ADR 49). What is read
//! of the lake is in `ingest::repair::letters`; here are the arguments, what is sent, and what is printed.

mod replay;
mod send;
mod show;

use answers::time::{TimeError, parse_time};
use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use ingest::repair::letters::{self, Coordinates, Letter, Letters, LettersError};
use serde_json::json;
use service_kit::clock::{Clock, SystemClock};
use service_kit::config::ConfigSource;
use service_kit::run::{Drain, Exit, Fatal};

use crate::output::table::{TextTable, bytes};
use crate::output::{self, OutputError};
use crate::place::{Place, PlaceArgs, PlaceError};
use replay::{ReplayArgs, ReplayError};
use show::ShowArgs;

/// Shows messages that did not decode, and sends them once more after a fix
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    List(ListArgs),
    Show(ShowArgs),
    Replay(ReplayArgs),
}

/// Lists the messages that did not decode, the newest last
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those that ingest read since then: a time, or a duration back from now (`90s`, `5m`, `12h`, `30d`)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those with this cause, such as `unknown_version`
    #[arg(long, value_name = "WORD")]
    cause: Option<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Why dead letters were not shown or sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DlqError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Time(#[from] TimeError),
    #[error("the dead letters cannot be read")]
    Letters(#[from] LettersError),
    #[error("{0} is no dead letter: `causeway dlq list` names them")]
    NoLetter(Coordinates),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for DlqError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::Replay(error) => error.exit(),
            Self::Time(_) => Exit::Usage,
            Self::Letters(_) | Self::NoLetter(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(command: DlqCommand, config: &ConfigSource, drain: &Drain) -> Result<Exit, DlqError> {
    match command {
        DlqCommand::List(args) => list(&args, &Place::of(&args.place, config)?).await,
        DlqCommand::Show(args) => show::run(&args, &Place::of(&args.place, config)?).await,
        DlqCommand::Replay(args) => replay::run(&args, &Place::of(&args.place, config)?, drain).await,
    }
}

async fn list(args: &ListArgs, place: &Place) -> Result<Exit, DlqError> {
    let since_ms = args.since.as_deref().map(|since| parse_time(since, SystemClock.now_ms())).transpose()?;
    let lake = place.open().await?;
    let mut letters = letters::letters(&lake, since_ms.map(|ms| ms.saturating_mul(1_000))).await?;
    // Here and not in the scan: `ops.dlq` is small.
    letters.retain(|_, letter| args.cause.as_ref().is_none_or(|cause| *cause == letter.cause));
    let mut by_time: Vec<(&Coordinates, &Letter)> = letters.iter().collect();
    // Stable: those of one time stay in the order of their log.
    by_time.sort_by_key(|(_, letter)| letter.arrived_us);
    if args.json {
        let documents: Vec<_> = by_time.iter().map(|(place, letter)| document(place, letter)).collect();
        output::json(&documents)?;
    } else {
        output::text(&as_text(&by_time))?;
    }
    Ok(Exit::Done)
}

fn document(place: &Coordinates, letter: &Letter) -> serde_json::Value {
    json!({
        "message": place.to_string(),
        "log": place.at.topic.as_ref(),
        "partition": place.at.partition,
        "offset": place.offset,
        "cause": letter.cause,
        "detail": letter.detail,
        "payload_bytes": letter.payload_bytes,
        "log_time": rfc3339(letter.log_us),
        "ingested_at": rfc3339(letter.arrived_us),
        "replayed_as": letter.replay.as_ref().map(ToString::to_string),
    })
}

fn as_text(letters: &[(&Coordinates, &Letter)]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = TextTable::new(["message", "cause", "size", "ingested", "replayed as"]).numbers([2]);
    for (place, letter) in letters {
        table.row([
            place.to_string(),
            letter.cause.clone(),
            bytes(letter.payload_bytes),
            rfc3339(letter.arrived_us),
            letter.replay.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    table.render()
}

/// A time in unix microseconds; one that the calendar does not hold as a number.
fn rfc3339(us: i64) -> String {
    let time = DateTime::from_timestamp_micros(us);
    time.map_or_else(|| us.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The dead letters of a lake by place, and one of them.
fn find<'a>(letters: &'a Letters, place: &Coordinates) -> Result<&'a Letter, DlqError> {
    letters.get(place).ok_or_else(|| DlqError::NoLetter(place.clone()))
}
