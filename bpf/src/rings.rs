//! The reading ends of the three rings. The critical ring is read first, and again before every batch of the data ring.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libbpf_rs::{MapCore, RingBuffer, RingBufferBuilder};

use crate::class::{Class, PerClass};
use crate::probes;
use crate::record::{Notice, Record};
use crate::sys::{Waker, Wakeups};

/// Records taken from the rings before they are handed on.
const BATCH: usize = 1024;
/// One poll ends after this many records even if probes write faster than they are read.
const MOST_PER_POLL: usize = 256 * BATCH;
/// Notices that have not been taken yet. Beyond these the oldest are discarded: a notice is a hint, and the scan
/// replaces it.
const MOST_NOTICES: usize = 4096;

pub(crate) struct Rings {
    manager: RingBuffer<'static>,
    wakeups: Wakeups,
    inbox: Arc<Mutex<Inbox>>,
    batch: Vec<Record>,
    pub(crate) received: Received,
    /// The last poll ended at its limit.
    pub(crate) is_behind: bool,
}

/// What has been taken from the rings so far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Received {
    by_class: PerClass<u64>,
    pub(crate) undecodable: u64,
}

impl Received {
    pub(crate) fn of(&self, class: Class) -> u64 {
        self.by_class[class]
    }
}

/// Where libbpf's callbacks put what they decode; emptied after every batch.
#[derive(Default)]
struct Inbox {
    records: Vec<Record>,
    notices: VecDeque<Notice>,
    new_notices: u64,
    undecodable: u64,
}

/// The three ring maps, of any type that libbpf-rs takes.
pub(crate) struct RingMaps<'m, M> {
    pub(crate) critical: &'m M,
    pub(crate) notice: &'m M,
    pub(crate) data: &'m M,
}

impl Rings {
    pub(crate) fn open<M: MapCore>(maps: &RingMaps<'_, M>) -> io::Result<Self> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let mut builder = RingBufferBuilder::new();
        // libbpf reads the rings in the order in which they were added.
        builder.add(maps.critical, on_record(&inbox)).map_err(io::Error::other)?;
        builder.add(maps.notice, on_notice(&inbox)).map_err(io::Error::other)?;
        builder.add(maps.data, on_record(&inbox)).map_err(io::Error::other)?;
        let manager = builder.build().map_err(io::Error::other)?;
        // Waited for with an epoll of its own, not libbpf's: that one is level-triggered (see `Wakeups`).
        let wakeups = Wakeups::on(&[maps.critical.as_fd(), maps.notice.as_fd(), maps.data.as_fd()])?;
        let batch = Vec::with_capacity(BATCH);
        Ok(Self { manager, wakeups, inbox, batch, received: Received::default(), is_behind: false })
    }

    /// Waits for a wake-up or `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<()> {
        if timeout.is_zero() { Ok(()) } else { self.wakeups.wait(timeout) }
    }

    /// Waits for a wake-up or `timeout`, then hands out everything in the rings. Returns how many records that were.
    pub(crate) fn poll(&mut self, timeout: Duration, sink: &mut impl FnMut(Record)) -> io::Result<usize> {
        self.wait(timeout)?;
        let mut total = 0;
        // Until an empty read has been seen: any other end of the loop, an error included, may leave records in the
        // rings.
        self.is_behind = true;
        while total < MOST_PER_POLL {
            // Each call begins with the critical ring, so that a flood of calls and waits delays critical records by
            // one batch at most.
            let taken = self.manager.consume_raw_n(BATCH);
            if taken < 0 {
                // libbpf returns the negative error number.
                return Err(io::Error::from_raw_os_error(-taken));
            }
            total += self.hand_on(sink);
            if taken == 0 {
                self.is_behind = false;
                break;
            }
        }
        Ok(total)
    }

    fn hand_on(&mut self, sink: &mut impl FnMut(Record)) -> usize {
        {
            // Released before the records are handed on: the sink may take long.
            let mut inbox = lock(&self.inbox);
            std::mem::swap(&mut self.batch, &mut inbox.records);
            self.received.by_class[Class::Notice] += std::mem::take(&mut inbox.new_notices);
            self.received.undecodable += std::mem::take(&mut inbox.undecodable);
        }
        let records = self.batch.len();
        for record in self.batch.drain(..) {
            // Counted where it is handed out, so that `attempts = drained + ring_drop` is a statement about delivery.
            self.received.by_class[record.class] += 1;
            sink(record);
        }
        records
    }

    pub(crate) fn waker(&self) -> Waker {
        self.wakeups.waker()
    }

    /// Notices received since the last call.
    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        lock(&self.inbox).notices.drain(..).collect()
    }
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    // A panic of the sink cannot leave the inbox half written: the lock is not held while records are handed on.
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

fn on_record(inbox: &Arc<Mutex<Inbox>>) -> impl FnMut(&[u8]) -> i32 + 'static {
    let inbox = Arc::clone(inbox);
    move |bytes| {
        let mut inbox = lock(&inbox);
        match probes::decode(bytes) {
            Ok(record) => inbox.records.push(record),
            // Counted and skipped: an error returned to libbpf would end the read of this ring early.
            Err(_) => inbox.undecodable += 1,
        }
        0
    }
}

fn on_notice(inbox: &Arc<Mutex<Inbox>>) -> impl FnMut(&[u8]) -> i32 + 'static {
    let inbox = Arc::clone(inbox);
    move |bytes| {
        let mut inbox = lock(&inbox);
        match Notice::decode(bytes) {
            Ok(notice) => {
                inbox.new_notices += 1;
                if inbox.notices.len() == MOST_NOTICES {
                    inbox.notices.pop_front();
                }
                inbox.notices.push_back(notice);
            }
            Err(_) => inbox.undecodable += 1,
        }
        0
    }
}
