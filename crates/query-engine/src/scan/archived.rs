//! Files that S3 has archived, found before a query runs. Without this a query would fail at the first of them, after
//! it has read others, and would name that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use futures::future::join_all;
use objects::tiers::{Speed, Tiers};
use objects::{Copied, Store, named_unix_ms};
use tables::registry;

use crate::error::QueryError;

/// Files that are asked for at a time.
const AT_ONCE: usize = 64;
/// Files that an error names.
const NAMED: usize = 5;
/// How long copies stay by default (`causeway restore --days`).
const DAYS: u32 = 7;
const DAY_MS: i64 = 86_400_000;

/// A data file of a table that tiers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    /// `namespace.name`.
    table: String,
    /// The day of its partition, `2026-01-01`.
    day: String,
    /// Below the warehouse.
    path: String,
    bytes: u64,
    /// A copy is being made.
    is_on_its_way: bool,
}

impl File {
    /// A file by its path; `None` where its table does not tier.
    fn of(path: &str, bytes: u64) -> Option<Self> {
        // The lake lays tables out as `namespace/name/data/<column>_day=2026-01-01/<id>.parquet`.
        let mut parts = path.split('/');
        let namespace = parts.next()?;
        let name = parts.next()?;
        let day = parts.find_map(|part| part.split_once("_day=")).map(|(_, day)| day.to_owned())?;
        registry::find(namespace, name).filter(|table| table.def.tiers)?;
        Some(Self { table: format!("{namespace}.{name}"), day, path: path.to_owned(), bytes, is_on_its_way: false })
    }
}

/// Refuses a plan that reads archived files without a copy. Only files that are old enough for the rule are asked for.
///
/// # Errors
/// [`QueryError::Archived`], as an external error.
pub(crate) async fn check(plan: &Arc<dyn ExecutionPlan>, store: &Store, now_unix_ms: i64) -> Result<()> {
    // A directory archives nothing.
    if !store.supports_tags() {
        return Ok(());
    }
    let mut archived = Vec::new();
    for some in old(plan, store.tiers(), now_unix_ms)?.chunks(AT_ONCE) {
        let locations: Vec<_> = some.iter().map(|file| format!("{}/{}", store.root(), file.path)).collect();
        let found = join_all(locations.iter().map(|location| store.storage(location))).await;
        for (file, found) in some.iter().zip(found) {
            match found {
                Ok(storage) if storage.is_readable() => {}
                Ok(storage) => {
                    let is_on_its_way = storage.copied == Some(Copied::Ongoing);
                    archived.push(File { is_on_its_way, ..file.clone() });
                }
                // What is wrong with the store is reported by the read.
                Err(error) => tracing::debug!(path = %file.path, %error, "the storage class is not known"),
            }
        }
    }
    if archived.is_empty() {
        return Ok(());
    }
    let message = message(archived, store.tiers());
    Err(DataFusionError::External(Box::new(QueryError::Archived { message })))
}

/// The files of a plan that may be archived, each once.
fn old(plan: &Arc<dyn ExecutionPlan>, tiers: &Tiers, now_unix_ms: i64) -> Result<Vec<File>> {
    let mut found = BTreeMap::new();
    plan.apply(|node| {
        let scan: Option<&FileScanConfig> =
            node.downcast_ref::<DataSourceExec>().and_then(|scan| scan.data_source().downcast_ref());
        let groups = scan.into_iter().flat_map(|scan| &scan.file_groups);
        for file in groups.flat_map(|group| group.files()) {
            let path: &str = file.object_meta.location.as_ref();
            // The name holds when the file was written; the day of its rows may lie long before.
            let age_days = named_unix_ms(path).map(|written| now_unix_ms.saturating_sub(written).div_euclid(DAY_MS));
            if age_days.is_some_and(|age_days| tiers.may_be_archived(age_days)) {
                found.extend(File::of(path, file.object_meta.size).map(|file| (file.path.clone(), file)));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found.into_values().collect())
}

/// What is archived, what copies cost, and how to get them.
fn message(mut files: Vec<File>, tiers: &Tiers) -> String {
    files.sort_by(|a, b| (&a.table, &a.day, &a.path).cmp(&(&b.table, &b.day, &b.path)));
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let count = files.len();
    let objects = u64::try_from(count).unwrap_or(u64::MAX);
    let mut named: Vec<_> =
        files.iter().take(NAMED).map(|file| format!("{} {} ({})", file.table, file.day, size(file.bytes))).collect();
    if count > NAMED {
        named.push(format!("and {} more", count - NAMED));
    }
    let price = tiers.prices.restore(Speed::Bulk, bytes, objects, DAYS);
    let on_their_way = match files.iter().filter(|file| file.is_on_its_way).count() {
        0 => String::new(),
        number => format!("; copies of {number} are being made"),
    };
    format!(
        "{count} of the files lie in Glacier Deep Archive, {} together: {}{on_their_way}. Copies for {DAYS} days cost about \
         ${price:.2} and come within {} hours: {}",
        size(bytes),
        named.join(", "),
        Speed::Bulk.hours(),
        commands(&files)
    )
}

/// One command for each table.
fn commands(files: &[File]) -> String {
    let mut days: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files {
        days.entry(file.table.as_str()).or_default().insert(file.day.as_str());
    }
    let commands = days.iter().map(|(table, days)| {
        let first = days.first().copied().unwrap_or_default();
        let last = days.last().copied().unwrap_or_default();
        format!("`causeway restore {table} --from {first} --to {last}`")
    });
    commands.collect::<Vec<_>>().join(", ")
}

/// What a read says that meets an archived file: it was archived, or its copy has ended, after the plan was made.
pub(crate) fn met(path: &str) -> QueryError {
    let how = File::of(path, 0).map_or_else(|| "restore the object".to_owned(), |file| commands(&[file]));
    QueryError::Archived { message: format!("data file `{path}` lies in an archive class and cannot be read: {how}") }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_000.0 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(day: &str, bytes: u64) -> File {
        File::of(&format!("silver/events/data/ts_day={day}/x.parquet"), bytes).unwrap()
    }

    #[test]
    fn what_is_archived_is_named_with_days_sizes_price_and_command() {
        let mut files: Vec<_> = (1..=7).map(|day| file(&format!("2026-01-0{day}"), 1 << 30)).collect();
        files.rotate_left(3);
        files[0].is_on_its_way = true;
        let text = message(files, &Tiers::default());
        assert_eq!(
            text,
            "7 of the files lie in Glacier Deep Archive, 7.5 GB together: silver.events 2026-01-01 (1.1 GB), silver.events \
             2026-01-02 (1.1 GB), silver.events 2026-01-03 (1.1 GB), silver.events 2026-01-04 (1.1 GB), silver.events 2026-01-05 \
             (1.1 GB), and 2 more; copies of 1 are being made. Copies for 7 days cost about $0.06 and come within 48 hours: \
             `causeway restore silver.events --from 2026-01-01 --to 2026-01-07`"
        );
    }

    #[test]
    fn a_table_that_does_not_tier_has_no_archived_files() {
        assert_eq!(File::of("ops/ledger/data/ingested_at_day=2026-01-01/x.parquet", 1), None);
        assert_eq!(File::of("silver/stacks/data/ts_day=2026-01-01/x.parquet", 1), None);
        let bronze = File::of("bronze/messages/data/ingested_at_day=2026-01-01/x.parquet", 1).unwrap();
        assert_eq!((bronze.table.as_str(), bronze.day.as_str()), ("bronze.messages", "2026-01-01"));
        assert!(met("other/x.parquet").to_string().ends_with("restore the object"));
    }
}
