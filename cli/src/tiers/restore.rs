//! `causeway restore`: asks for copies of archived files, and follows them until they can be read. The same command
//! given again goes on where it was: what was asked for before is only followed.

use std::time::Duration;

use clap::{Args, ValueHint};
use objects::tiers::Speed;
use objects::{RestoreOrder, Restoring, Store};
use serde::Serialize;
use service_kit::run::{Exit, note};

use super::{DayRange, Found, TiersError, files, open, table_named};
use crate::output;
use crate::output::table::bytes;
use crate::place::{Place, PlaceArgs};

const EXAMPLES: &str = "\
Examples:
  causeway restore silver.events --from 2025-01-01 --to 2025-01-07
  causeway restore silver.events --from 2025-01-01 --to 2025-01-07 --speed standard --no-wait";

/// How often the copies are looked at. They come hours later.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Gets copies of archived files, so that queries can read them for some days
///
/// Follows the copies until all can be read. A command that was ended goes on when it is given again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RestoreArgs {
    /// Table, such as `silver.events`
    #[arg(value_hint = ValueHint::Other)]
    table: String,
    #[command(flatten)]
    days_of_files: DayRange,
    /// How many days the copies stay
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// `bulk` within 48 hours, `standard` within 12 hours at eight times the price
    #[arg(long, value_enum, default_value_t = Pace::Bulk)]
    speed: Pace,
    /// Ask for the copies and end
    #[arg(long)]
    no_wait: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Pace {
    Bulk,
    Standard,
}

impl Pace {
    fn speed(self) -> Speed {
        match self {
            Self::Bulk => Speed::Bulk,
            Self::Standard => Speed::Standard,
        }
    }
}

/// What became of the files.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Files of the days, archived or not.
    files: usize,
    /// Files that could be read already.
    readable: usize,
    /// Copies that this command has asked for.
    started: usize,
    /// Copies that an earlier command had asked for.
    ongoing: usize,
    /// Bytes of the copies that are not there yet.
    bytes: u64,
    /// What the copies that were asked for cost, US dollars.
    cost_usd: f64,
    /// Whether every file can be read now.
    done: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &RestoreArgs, place: &Place) -> Result<Exit, TiersError> {
    let table = table_named(&args.table)?;
    let lake = open(place).await?;
    let found = files(&lake, table, args.days_of_files).await?;
    let mut report = Report { files: found.len(), ..Report::default() };
    let mut pending: Vec<Found> = found.into_iter().filter(|found| !found.storage.is_readable()).collect();
    report.readable = report.files - pending.len();
    let order = RestoreOrder { days: args.days, speed: args.speed.speed() };
    let mut asked_bytes = 0;
    for file in &pending {
        match ask(lake.store(), &file.file.location, order).await? {
            Restoring::Started => {
                report.started += 1;
                asked_bytes += file.file.size_bytes;
            }
            Restoring::Ongoing | Restoring::Restored => report.ongoing += 1,
        }
        report.bytes += file.file.size_bytes;
    }
    let asked = u64::try_from(report.started).unwrap_or(u64::MAX);
    report.cost_usd = lake.store().tiers().prices.restore(order.speed, asked_bytes, asked, args.days);
    note(&started(&report, order));
    while !pending.is_empty() && !args.no_wait {
        pending = still_pending(lake.store(), &args.table, pending).await?;
        if pending.is_empty() {
            break;
        }
        let left: u64 = pending.iter().map(|found| found.file.size_bytes).sum();
        note(&format!(
            "{} of {} copies are there; {} to come",
            report.files - pending.len(),
            report.files,
            bytes(left)
        ));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    report.done = pending.is_empty();
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&ended(&report, &args.table))?;
    }
    Ok(Exit::Done)
}

/// Asks for a copy. Meanwhile another command may have asked for it too.
async fn ask(store: &Store, location: &str, order: RestoreOrder) -> Result<Restoring, TiersError> {
    let asked = store.restore(location, order).await;
    asked.map_err(|source| TiersError::Restore { location: location.to_owned(), source: Box::new(source) })
}

/// The files of which no copy can be read yet.
async fn still_pending(store: &Store, table: &str, files: Vec<Found>) -> Result<Vec<Found>, TiersError> {
    let mut pending = Vec::new();
    for found in files {
        match store.storage(&found.file.location).await {
            Ok(storage) if storage.is_readable() => {}
            Ok(storage) => pending.push(Found { storage, ..found }),
            // S3 makes the copies all the same.
            Err(error) if error.is_transient() => pending.push(found),
            Err(source) => return Err(TiersError::Storage { table: table.to_owned(), source: Box::new(source) }),
        }
    }
    Ok(pending)
}

fn started(report: &Report, order: RestoreOrder) -> String {
    let Report { files, readable, started, ongoing, bytes: left, cost_usd, .. } = report;
    format!(
        "{files} files: {readable} can be read, {started} copies are asked for, {ongoing} were asked for before; {} come \
         within {} hours, for {} days, at about ${cost_usd:.2}",
        bytes(*left),
        order.speed.hours(),
        order.days
    )
}

fn ended(report: &Report, table: &str) -> String {
    if report.done {
        return format!("all {} files of {table} can be read\n", report.files);
    }
    format!(
        "{} copies of files of {table} are on their way: give the command again to follow them\n",
        report.started + report.ongoing
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_was_asked_for_and_what_comes_when() {
        let report =
            Report { files: 5, readable: 2, started: 2, ongoing: 1, bytes: 3 << 30, cost_usd: 0.021, done: false };
        let text = started(&report, RestoreOrder { days: 7, speed: Speed::Bulk });
        for part in
            ["5 files: 2 can be read, 2 copies are asked for, 1 were", "within 48 hours, for 7 days, at about $0.02"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(ended(&report, "silver.events").starts_with("3 copies of files of silver.events are on their way"));
        assert_eq!(ended(&Report { files: 5, done: true, ..report }, "t"), "all 5 files of t can be read\n");
    }
}
