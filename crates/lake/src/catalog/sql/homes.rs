//! The partition that the messages of each run of an agent belong to. A table of its own in the catalog's database,
//! because a home must be the same for all writers before the first of them lands a row: the primary key decides which
//! writer was first.

use std::collections::HashMap;
use std::sync::Arc;

use event_schema::identity::LaneId;
use event_schema::position::TopicPartition;
use event_schema::stream::Lane;
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row};

use super::Database;
use crate::catalog::CatalogError;

const DDL: &str = "CREATE TABLE IF NOT EXISTS causeway_homes (
    node TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    lane BIGINT NOT NULL,
    log_name TEXT NOT NULL,
    log_partition BIGINT NOT NULL,
    moved BIGINT NOT NULL,
    PRIMARY KEY (node, boot_id, epoch, lane))";

/// Rows in one statement, of six values each. SQLite takes 32,766 values in one, PostgreSQL 65,535.
const ROWS_AT_ONCE: usize = 500;

/// Where the messages of a lane belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The partition that the messages of the lane land from.
    pub at: TopicPartition,
    /// The lane had another home before: what landed there must be read before its next message is judged.
    pub is_moved: bool,
}

/// The homes of all lanes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Homes {
    database: Arc<Database>,
}

impl Homes {
    pub(crate) async fn open(database: Arc<Database>) -> Result<Self, CatalogError> {
        let mut connection = database.acquire().await?;
        // Two processes that start together may both find the table absent: PostgreSQL does not serialise
        // `IF NOT EXISTS`. The error of the slower one means that the table exists now.
        if connection.execute(DDL).await.is_err() {
            let made = connection.execute(DDL).await;
            made.map_err(database.query_error("make the table causeway_homes"))?;
        }
        drop(connection);
        Ok(Self { database })
    }

    /// Gives each lane that has no home yet the proposed one, and returns the home of each. Of two writers that propose
    /// different homes at the same time, both get the one that was stored first.
    ///
    /// # Errors
    /// The catalog did not answer. The same call may be made again.
    pub async fn claim(
        &self,
        proposed: &HashMap<LaneId, TopicPartition>,
    ) -> Result<HashMap<LaneId, Home>, CatalogError> {
        // All writers store rows in one order: of two transactions that wait for rows of each other (a deadlock)
        // PostgreSQL ends one.
        let mut proposed: Vec<_> = proposed.iter().collect();
        proposed.sort_unstable_by_key(|(lane, _)| *lane);
        let mut homes = HashMap::with_capacity(proposed.len());
        for chunk in proposed.chunks(ROWS_AT_ONCE) {
            // Most lanes are known after a restart: what is read first need not be written.
            let mut found = self.read(chunk.iter().map(|(lane, _)| *lane)).await?;
            let absent: Vec<_> = chunk.iter().filter(|(lane, _)| !found.contains_key(*lane)).copied().collect();
            if !absent.is_empty() {
                self.insert(&absent).await?;
                // Read again: `ON CONFLICT DO NOTHING` does not return the row of a writer that was faster.
                found.extend(self.read(absent.iter().map(|(lane, _)| *lane)).await?);
            }
            homes.extend(found);
        }
        Ok(homes)
    }

    /// Moves a lane from a home that no longer exists, unless it was moved meanwhile; returns where it is now.
    ///
    /// # Errors
    /// The catalog did not answer. The same call may be made again.
    pub async fn rehome(
        &self,
        lane: &LaneId,
        from: &TopicPartition,
        to: &TopicPartition,
    ) -> Result<Option<Home>, CatalogError> {
        // Compare-and-swap on the old home: of two members that move a lane at the same time the first decides.
        let sql = "UPDATE causeway_homes SET log_name = $1, log_partition = $2, moved = 1
                   WHERE node = $3 AND boot_id = $4 AND epoch = $5 AND lane = $6 AND log_name = $7 AND log_partition = $8";
        let query = sqlx::query(sql).bind(to.topic.to_string()).bind(i64::from(to.partition));
        let query = bind_lane(query, lane).bind(from.topic.to_string()).bind(i64::from(from.partition));
        let database = &self.database;
        let mut connection = database.acquire().await?;
        database.in_time("move a home", query.execute(&mut *connection)).await?;
        // Returned to the pool before `read` takes one: tasks that hold one connection and wait for another could block
        // all.
        drop(connection);
        Ok(self.read(std::iter::once(lane)).await?.remove(lane))
    }

