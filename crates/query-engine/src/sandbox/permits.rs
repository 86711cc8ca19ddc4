//! Admission control: a few queries run at once, some more wait, and no client may take all permits or all places of
//! the queue. Each client has a share of both. All clients of one address have a larger share together, since a client
//! can invent user names.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::QueryError;
use crate::sandbox::limits::Limits;

/// The client that a query belongs to, as far as it is known without authentication.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The remote address of its connection.
    pub address: IpAddr,
    /// The user name that it sent; empty when it sent none.
    pub user: String,
}

impl Asker {
    /// A client that sends no user name.
    pub fn at(peer: SocketAddr) -> Self {
        Self { address: peer.ip(), user: String::new() }
    }
}

/// The permits of all queries.
#[derive(Debug)]
pub(crate) struct Permits {
    all: Arc<Share>,
    of_addresses: Mutex<HashMap<Option<IpAddr>, Arc<Share>>>,
    of_askers: Mutex<HashMap<Option<Asker>, Arc<Share>>>,
    limits: Limits,
}

/// The right to run, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _permits: [OwnedSemaphorePermit; 3],
    _shares: [Arc<Share>; 2],
}

/// How many queries may run, and how many may wait.
#[derive(Debug)]
struct Share {
    permits: Arc<Semaphore>,
    running: usize,
    queued: usize,
    waiting: AtomicUsize,
}

impl Share {
    fn new(running: usize, queued: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(running)), running, queued, waiting: AtomicUsize::new(0) })
    }

    fn wait(self: &Arc<Self>) -> Result<Waiting, QueryError> {
        // Counted before the check and in one atomic step, so that two queries cannot take the last place of the
        // queue.
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Arc::clone(self));
        // A full queue refuses only while no permit is free: with a free permit the query would not wait. The count
        // is given back when `waiting` is dropped, here too.
        if before >= self.queued && self.permits.available_permits() == 0 {
            return Err(QueryError::Busy { running: self.running, queued: before });
        }
        Ok(waiting)
    }

    async fn acquire(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        // Tokio's semaphore is fair: permits are given in the order of the requests. It is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| QueryError::Internal { message: "the queue of queries is closed".to_owned() })
    }
}

/// Counts a query as waiting until it is dropped, also when the client disconnects.
struct Waiting(Arc<Share>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permits {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            all: Share::new(limits.concurrent, limits.queued),
            of_addresses: Mutex::default(),
            of_askers: Mutex::default(),
            limits: limits.clone(),
        }
    }

    /// Waits for a permit to run.
    ///
    /// # Errors
    /// [`QueryError::Busy`] when too many wait already: of this asker, of its address, or of all.
    pub(crate) async fn wait(&self, asker: Option<&Asker>) -> Result<Permit, QueryError> {
        let Limits { concurrent, queued, .. } = self.limits;
        // Three quarters of the permits and half of the queue: a client that floods leaves room for others.
        let of_asker = share(&self.of_askers, asker.cloned(), || {
            Share::new(some_of(concurrent, concurrent / 4), some_of(queued, queued / 2))
        });
        // All permits but one, and three quarters of the queue: an address is harder to invent than a user name.
        let of_address = share(&self.of_addresses, asker.map(|asker| asker.address), || {
            Share::new(some_of(concurrent, 1), some_of(queued, queued / 4))
        });
        // All three queues are checked before any permit is awaited, so that a refusal comes at once (load shedding).
        let _waiting = [of_asker.wait()?, of_address.wait()?, self.all.wait()?];
        // Always from the narrowest share to the common one: with one order for all, waits cannot form a cycle
        // (deadlock), and a query that waits for its own share holds no common permit.
        let permits = [of_asker.acquire().await?, of_address.acquire().await?, self.all.acquire().await?];
        Ok(Permit { _permits: permits, _shares: [of_asker, of_address] })
    }
}

/// All but `left`, which other clients keep; at least one.
fn some_of(all: usize, left: usize) -> usize {
    all.saturating_sub(left).max(1)
}

/// The share of one client or address. It exists while a query runs or waits in it.
fn share<K: Hash + Eq>(shares: &Mutex<HashMap<K, Arc<Share>>>, of: K, new: impl FnOnce() -> Arc<Share>) -> Arc<Share> {
    // Each step under the lock leaves a whole map, so that a panic elsewhere does not make it unusable.
    let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
    // Reference counting instead of a timer: a share that only the map holds has no query that runs or waits. The
    // lock keeps another query from cloning it between the check and the removal.
    shares.retain(|_, share| Arc::strong_count(share) > 1);
    Arc::clone(shares.entry(of).or_insert_with(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(last: u8, user: &str) -> Asker {
        Asker { address: IpAddr::from([10, 0, 0, last]), user: user.to_owned() }
    }

    /// Permits taken without waiting, and whether the next one had to wait or was refused.
    async fn taken(permits: &Permits, who: impl Fn(usize) -> Asker) -> Vec<Permit> {
        let mut held = Vec::new();
        loop {
            let asker = who(held.len());
            tokio::select! {
                biased;
                permit = permits.wait(Some(&asker)) => held.push(permit.unwrap()),
                () = tokio::task::yield_now() => return held,
            }
        }
    }

    #[tokio::test]
    async fn one_asker_leaves_turns_to_others_and_many_names_of_an_address_leave_one() {
        let permits = Permits::new(&Limits::default());
        let held = taken(&permits, |_| asker(1, "flood")).await;
        assert_eq!(held.len(), 6);
        let more = taken(&permits, |nth| asker(1, &format!("name{nth}"))).await;
        assert_eq!(held.len() + more.len(), 7);
        assert_eq!(taken(&permits, |_| asker(2, "other")).await.len(), 1);
        drop((held, more));
        assert_eq!(taken(&permits, |_| asker(2, "other")).await.len(), 6, "permits are given back");
    }

    async fn wait(permits: Arc<Permits>, who: Asker) -> Result<(), QueryError> {
        permits.wait(Some(&who)).await.map(drop)
    }

    #[tokio::test]
    async fn one_asker_does_not_fill_the_queue() {
        let permits = Arc::new(Permits::new(&Limits { concurrent: 4, queued: 8, ..Limits::default() }));
        let _held = taken(&permits, |_| asker(1, "flood")).await;
        let _queued: Vec<_> = (0..4).map(|_| tokio::spawn(wait(Arc::clone(&permits), asker(1, "flood")))).collect();
        tokio::task::yield_now().await;
        assert!(matches!(permits.wait(Some(&asker(1, "flood"))).await, Err(QueryError::Busy { queued: 4, .. })));
        assert!(permits.wait(Some(&asker(2, "other"))).await.is_ok());
    }
}
