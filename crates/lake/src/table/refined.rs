//! Which version of the code made the rows of which messages: one property per partition, a step function of the
//! offset. It does not depend on snapshots, which leave the metadata, nor on files, which are rewritten.

use std::collections::BTreeMap;
use std::fmt;

use event_schema::position::TopicPartition;
use iceberg::spec::TableMetadata;

/// `causeway.refined.<topic>/<partition>` = `start:version,…`, ascending; version 0 is unknown.
pub(crate) const REFINED_PREFIX: &str = "causeway.refined.";

/// Rows of a program that recorded no version.
const UNKNOWN: u32 = 0;

/// The versions of one partition: each from its offset up to the next one's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refined(BTreeMap<i64, u32>);

impl Refined {
    /// What the table records of a partition; nothing where the property is absent or cannot be read.
    pub(crate) fn of(table: &TableMetadata, at: &TopicPartition) -> Self {
        table.properties().get(&refined_key(at)).and_then(|text| Self::parse(text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let steps = text.split(',').map(|step| {
            let (start, version) = step.split_once(':')?;
            Some((start.parse().ok()?, version.parse().ok()?))
        });
        steps.collect::<Option<_>>().map(Self)
    }

    /// The version that made the rows of the message at an offset; `None` when it is unknown.
    pub fn version(&self, offset: i64) -> Option<u32> {
        Some(self.at(offset)).filter(|version| *version != UNKNOWN)
    }

    /// The versions that made the rows of the messages in `start..end`, ascending; `None` stands for unknown ones.
    pub fn versions(&self, start: i64, end: i64) -> Vec<Option<u32>> {
        let within = self.0.range(start.saturating_add(1)..end.max(start.saturating_add(1)));
        let mut versions: Vec<_> = within.map(|(_, version)| *version).chain([self.at(start)]).collect();
        versions.sort_unstable();
        versions.dedup();
        versions.into_iter().map(|version| Some(version).filter(|version| *version != UNKNOWN)).collect()
    }

    fn at(&self, offset: i64) -> u32 {
        self.0.range(..=offset).next_back().map_or(UNKNOWN, |(_, version)| *version)
    }

    /// A batch that begins at `start` was appended. What was recorded from there on is of a time before a roll back.
    pub(crate) fn append(&mut self, start: i64, version: u32) {
        // Nothing has landed behind the offset at which a batch lands.
        self.0.split_off(&start);
        self.step(start, version);
    }

    /// The rows of the messages in `start..end` were made again.
    pub(crate) fn remake(&mut self, start: i64, end: i64, version: u32) {
        if start >= end {
            return;
        }
        let mut behind = self.0.split_off(&start);
        // The version that holds at the end goes on from there.
        let after = behind.range(..=end).next_back().map_or_else(|| self.at(start), |(_, version)| *version);
        behind.retain(|offset, _| *offset > end);
        self.step(start, version);
        self.step(end, after);
        behind.into_iter().for_each(|(offset, version)| self.step(offset, version));
    }

    /// It is not known any more which version made the rows of the messages in `start..end`.
    pub(crate) fn forget(&mut self, start: i64, end: i64) {
        self.remake(start, end, UNKNOWN);
    }

    /// Adds a step behind all others, unless it changes nothing.
    fn step(&mut self, offset: i64, version: u32) {
        // While one version appends, the property does not change with each commit.
        if self.at(offset) != version {
            self.0.insert(offset, version);
        }
    }
}

impl fmt::Display for Refined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (start, version)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{start}:{version}")?;
        }
        Ok(())
    }
}

/// The key of the property with the versions of a partition.
pub(crate) fn refined_key(at: &TopicPartition) -> String {
    format!("{REFINED_PREFIX}{at}")
}

/// The property of a partition after a change of its versions; nothing when it stays as it is.
pub(crate) fn changed(
    table: &TableMetadata,
    at: &TopicPartition,
    change: impl FnOnce(&mut Refined),
) -> Option<(String, String)> {
    let before = Refined::of(table, at);
    let mut after = before.clone();
    change(&mut after);
    (after != before).then(|| (refined_key(at), after.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refined(text: &str) -> Refined {
        Refined::parse(text).unwrap()
    }

    #[test]
    fn one_step_is_kept_while_one_version_appends() {
        let mut versions = Refined::default();
        for start in [10, 20, 30] {
            versions.append(start, 1);
        }
        assert_eq!(versions.to_string(), "10:1");
        versions.append(40, 2);
        assert_eq!(versions.to_string(), "10:1,40:2");
        assert_eq!([9, 10, 39, 40].map(|offset| versions.version(offset)), [None, Some(1), Some(1), Some(2)]);
        assert_eq!(versions.versions(0, 50), [None, Some(1), Some(2)]);
        assert_eq!(versions.versions(10, 40), [Some(1)]);
    }

    #[test]
    fn what_was_made_again_has_the_new_version_and_the_rest_its_own() {
        for (before, start, end, after) in [
            ("0:1", 5, 10, "0:1,5:2,10:1"),
            ("0:1", 0, 10, "0:2,10:1"),
            ("0:1,5:2,10:1", 3, 12, "0:1,3:2,12:1"),
            ("0:1,5:3,10:1", 5, 10, "0:1,5:2,10:1"),
            ("0:2", 5, 10, "0:2"),
            ("7:1", 5, 10, "5:2,10:1"),
            ("0:1", 5, 5, "0:1"),
            ("0:1,8:3,20:4", 5, 10, "0:1,5:2,10:3,20:4"),
        ] {
            let mut versions = refined(before);
            versions.remake(start, end, 2);
            assert_eq!(versions, refined(after), "{before}");
        }
    }

    #[test]
    fn a_batch_behind_a_roll_back_takes_the_place_of_what_was_recorded_from_there_on() {
        let mut versions = refined("0:1,5:2,10:1");
        versions.append(7, 1);
        assert_eq!(versions, refined("0:1,5:2,7:1"));
        versions.forget(0, 7);
        assert_eq!(versions, refined("0:0,7:1").normal());
    }

    impl Refined {
        /// Without steps that change nothing.
        fn normal(self) -> Self {
            let mut normal = Self::default();
            self.0.into_iter().for_each(|(start, version)| normal.step(start, version));
            normal
        }
    }

    #[test]
    fn a_text_that_is_no_list_of_steps_is_not_read() {
        for text in ["", "1", "a:1", "1:a", "1:1,"] {
            assert_eq!(Refined::parse(text), None, "{text}");
        }
    }
}
