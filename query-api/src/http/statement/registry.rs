//! The queries that clients poll. Their number is limited, for each client and for all: a client that posts statements,
//! whether it follows them or not, must not keep the others out. The order of eviction: a query that ended, one that
//! was never followed and so never began, one that was not polled for a while, one of the address that has most.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::running::Running;
use query_engine::Asker;

/// A query that was not polled for so long is cancelled.
const ABANDONED: Duration = Duration::from_secs(300);
/// As [`ABANDONED`], where there are too many queries.
const IDLE: Duration = Duration::from_secs(30);
/// How long the last page of a query can be asked for again.
const ENDED: Duration = Duration::from_secs(30);
/// Most queries kept at once.
const MAX_STATEMENTS: usize = 1_000;
/// Most queries kept of one client.
const MAX_OF_CLIENT: usize = 250;
/// Interval between two searches for queries that were not polled.
const PURGE_EVERY: Duration = Duration::from_secs(10);

/// The order in which queries make room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    Ended,
    NeverFollowed,
    Idle,
}

impl Room {
    /// `None` for a query that a client is waiting for.
    fn of(running: &Running) -> Option<Self> {
        if running.has_ended() {
            Some(Self::Ended)
        } else if !running.is_followed() {
            Some(Self::NeverFollowed)
        } else {
            (running.idle_since().elapsed() >= IDLE).then_some(Self::Idle)
        }
    }
}

type Known = HashMap<String, Arc<Running>>;

/// The queries of all clients.
#[derive(Debug, Default)]
pub(in super::super) struct Statements {
    running: Mutex<Known>,
    count: AtomicU64,
}

impl Statements {
    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a query; `None` when clients wait for too many others.
    pub(super) fn add(&self, client: &Asker, make: impl FnOnce(String) -> Running) -> Option<Arc<Running>> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // The counter begins anew with the process: the random part keeps ids of one second apart.
        let random = Uuid::new_v4().simple().to_string();
        let id = format!("{}_{:05}_{}", chrono::Utc::now().format("%Y%m%d_%H%M%S"), count % 100_000, &random[..5]);
        let running = Arc::new(make(id.clone()));
        self.with(|known| {
            // Under one lock with the insertion: two posts at the limit must not both take the last place.
            make_room(known, client)?;
            known.insert(id, Arc::clone(&running));
            Some(running)
        })
    }

    pub(super) fn find(&self, id: &str, slug: &str) -> Option<Arc<Running>> {
        self.with(|known| known.get(id).filter(|running| running.slug() == slug).cloned())
    }

    /// The state of a query for its page; `None` when it is not kept.
    pub(super) fn state(&self, id: &str) -> Option<&'static str> {
        self.with(|known| {
            known.get(id).map(|running| match (running.is_followed(), running.has_ended()) {
                (_, true) => "has ended",
                (true, false) => "is running",
                (false, false) => "waits for its client to follow it",
            })
        })
    }

    pub(super) fn remove(&self, id: &str) {
        // Dropped with its last reference, which aborts its work: a request for a page that is under way holds one.
        self.with(|known| known.remove(id));
    }

    fn purge(&self) {
        self.with(|known| known.retain(|_, running| running.idle_since().elapsed() < kept_for(running)));
    }

    /// Removes what is not polled any more; runs until it is dropped.
    pub(in super::super) async fn keep_clean(&self) {
        let mut ticks = tokio::time::interval(PURGE_EVERY);
        loop {
            ticks.tick().await;
            self.purge();
        }
    }
}

/// How long a query is kept that its client does not poll.
fn kept_for(running: &Running) -> Duration {
    if running.has_ended() { ENDED } else { ABANDONED }
}

/// Makes room for one more query of a client: one of its own goes when it has its share, else one of the client that
/// has most. `None` when clients wait for all of them and no address has more than this client's.
fn make_room(known: &mut Known, client: &Asker) -> Option<()> {
    let mut counts: HashMap<Asker, usize> = HashMap::new();
    for running in known.values() {
        *counts.entry(running.client().clone()).or_default() += 1;
    }
    let leaving = if counts.get(client).is_some_and(|count| *count >= MAX_OF_CLIENT) {
        // A client with its full share displaces queries of its own alone.
        first_to_leave(known, |running| running.client() == client)?
    } else if known.len() >= MAX_STATEMENTS {
        let most = counts.values().copied().max().unwrap_or(0);
        let leaving = first_to_leave(known, |running| counts.get(running.client()) == Some(&most));
        leaving.or_else(|| first_to_leave(known, |_| true)).or_else(|| of_crowded_address(known, client.address))?
    } else {
        return Some(());
    };
    known.remove(&leaving);
    Some(())
}

