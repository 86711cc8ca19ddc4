//! Former logs of partitions, while another member may still land what it has read of them.
//!
//! A member lands what it has read of a partition also after the partition was revoked, and nothing of that is in the
//! new log. Where the former log ends in each table, and what was seen of it, is known once that member has landed
//! everything or has ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_schema::position::{NextOffset, TopicPartition};

/// Where tables stand on one log, by the table's name.
pub(crate) type Offsets = BTreeMap<String, NextOffset>;
/// Where each table stands on logs, by log.
pub(crate) type Standing = BTreeMap<TopicPartition, Offsets>;

/// Whether all tables stand at the same offset of each log.
fn agree(standing: &Standing) -> bool {
    standing.values().all(|tables| tables.values().all(|next| Some(next) == tables.values().next()))
}

/// The logs that a partition had before this one.
pub(crate) fn former_logs(at: &TopicPartition) -> impl Iterator<Item = TopicPartition> + use<'_> {
    (1..at.generation()).map(|generation| at.of_generation(generation))
}

/// Where the tables stand on the logs before this one.
pub(crate) fn before(log: &TopicPartition, standing: &Standing) -> Standing {
    former_logs(log).filter_map(|at| Some((at.clone(), standing.get(&at)?.clone()))).collect()
}

/// Logs that are opened once the tables have stopped moving on the logs before them.
#[derive(Debug)]
pub(crate) struct Former {
    /// How long the tables must not move. Zero: no other process lands anything of the log.
    limit: Duration,
    waiting: BTreeMap<TopicPartition, Rest>,
    looked: Instant,
}

/// Why a log is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Occasion {
    /// Its partition was assigned. Some table may have seen the log: it was opened by a member that has waited.
    Assigned,
    /// It has replaced the log before it, and is new. `read_since` is when this process began to read the log before:
    /// another member has read nothing of it since.
    Replaced { read_since: Option<Instant> },
}

/// Where the tables stood when they moved last, and since when.
#[derive(Debug)]
struct Rest {
    standing: Standing,
    since: Instant,
}

