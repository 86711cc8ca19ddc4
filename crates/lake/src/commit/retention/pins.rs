//! Pins: snapshots that a report, an incident or a reader needs for some time. Each is a property of its own, so that
//! two that are set at the same time do not overwrite one another.
//!
//! `causeway.pin.<snapshot id>.<owner>` = `<end> <reason>`: the end in unix milliseconds, or `-` for a pin without
//! one. `causeway.pin.<snapshot id>` = `<end>`, a pin without an owner, is read too.

use std::collections::HashMap;

/// In front of the snapshot's id in the key of a pin.
pub const PIN_PREFIX: &str = "causeway.pin.";

/// The end of a pin that has none.
const WITHOUT_END: &str = "-";
/// Longest owner and longest reason. Every version of the table has them again.
const MAX_OWNER_CHARS: usize = 100;
const MAX_REASON_CHARS: usize = 500;

/// Keeps a snapshot, and by it the files that it reads, from leaving a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The snapshot's id.
    pub snapshot: i64,
    /// Who needs it, such as `incident-12` or `report.nccl`: a snapshot has one pin of each owner. Empty for a pin that
    /// was set without one.
    pub owner: String,
    /// Why, for people.
    pub reason: String,
    /// When the pin ends, unix milliseconds; `None`: when it is removed.
    pub until_ms: Option<i64>,
}

/// A pin that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPin {
    /// The owner would not be read back.
    #[error("the owner of a pin has 1 to 100 letters, digits and the signs . _ : -, not {owner:?}")]
    Owner { owner: String },
    /// The reason would make every version of the table long.
    #[error("the reason of a pin has up to 500 characters, not {chars}")]
    Reason { chars: usize },
}

impl Pin {
    /// Whether the pin holds nothing any more.
    pub fn has_ended(&self, unix_ms: i64) -> bool {
        self.until_ms.is_some_and(|until| until <= unix_ms)
    }

    /// # Errors
    /// Owner or reason do not fit into a property.
    pub(crate) fn check(&self) -> Result<(), MalformedPin> {
        let is_owner = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
        if self.owner.is_empty() || self.owner.len() > MAX_OWNER_CHARS || !self.owner.chars().all(is_owner) {
            return Err(MalformedPin::Owner { owner: self.owner.clone() });
        }
        match self.reason.chars().count() {
            chars if chars > MAX_REASON_CHARS => Err(MalformedPin::Reason { chars }),
            _ => Ok(()),
        }
    }

    /// Key and value of the property.
    pub(crate) fn property(&self) -> (String, String) {
        let until = self.until_ms.map_or_else(|| WITHOUT_END.to_owned(), |until| until.to_string());
        (pin_key(self.snapshot, &self.owner), format!("{until} {}", self.reason))
    }

    fn read(key: &str, value: &str) -> Option<Self> {
        let rest = key.strip_prefix(PIN_PREFIX)?;
        let (snapshot, owner) = rest.split_once('.').unwrap_or((rest, ""));
        let (until, reason) = value.split_once(' ').unwrap_or((value, ""));
        Some(Self {
            snapshot: snapshot.parse().ok()?,
            owner: owner.to_owned(),
            reason: reason.to_owned(),
            // An end that cannot be read never comes, which is the safe side.
            until_ms: until.parse().ok(),
        })
    }
}

/// The key of the property that pins a snapshot for an owner.
pub(crate) fn pin_key(snapshot: i64, owner: &str) -> String {
    match owner {
        "" => format!("{PIN_PREFIX}{snapshot}"),
        owner => format!("{PIN_PREFIX}{snapshot}.{owner}"),
    }
}

/// The pins of a table, in ascending order of snapshot and owner, those that have ended too.
pub(crate) fn pins_of(properties: &HashMap<String, String>) -> Vec<Pin> {
    let mut pins: Vec<Pin> = properties.iter().filter_map(|(key, value)| Pin::read(key, value)).collect();
    pins.sort_unstable();
    pins
}

/// The keys of pins that hold nothing any more.
pub(crate) fn ended_pins(properties: &HashMap<String, String>, unix_ms: i64) -> Vec<String> {
    let ended = pins_of(properties).into_iter().filter(|pin| pin.has_ended(unix_ms));
    ended.map(|pin| pin_key(pin.snapshot, &pin.owner)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(owner: &str, until_ms: Option<i64>) -> Pin {
        Pin { snapshot: 7, owner: owner.to_owned(), reason: "rank 3 was slow at 14:00".to_owned(), until_ms }
    }

    #[test]
    fn a_pin_is_read_as_it_was_written() {
        for pin in [pin("incident-12", Some(5)), pin("report.nccl", None)] {
            assert_eq!(pin.check(), Ok(()));
            assert_eq!(pins_of(&HashMap::from([pin.property()])), [pin]);
        }
    }

    #[test]
    fn a_pin_ends_at_its_time_and_one_whose_end_cannot_be_read_never_ends() {
        let properties = [("causeway.pin.1", "1000"), ("causeway.pin.2.a.b", "2000 why"), ("causeway.pin.3", "soon")];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let ended = |unix_ms| ended_pins(&properties, unix_ms);
        assert!(ended(999).is_empty());
        assert_eq!(ended(1000), ["causeway.pin.1"]);
        assert_eq!(ended(5000), ["causeway.pin.1", "causeway.pin.2.a.b"]);
        let owners: Vec<_> = pins_of(&properties).into_iter().map(|pin| (pin.snapshot, pin.owner)).collect();
        assert_eq!(owners, [(1, String::new()), (2, "a.b".to_owned()), (3, String::new())]);
    }

    #[test]
    fn owners_and_reasons_that_would_not_be_read_back_are_refused() {
        let long = "x".repeat(101);
        for owner in ["", "a b", "ö", long.as_str()] {
            assert_eq!(pin(owner, None).check(), Err(MalformedPin::Owner { owner: owner.to_owned() }));
        }
        let long = Pin { reason: "x".repeat(501), ..pin("a", None) };
        assert_eq!(long.check(), Err(MalformedPin::Reason { chars: 501 }));
    }
}