/// The query polled longest ago of the address that has most, even one that a client waits for: names can be made up.
/// `None` when no address has more than the one that asks.
fn of_crowded_address(known: &Known, asking: IpAddr) -> Option<String> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for running in known.values() {
        *counts.entry(running.client().address).or_default() += 1;
    }
    let own = counts.get(&asking).copied().unwrap_or(0);
    // More by two at least: with a difference of one, two addresses would evict each other's queries in turn.
    let (crowded, _) = counts.into_iter().filter(|(_, count)| *count > own + 1).max_by_key(|(_, count)| *count)?;
    let candidates = known.iter().filter(|(_, running)| running.client().address == crowded);
    candidates.min_by_key(|(_, running)| running.idle_since()).map(|(id, _)| id.clone())
}

/// The first to evict among some: by kind, then the one polled longest ago.
fn first_to_leave(known: &Known, is_candidate: impl Fn(&Running) -> bool) -> Option<String> {
    // `Room::of` is `None` for a query that a client waits for: it is never taken here.
    let candidates = known.iter().filter(|(_, running)| is_candidate(running));
    let leaving = candidates.filter_map(|(id, running)| Some((Room::of(running)?, running.idle_since(), id)));
    leaving.min().map(|(_, _, id)| id.clone())
}

#[cfg(test)]
mod tests {
    use super::super::page::Posted;
    use super::super::session::Session;
    use super::*;

    fn client(last: u8, user: &str) -> Asker {
        Asker { address: IpAddr::from([10, 0, 0, last]), user: user.to_owned() }
    }

    impl Statements {
        fn post(&self, client: &Asker) -> Option<Arc<Running>> {
            let base = "http://localhost".to_owned();
            let session = Ok(Session::default());
            let posted = Posted { client: client.clone(), sql: "SELECT 1".to_owned(), session };
            self.add(client, |id| Running::new(id, "slug".to_owned(), base, posted))
        }

        fn len(&self) -> usize {
            self.with(|known| known.len())
        }
    }

    #[test]
    fn a_client_that_follows_nothing_only_loses_its_own_statements() {
        let statements = Statements::default();
        let patient = statements.post(&client(1, "patient")).unwrap();
        let first = statements.post(&client(2, "flood")).unwrap();
        for _ in 0..5_000 {
            assert!(statements.post(&client(2, "flood")).is_some());
        }
        assert_eq!(statements.len(), MAX_OF_CLIENT + 1);
        assert!(statements.find(patient.id(), "slug").is_some());
        assert!(statements.find(first.id(), "slug").is_none(), "the oldest made room");
    }

    #[test]
    fn many_names_of_one_client_do_not_lock_out_another() {
        let statements = Statements::default();
        for nth in 0..3_000 {
            assert!(statements.post(&client(2, &format!("user{}", nth % 700))).is_some());
        }
        assert_eq!(statements.len(), MAX_STATEMENTS);
        let other = statements.post(&client(3, "other")).unwrap();
        for nth in 0..500 {
            statements.post(&client(2, &format!("new{nth}"))).unwrap();
        }
        assert!(statements.find(other.id(), "slug").is_some());
        assert_eq!(statements.len(), MAX_STATEMENTS);
    }

    #[test]
    fn an_address_that_follows_all_its_statements_under_many_names_does_not_lock_out_another() {
        let statements = Statements::default();
        let flood = |nth: usize| client(2, &format!("user{}", nth % 4));
        let posted: Vec<_> = (0..MAX_STATEMENTS).map(|nth| statements.post(&flood(nth)).unwrap()).collect();
        posted.iter().for_each(|running| running.follow());
        let other = statements.post(&client(3, "other")).unwrap();
        other.follow();
        assert!(statements.find(posted[0].id(), "slug").is_none(), "the one asked about longest ago made room");
        assert!(statements.post(&client(2, "user9")).is_none(), "not for its own");
        assert!(statements.post(&client(3, "other")).is_some());
        assert!(statements.find(other.id(), "slug").is_some());
        assert_eq!(statements.len(), MAX_STATEMENTS);
    }

    #[test]
    fn statements_that_are_waited_for_are_not_given_up() {
        let statements = Statements::default();
        let waited_for: Vec<_> = (0..MAX_OF_CLIENT).map(|_| statements.post(&client(1, "ann")).unwrap()).collect();
        waited_for.iter().for_each(|running| running.follow());
        assert!(statements.post(&client(1, "ann")).is_none());
        assert!(statements.post(&client(1, "bob")).is_some(), "another client has its own share");
        assert!(waited_for.iter().all(|running| statements.find(running.id(), "slug").is_some()));
    }
}