impl Former {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, waiting: BTreeMap::new(), looked: Instant::now() }
    }

    /// Whether a log may be opened at once, by where the tables stand on the logs before it; otherwise it waits.
    pub(crate) fn admit(&mut self, log: &TopicPartition, standing: Standing, occasion: Occasion, now: Instant) -> bool {
        let (has_landed, read_since) = match occasion {
            Occasion::Assigned => (true, None),
            Occasion::Replaced { read_since } => (false, read_since),
        };
        // In turn: the spool has one reader; the first log of a partition has none before it; a log that has landed was
        // opened by a member that has waited, and nothing is left to land of those before it where all tables agree.
        if self.limit.is_zero() || standing.is_empty() || (agree(&standing) && has_landed) {
            return true;
        }
        // Where the tables disagree, some member may still have to land what others hold: the time begins now.
        let since = read_since.filter(|_| agree(&standing)).unwrap_or(now);
        if now.saturating_duration_since(since) >= self.limit {
            return true;
        }
        self.waiting.insert(log.clone(), Rest { standing, since });
        self.looked = now;
        false
    }

    /// The logs that wait.
    pub(crate) fn logs(&self) -> Vec<TopicPartition> {
        self.waiting.keys().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the tables are looked at again.
    pub(crate) fn due(&self) -> Option<Instant> {
        // A look reads the head of every table: it is not made more often than needed to open the log soon after the
        // limit.
        let between = (self.limit / 16).clamp(Duration::from_millis(50), Duration::from_secs(2));
        (!self.waiting.is_empty()).then(|| self.looked + between)
    }

    /// Takes where the tables stand now; returns the logs that need not wait any more.
    pub(crate) fn look(&mut self, standing: &Standing, now: Instant) -> Vec<TopicPartition> {
        self.looked = now;
        let mut settled = Vec::new();
        for (log, rest) in &mut self.waiting {
            let found = before(log, standing);
            if found != rest.standing {
                // Another member has landed something since: the time begins anew.
                *rest = Rest { standing: found, since: now };
            } else if now.saturating_duration_since(rest.since) >= self.limit {
                settled.push(log.clone());
            }
        }
        self.waiting.retain(|log, _| !settled.contains(log));
        settled
    }

    /// Partitions, by their names in the log, are no longer ours.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.waiting.retain(|log, _| !partitions.contains(&log.without_generation()));
    }

    /// What is waited for.
    pub(crate) fn reason(&self) -> Option<String> {
        let log = self.waiting.keys().next()?;
        let secs = self.limit.as_secs();
        Some(format!(
            "{log} is read once the tables have not moved on the log before it for {secs} s: another member may still land \
             what it has read there"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(40);
    const STEP: Duration = Duration::from_secs(10);
    /// A new log, of whose predecessor this process has read nothing.
    const NEW: Occasion = Occasion::Replaced { read_since: None };

    fn log(generation: u32) -> TopicPartition {
        TopicPartition::new("t", 0).of_generation(generation)
    }

    fn standing(tables: [i64; 2]) -> Standing {
        let [a, b] = tables.map(NextOffset);
        Standing::from([(log(1), Offsets::from([("a".to_owned(), a), ("b".to_owned(), b)]))])
    }

    #[test]
    fn a_log_is_opened_at_once_only_where_no_other_member_can_land_anything_of_the_one_before() {
        let now = Instant::now();
        let (recently, long_ago) = (Some(now), now.checked_sub(LIMIT));
        for (tables, occasion, expected) in [
            ([5, 5], Occasion::Replaced { read_since: long_ago }, true),
            ([5, 5], Occasion::Replaced { read_since: recently }, false),
            ([5, 5], NEW, false),
            ([5, 5], Occasion::Assigned, true),
            ([5, 4], Occasion::Assigned, false),
            ([5, 4], Occasion::Replaced { read_since: long_ago }, false),
        ] {
            let mut former = Former::new(LIMIT);
            let is_opened = former.admit(&log(2), standing(tables), occasion, now);
            assert_eq!(is_opened, expected, "{tables:?} {occasion:?}");
            assert_eq!(former.is_empty(), expected);
        }
        assert!(Former::new(LIMIT).admit(&log(1), Standing::new(), NEW, now), "the first log of a partition");
        assert!(Former::new(Duration::ZERO).admit(&log(2), standing([5, 4]), NEW, now));
    }

    #[test]
    fn the_time_for_which_this_process_has_read_the_log_before_counts() {
        let (mut former, now) = (Former::new(LIMIT), Instant::now());
        assert!(!former.admit(
            &log(2),
            standing([5, 5]),
            Occasion::Replaced { read_since: now.checked_sub(3 * STEP) },
            now
        ));
        assert_eq!(former.look(&standing([5, 5]), now + STEP), [log(2)]);
    }

    #[test]
    fn a_log_waits_until_the_tables_have_stood_still_for_the_limit() {
        let (mut former, began) = (Former::new(LIMIT), Instant::now());
        assert!(!former.admit(&log(2), standing([5, 3]), NEW, began));
        assert!(former.due().is_some() && former.reason().is_some_and(|reason| reason.contains("t@2/0")));
        assert_eq!(former.look(&standing([5, 3]), began + 3 * STEP), []);
        // The former owner lands what was missing.
        assert_eq!(former.look(&standing([5, 5]), began + 4 * STEP), []);
        assert_eq!(former.look(&standing([5, 5]), began + 7 * STEP), []);
        assert_eq!(former.look(&standing([5, 5]), began + 8 * STEP), [log(2)]);
        assert!(former.is_empty() && former.due().is_none() && former.reason().is_none());
    }

    #[test]
    fn a_log_of_a_partition_that_is_revoked_is_waited_for_no_longer() {
        let mut former = Former::new(LIMIT);
        assert!(!former.admit(&log(2), standing([5, 3]), NEW, Instant::now()));
        former.forget(&[TopicPartition::new("t", 1)]);
        assert_eq!(former.logs(), [log(2)]);
        former.forget(&[log(1)]);
        assert!(former.is_empty());
    }
}
