//! Groups of equal chains: a fault that comes and goes makes a chain each time.

use std::collections::HashMap;

use crate::chain::{Cause, Chain, Severity};

/// What chains have in common that are shown as one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key<'a> {
    severity: Severity,
    cause: Cause,
    node: &'a str,
    job_id: Option<&'a str>,
    rank: Option<i32>,
    op: Option<&'a str>,
    /// Set for chains without an operation only: no other field distinguishes them.
    summary: Option<&'a str>,
}

impl<'a> Key<'a> {
    fn of(chain: &'a Chain) -> Self {
        Self {
            severity: chain.severity,
            cause: chain.cause,
            node: &chain.node,
            job_id: chain.job_id.as_deref(),
            rank: chain.rank,
            op: chain.op.as_deref(),
            summary: chain.op.is_none().then_some(chain.summary.as_str()),
        }
    }
}

/// Equal chains.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'a> {
    /// The worst of them: with the largest ratio, of equals the first given.
    pub chain: &'a Chain,
    /// Chains that are equal, 1 or more.
    pub count: usize,
    /// When the first of them began, unix nanoseconds.
    pub first_seen_ns: i64,
    /// When the last of them ended, unix nanoseconds.
    pub last_seen_ns: i64,
}

impl<'a> Group<'a> {
    fn of(chain: &'a Chain) -> Self {
        Self { chain, count: 1, first_seen_ns: chain.first_seen_ns, last_seen_ns: chain.last_seen_ns }
    }

    fn add(&mut self, chain: &'a Chain) {
        self.count += 1;
        self.first_seen_ns = self.first_seen_ns.min(chain.first_seen_ns);
        self.last_seen_ns = self.last_seen_ns.max(chain.last_seen_ns);
        // `None` orders before every number: a chain without a ratio never replaces one with a ratio.
        if chain.ratio > self.chain.ratio {
            self.chain = chain;
        }
    }
}

/// Puts equal chains together: same severity, cause, node, job, rank and operation. Groups come in the order of their
/// first chain.
pub fn groups(chains: &[Chain]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places: HashMap<Key<'_>, usize> = HashMap::new();
    for chain in chains {
        // A new key gets the index at which its group is added below; the order of chains is kept, which a map would
        // lose.
        let place = *places.entry(Key::of(chain)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.add(chain),
            None => groups.push(Group::of(chain)),
        }
    }
    groups
}

#[cfg(test)]
mod tests;
