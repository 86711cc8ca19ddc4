//! `causeway tables --tiers`: in which storage class of S3 the files of each table lie, what they cost a month, and
//! what a query of all of them would cost. `causeway restore`: copies of archived files.

mod restore;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate};
use clap::Args;
use futures::future::try_join_all;
use lake::{HeadError, Lake, ReadError, ScanFile};
use objects::tiers::{Prices, Speed, StorageClass};
use objects::{ArchiveError, Storage};
use serde::Serialize;
use serde_json::json;
use service_kit::run::{Exit, Fatal};
use tables::def::TableName;
use tables::registry::{self, Table};

use crate::output::table::{TextTable, bytes};
use crate::output::{self, OutputError};
use crate::place::{Place, PlaceError};

pub(crate) use restore::{RestoreArgs, run as restore};

/// Files that are asked for at a time.
const AT_ONCE: usize = 64;
/// Requests of a query for each file: the footer, and one for each of two groups of columns.
const READS_PER_FILE: u64 = 3;
/// How long copies of archived files are counted to stay.
const COPY_DAYS: u32 = 7;

/// Why it cannot be said where files lie, or no copies were asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TiersError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("there is no table `{name}`: `causeway tables` lists them")]
    UnknownTable { name: String },
    #[error("the warehouse {warehouse} is a directory: only S3 has storage classes")]
    Directory { warehouse: String },
    #[error("{table} cannot be read")]
    Read { table: String, source: Box<ReadError> },
    #[error("it is not known where the files of {table} lie")]
    Storage { table: String, source: Box<ArchiveError> },
    #[error("no copy of {location} was asked for")]
    Restore { location: String, source: Box<ArchiveError> },
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for TiersError {
    fn exit(&self) -> Exit {
        match self {
            Self::Place(error) => error.exit(),
            Self::UnknownTable { .. } | Self::Directory { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Days of files, both ends included.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct DayRange {
    /// First day of the files, such as 2026-01-01 [default: the oldest]
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// Last day of the files [default: the newest]
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
}

impl DayRange {
    fn holds(&self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

/// A data file, and where it lies.
#[derive(Debug)]
struct Found {
    file: Arc<ScanFile>,
    day: Option<NaiveDate>,
    storage: Storage,
}

/// The day of a partition, by its number in Iceberg.
fn day_of(number: i32) -> Option<NaiveDate> {
    let epoch = DateTime::UNIX_EPOCH.date_naive();
    let days = Days::new(u64::from(number.unsigned_abs()));
    if number < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) }
}

/// Opens the lake, whose warehouse must be in S3.
async fn open(place: &Place) -> Result<Lake, TiersError> {
    let lake = place.open().await?;
    if !lake.store().supports_tags() {
        return Err(TiersError::Directory { warehouse: lake.store().root().to_owned() });
    }
    Ok(lake)
}

fn table_named(name: &str) -> Result<&'static Table, TiersError> {
    let table = name.split_once('.').and_then(|(namespace, name)| registry::find(namespace, name));
    table.ok_or_else(|| TiersError::UnknownTable { name: name.to_owned() })
}

fn unread(table: TableName, source: ReadError) -> TiersError {
    TiersError::Read { table: table.to_string(), source: Box::new(source) }
}

/// The files of the current snapshot of a table, and where each lies. None of a table that was never made.
async fn files(lake: &Lake, table: &Table, days: DayRange) -> Result<Vec<Found>, TiersError> {
    let name = table.def.name;
    let snapshot = match lake.table(name.namespace, name.name).snapshot().await {
        Ok(snapshot) => snapshot,
        Err(ReadError::Head(HeadError::NotFound(_))) => return Ok(Vec::new()),
        Err(source) => return Err(unread(name, source)),
    };
    let mut wanted = snapshot.plan(&[]).await.map_err(|source| unread(name, source))?;
    // A file without a day is in every range.
    wanted.retain(|file| file.day.and_then(day_of).is_none_or(|day| days.holds(day)));
    let mut found = Vec::with_capacity(wanted.len());
    for some in wanted.chunks(AT_ONCE) {
        // A listing has the classes too, and `object_store` drops them.
        let asked = try_join_all(some.iter().map(|file| lake.store().storage(&file.location))).await;
        let asked =
            asked.map_err(|source| TiersError::Storage { table: name.to_string(), source: Box::new(source) })?;
        for (file, storage) in some.iter().zip(asked) {
            found.push(Found { file: Arc::clone(file), day: file.day.and_then(day_of), storage });
        }
    }
    Ok(found)
}

/// The files of one table in one class.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Tier {
    files: u64,
    bytes: u64,
    /// Files of an archive class of which there is a copy that can be read.
    copies: u64,
    /// The days of the oldest and the newest of them, `2026-01-01`.
    oldest: Option<String>,
    newest: Option<String>,
    /// What the files cost for a month, US dollars; absent in a class without a price.
    month_usd: Option<f64>,
    /// What a query of all of them costs; absent where they must be restored first.
    query_usd: Option<f64>,
    /// What copies of all of them cost, within 48 hours and for seven days; absent where they can be read.
    restore_usd: Option<f64>,
}

impl Tier {
    fn add(&mut self, class: StorageClass, found: &Found, prices: &Prices) {
        let bytes = found.file.size_bytes;
        let month = prices.month(class, bytes);
        self.month_usd = if self.files == 0 { month } else { self.month_usd.zip(month).map(|(a, b)| a + b) };
        self.files += 1;
        self.bytes += bytes;
        self.copies += u64::from(class.is_archive() && found.storage.is_readable());
        // Days as ISO 8601 writes them are in the order of the calendar.
        let day = found.day.map(|day| day.to_string());
        self.oldest = self.oldest.take().into_iter().chain(day.clone()).min();
        self.newest = self.newest.take().into_iter().chain(day).max();
        self.query_usd = prices.query(class, self.bytes, self.files * READS_PER_FILE);
        let is_priced = class == StorageClass::DeepArchive;
        self.restore_usd = is_priced.then(|| prices.restore(Speed::Bulk, self.bytes, self.files, COPY_DAYS));
    }
}

type Tiers = BTreeMap<StorageClass, Tier>;

fn by_class(found: &[Found], prices: &Prices) -> Tiers {
    let mut tiers = Tiers::new();
    for found in found {
        tiers.entry(found.storage.class).or_default().add(found.storage.class, found, prices);
    }
    tiers
}

/// Runs `causeway tables --tiers`, of one table or of all.
pub(crate) async fn list(name: Option<&str>, as_json: bool, place: &Place) -> Result<Exit, TiersError> {
    let named = name.map(table_named).transpose()?;
    let lake = open(place).await?;
    let mut listed = Vec::new();
    for table in registry::all().iter().filter(|table| named.is_none_or(|named| named.def.name == table.def.name)) {
        let found = files(&lake, table, DayRange::default()).await?;
        listed.push((table.def.name.to_string(), table.def.tiers, by_class(&found, &lake.store().tiers().prices)));
    }
    if as_json {
        let tables = listed.iter().map(|(table, tiers, classes)| {
            let classes = classes.iter().map(|(class, tier)| json!({ "class": class, "tier": tier }));
            json!({ "table": table, "tiers": tiers, "classes": classes.collect::<Vec<_>>() })
        });
        output::json(&json!({ "tables": tables.collect::<Vec<_>>() }))?;
    } else {
        output::text(&as_text(&listed))?;
    }
    Ok(Exit::Done)
}

fn as_text(listed: &[(String, bool, Tiers)]) -> String {
    let heading = ["table", "class", "files", "size", "oldest", "newest", "a month", "a query", "copies"];
    let mut text = TextTable::new(heading).numbers([2, 3, 6, 7, 8]);
    let mut month = 0.0;
    for (table, _, tiers) in listed {
        for (class, tier) in tiers {
            month += tier.month_usd.unwrap_or_default();
            text.row([
                table.clone(),
                class.name().to_owned(),
                tier.files.to_string(),
                bytes(tier.bytes),
                tier.oldest.clone().unwrap_or_default(),
                tier.newest.clone().unwrap_or_default(),
                dollars(tier.month_usd),
                dollars(tier.query_usd),
                dollars(tier.restore_usd),
            ]);
        }
    }
    text.render()
        + &format!(
            "\n{} a month. Prices: `store.tiers.prices`; a query reads every file whole.\n",
            dollars(Some(month))
        )
}

/// An amount of money; small ones are not shown as nothing.
fn dollars(amount: Option<f64>) -> String {
    match amount {
        None => String::new(),
        Some(amount) if amount > 0.0 && amount < 0.01 => "<$0.01".to_owned(),
        Some(amount) => format!("${amount:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_partitions_are_those_of_the_calendar() {
        let days = [0, 20_454, -1].map(|number| day_of(number).unwrap().to_string());
        assert_eq!(days, ["1970-01-01", "2026-01-01", "1969-12-31"]);
        let range = DayRange { from: day_of(1), to: day_of(2) };
        assert_eq!([0, 1, 2, 3].map(|number| range.holds(day_of(number).unwrap())), [false, true, true, false]);
        assert!(DayRange::default().holds(day_of(0).unwrap()));
    }

    #[test]
    fn what_lies_where_is_shown_with_its_cost() {
        let tier = Tier {
            files: 2,
            bytes: 1 << 30,
            oldest: Some("1970-01-01".to_owned()),
            newest: Some("1970-01-02".to_owned()),
            month_usd: Some(0.001),
            restore_usd: Some(1.5),
            ..Tier::default()
        };
        let listed = [("silver.events".to_owned(), true, Tiers::from([(StorageClass::DeepArchive, tier)]))];
        let text = as_text(&listed);
        let row = text.lines().nth(2).unwrap();
        for part in ["silver.events", "Glacier Deep Archive", "1970-01-01", "1970-01-02", "<$0.01", "$1.50"] {
            assert!(row.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("a query reads every file whole.\n"), "{text}");
        assert_eq!(dollars(None), "");
    }
}
