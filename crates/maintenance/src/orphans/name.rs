//! The names of objects that a table's writers make, and the times in them. Pure.

use uuid::Uuid;

const UUID_CHARS: usize = 36;

/// What an object's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    /// When the name was given, unix milliseconds; `None` of a name without a time.
    pub(crate) given_ms: Option<i64>,
}

impl Name {
    /// Of a path below the table's location; `None` of an object that no writer of Iceberg tables makes. What is not
    /// known is not removed: another program may keep it there.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (folder, name) = path.split_once('/')?;
        let file = name.rsplit('/').next()?;
        let is_known = match folder {
            "data" => file.ends_with(".parquet"),
            // Statistics have `.stats` or `.puffin`; manifests and their lists have `.avro`.
            "metadata" => [".avro", ".metadata.json", ".stats", ".puffin"].iter().any(|end| file.ends_with(end)),
            _ => false,
        };
        is_known.then(|| Self { given_ms: time_in(file) })
    }

    /// Whether name and store both say that the object was made before a time. Two clocks: that of the writer and that
    /// of the store; one that is wrong must not make a new object look old.
    pub(super) fn is_older(self, modified_unix_ms: i64, than_unix_ms: i64) -> bool {
        modified_unix_ms < than_unix_ms && self.given_ms.is_none_or(|given| given < than_unix_ms)
    }
}

/// The time in the UUID of a name.
fn time_in(file: &str) -> Option<i64> {
    // Every place where a UUID may begin: names have numbers and words before and behind it.
    let mut ids = (0..file.len()).filter_map(|start| file.get(start..start + UUID_CHARS));
    let id = ids.find_map(|text| Uuid::try_parse(text).ok())?;
    // Version 7 begins with the time (RFC 9562, section 5.7), and so does version 8 as `objects::stamp` makes it of
    // one. Other versions have random bits there, or another count of time.
    matches!(id.get_version_num(), 7 | 8).then(|| {
        let [a, b, c, d, e, f, ..] = *id.as_bytes();
        i64::from_be_bytes([0, 0, a, b, c, d, e, f])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_are_known_and_their_times_read() {
        let id = objects::stamp(Uuid::now_v7(), b"content");
        let now = Uuid::now_v7().as_u128() >> 80;
        let other = Uuid::new_v4();
        for (path, has_time) in [
            (format!("data/ab/ts_day=2026-01-01/{id}.parquet"), true),
            (format!("data/00000-0-{other}-00001.parquet"), false),
            (format!("metadata/{id}-m.avro"), true),
            (format!("metadata/snap-8812345678901234567-{id}.avro"), true),
            (format!("metadata/snap-8812-0-{other}.avro"), false),
            (format!("metadata/00012-{id}.gz.metadata.json"), true),
            (format!("metadata/00012-{other}.metadata.json"), false),
            (format!("metadata/77-{id}.stats"), true),
        ] {
            let name = Name::of(&path).unwrap_or_else(|| panic!("{path}"));
            let given = name.given_ms.map(|given| now as i64 - given);
            assert_eq!(given.is_some_and(|ago| (0..60_000).contains(&ago)), has_time, "{path}: {given:?}");
        }
        for path in
            ["data/x", "x.parquet", "notes/x.parquet", "metadata/version-hint.text", "metadata", "data/x.parquet.crc"]
        {
            assert_eq!(Name::of(path), None, "{path}");
        }
    }

    #[test]
    fn an_object_is_old_when_both_clocks_say_so() {
        let named = Name { given_ms: Some(10) };
        let unnamed = Name { given_ms: None };
        for (name, modified, is_older) in [
            (named, 10, true),
            // The clock of the store is slow, then that of the writer.
            (Name { given_ms: Some(20) }, 10, false),
            (named, 20, false),
            (unnamed, 10, true),
            (unnamed, 20, false),
        ] {
            assert_eq!(name.is_older(modified, 20), is_older, "{name:?} {modified}");
        }
    }
}
