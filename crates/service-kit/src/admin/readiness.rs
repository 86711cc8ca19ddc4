//! Readiness as a set of named conditions, each with the reason why it does not hold yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Reasons by the condition's name.
type Reasons = BTreeMap<Arc<str>, String>;

/// Whether a service can do its work. Ready when every condition is met. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Reasons>>);

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet, and why.
    pub fn condition(&self, name: impl Into<Arc<str>>, reason: impl Into<String>) -> Condition {
        let condition = Condition { name: name.into(), readiness: self.clone() };
        // Unmet from the beginning: a service is not ready before each part has met its condition.
        condition.unmet(reason);
        condition
    }

    pub fn is_ready(&self) -> bool {
        self.with(|reasons| reasons.is_empty())
    }

    /// The conditions that do not hold, with their reasons.
    pub fn unmet(&self) -> Vec<(Arc<str>, String)> {
        self.with(|reasons| reasons.iter().map(|(name, reason)| (Arc::clone(name), reason.clone())).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Reasons) -> T) -> T {
        // A poisoned lock is used on: each change is one call on the map, so that a panic leaves no half of it.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One condition of a [`Readiness`], held by the part that can meet it.
#[derive(Debug, Clone)]
pub struct Condition {
    name: Arc<str>,
    readiness: Readiness,
}

impl Condition {
    /// The condition holds.
    pub fn met(&self) {
        self.readiness.with(|reasons| reasons.remove(&self.name));
    }

    /// The condition does not hold (any more), and why.
    pub fn unmet(&self, reason: impl Into<String>) {
        self.readiness.with(|reasons| reasons.insert(Arc::clone(&self.name), reason.into()));
    }
}
