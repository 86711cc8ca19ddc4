use std::collections::HashMap;

use super::*;

/// An empty table with these properties.
fn table(properties: &HashMap<String, String>) -> TableMetadata {
    let def = crate::tests::def();
    let empty = crate::table::schema::new_table(&def, "file:///w/t", Uuid::nil(), 0).unwrap();
    empty.into_builder(None).set_properties(properties.clone()).unwrap().build().unwrap().metadata
}

#[test]
fn a_removed_or_mangled_offset_is_seen() {
    let whole = [
        ("causeway.offset-count", "2"),
        ("causeway.offset.t/0", "5"),
        ("causeway.offset.t/1", "7"),
        ("comment", "not ours"),
    ];
    let of = |pairs: &[(&str, &str)]| table(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
    assert!(offsets(&of(&whole)).1);
    assert!(!offsets(&of(&whole[..2])).1, "one is missing");
    assert!(!offsets(&of(&[whole[0], whole[1], ("causeway.offset.t/1", "seven")])).1);
    assert!(!offsets(&of(&[whole[0], whole[1], ("causeway.offset.t", "7")])).1);
}

#[test]
fn only_free_properties_may_be_set_by_callers() {
    assert!(is_free_property("causeway.log.t/0"));
    for key in [
        "comment",
        "causeway.offset.t/0",
        "causeway.offset-count",
        "causeway.tokens",
        "causeway.gap.t/0:0-5",
        "write.format.default",
    ] {
        assert!(!is_free_property(key), "{key}");
    }
}

#[test]
fn malformed_ranges_are_no_ranges() {
    for text in ["", "t/0", "t/0:1", "t:1-2", "t/0:1-2,", "t/x:1-2", "t/0:a-2"] {
        assert_eq!(parse_ranges(text), None, "{text}");
    }
}

#[test]
fn a_summary_says_where_the_partitions_stand_that_its_commit_did_not_move() {
    let offsets: BTreeMap<_, _> = [("t", 0, 5), ("t", 1, 7), ("of=old", 0, 2)]
        .map(|(topic, partition, next)| (TopicPartition::new(topic, partition), NextOffset(next)))
        .into();
    let moved = OffsetRange::new(TopicPartition::new("t", 1), 3, 7);
    let text = other_offsets(&offsets, std::slice::from_ref(&moved));
    let mut read = parse_offsets(&text).unwrap();
    assert_eq!(read.insert(moved.at, NextOffset(moved.end)), None, "{text}");
    assert_eq!(read, offsets);
    assert_eq!(parse_offsets(""), Some(BTreeMap::new()), "the commit moved all partitions");
    for text in ["t/0", "t/0=", "t=5", "t/0=5,", "t/x=5"] {
        assert_eq!(parse_offsets(text), None, "{text}");
    }
}