    async fn insert(&self, rows: &[(&LaneId, &TopicPartition)]) -> Result<(), CatalogError> {
        let values: Vec<String> = (0..rows.len()).map(|row| format!("({}, 0)", placeholders(row * 6, 6))).collect();
        let sql = format!(
            "INSERT INTO causeway_homes (node, boot_id, epoch, lane, log_name, log_partition, moved) VALUES {} \
             ON CONFLICT DO NOTHING",
            values.join(", ")
        );
        let mut query = sqlx::query(&sql);
        for (lane, at) in rows {
            query = bind_lane(query, lane).bind(at.topic.to_string()).bind(i64::from(at.partition));
        }
        let database = &self.database;
        let mut connection = database.acquire().await?;
        database.in_time("store homes", query.execute(&mut *connection)).await?;
        Ok(())
    }

    async fn read<'a>(
        &self,
        lanes: impl ExactSizeIterator<Item = &'a LaneId> + Clone,
    ) -> Result<HashMap<LaneId, Home>, CatalogError> {
        // Row values in `IN (VALUES …)`: PostgreSQL and SQLite from 3.15 on understand them.
        let keys: Vec<String> = (0..lanes.len()).map(|row| format!("({})", placeholders(row * 4, 4))).collect();
        let sql = format!(
            "SELECT node, boot_id, epoch, lane, log_name, log_partition, moved FROM causeway_homes \
             WHERE (node, boot_id, epoch, lane) IN (VALUES {})",
            keys.join(", ")
        );
        let mut query = sqlx::query(&sql);
        for lane in lanes {
            query = bind_lane(query, lane);
        }
        let database = &self.database;
        let operation = "look up homes";
        let mut connection = database.acquire().await?;
        let rows = database.in_time(operation, query.fetch_all(&mut *connection)).await?;
        rows.iter().map(home_of).collect::<Result<_, _>>().map_err(database.query_error(operation))
    }
}

/// `$n, …` for `count` values behind `before` others.
fn placeholders(before: usize, count: usize) -> String {
    let numbers: Vec<String> = (before + 1..=before + count).map(|number| format!("${number}")).collect();
    numbers.join(", ")
}

type Query<'q> = sqlx::query::Query<'q, Any, <Any as sqlx::Database>::Arguments<'q>>;

fn bind_lane<'q>(query: Query<'q>, lane: &LaneId) -> Query<'q> {
    query.bind(escape(&lane.node)).bind(escape(&lane.boot_id)).bind(lane.epoch).bind(lane.lane.number())
}

fn home_of(row: &AnyRow) -> Result<(LaneId, Home), sqlx::Error> {
    // A row that cannot be read is an error and not an absent home: with a second home, rows would land twice.
    let number: i64 = row.try_get(3)?;
    let lane = Lane::from_number(number).ok_or_else(|| sqlx::Error::Decode(format!("no lane {number}").into()))?;
    let partition: i64 = row.try_get(5)?;
    let partition = i32::try_from(partition).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let [node, boot_id] =
        [row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?].map(|text| unescape(&text).into());
    let id = LaneId { node, boot_id, epoch: row.try_get(2)?, lane };
    let moved: i64 = row.try_get(6)?;
    Ok((id, Home { at: TopicPartition::new(row.try_get::<String, _>(4)?, partition), is_moved: moved != 0 }))
}

/// A name may hold any character, and PostgreSQL stores no NUL in text.
fn escape(name: &str) -> String {
    // Backslashes first: those that the second step adds must not be doubled.
    name.replace('\\', "\\\\").replace('\0', "\\0")
}

fn unescape(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            // The guard consumes the escaped character in both cases: it is `0` or a second backslash.
            '\\' if rest.next() == Some('0') => name.push('\0'),
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_any_character_read_back() {
        for name in ["gpu-1", "", "a\\b", "a\0b", "\\0", "\\\\0", "ä\n\\"] {
            assert_eq!(unescape(&escape(name)), name);
            assert!(!escape(name).contains('\0'));
        }
    }

    #[test]
    fn values_are_numbered_through() {
        assert_eq!(placeholders(0, 2), "$1, $2");
        assert_eq!(placeholders(4, 2), "$5, $6");
    }
}
