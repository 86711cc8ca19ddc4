use super::*;
use crate::commit::reply::Attempt;
use crate::table::Token;
use crate::table::positions::{gaps, offsets, parse_ranges};
use iceberg::spec::TableMetadata;
use proptest::prelude::*;
use uuid::Uuid;

fn at(topic: &str, p: i32) -> TopicPartition {
    TopicPartition::new(topic, p)
}

/// An empty table with these properties.
fn table(properties: &HashMap<String, String>) -> TableMetadata {
    let def = crate::tests::def();
    let empty = crate::table::schema::new_table(&def, "file:///w/t", Uuid::nil(), 0).unwrap();
    empty.into_builder(None).set_properties(properties.clone()).unwrap().build().unwrap().metadata
}

fn batch(ranges: Vec<OffsetRange>, token: Token) -> BatchFacts {
    let attempt = Attempt { table: Uuid::nil(), seen_sequence: 0, token };
    BatchFacts { attempt, ranges, gaps: vec![] }
}

#[test]
fn what_a_commit_writes_is_what_the_next_one_reads() {
    let mut metadata = table(&HashMap::new());
    assert_eq!(offsets(&metadata), (BTreeMap::new(), true));
    let (a, b) = (at("causeway.events.v1", 0), at("causeway.critical.v1", 12));
    let tokens: Vec<Token> = (0..20).map(|n| Token::from_uuid(Uuid::from_u128(n))).collect();
    for (i, token) in tokens.iter().enumerate() {
        let i = i as i64;
        let mut ranges = vec![OffsetRange::new(a.clone(), i * 10, i * 10 + 10)];
        ranges.extend((i > 4).then(|| OffsetRange::new(b.clone(), i, i + 1)));
        let landed = properties(&HeadFacts::of(&metadata), &batch(ranges, *token));
        metadata = table(&metadata.properties().clone().into_iter().chain(landed).collect());
    }
    let facts = HeadFacts::of(&metadata);
    assert!(facts.offsets_complete);
    assert_eq!(facts.offsets, BTreeMap::from([(a, NextOffset(200)), (b, NextOffset(20))]));
}

#[test]
fn a_gap_is_remembered_less_what_another_owner_landed_of_it() {
    let metadata = table(&HashMap::from([
        ("causeway.offset-count".to_owned(), "1".to_owned()),
        ("causeway.offset.t/0".to_owned(), "5".to_owned()),
    ]));
    let gap = |p, start, end| OffsetRange::new(at("t", p), start, end);
    let ranges = vec![gap(0, 9, 10), gap(1, 3, 4), gap(2, 1, 2)];
    let token = Token::from_uuid(Uuid::nil());
    let batch = BatchFacts { gaps: vec![gap(0, 2, 9), gap(1, 0, 3), gap(0, 0, 4)], ..batch(ranges, token) };
    let landed = properties(&HeadFacts::of(&metadata), &batch);
    let mut found = gaps(&table(&landed));
    found.sort_unstable();
    assert_eq!(found, [gap(0, 5, 9), gap(1, 0, 3)]);
}

proptest! {
    #[test]
    fn summaries_are_read_as_written(ranges in prop::collection::vec(("[a-z._-]{1,20}", 0..99i32, 0..1_000_000i64, 1..1_000i64), 1..5)) {
        let ranges: Vec<_> = ranges.into_iter().map(|(t, p, s, n)| OffsetRange::new(at(&t, p), s, s + n)).collect();
        let landed = summary(&HeadFacts::of(&table(&HashMap::new())), &ranges);
        prop_assert_eq!(landed["causeway.offsets"].as_str(), "");
        prop_assert_eq!(parse_ranges(&landed["causeway.ranges"]), Some(ranges));
    }

    #[test]
    fn each_partition_ends_where_its_range_ends(start in 0..1_000i64, len in 1..100i64) {
        let range = OffsetRange::new(at("t", 0), start, start + len);
        let before = BTreeMap::from([(at("t", 1), NextOffset(3))]);
        let after = advance(&before, std::slice::from_ref(&range));
        prop_assert_eq!(after[&at("t", 0)].0, range.end);
        prop_assert_eq!(after[&at("t", 1)].0, 3);
    }
}
