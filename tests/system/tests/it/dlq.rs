//! Messages that an older ingest did not decode are replayed through Kafka, by several commands at once: each lands once.

use std::collections::BTreeMap;

use event_schema::position::{Message, OffsetRange, TopicPartition};
use lake::{CommitOutcome, CommitRequest, Lake, LakeOptions, Token};
use serde_json::{Value, json};
use tables::arrival::{Arrival, Rejection};
use tables::registry;
use tables::seen::Seen;

use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::{EVENTS, Place};
use crate::program::{self, Program, Said};

/// One message in so many was not decoded.
const ONE_IN: usize = 5;

/// Lands messages as a version did that rejected some of them; how many.
async fn land_as_an_older_version(place: &Place, messages: Vec<Message>) -> usize {
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}", place.dir("catalog.sqlite").display()),
        warehouse: place.dir("warehouse").display().to_string(),
        s3: None,
    };
    let mut seen: BTreeMap<TopicPartition, Seen> = BTreeMap::new();
    let mut ends: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    let mut arrivals = Vec::new();
    for message in messages {
        let at = message.at.clone();
        ends.insert(at.clone(), message.offset + 1);
        let mut arrival = Arrival::decode(message, 1_763_000_000_000_000);
        if arrivals.len() % ONE_IN == 1 {
            arrival.outcome = Err(Rejection { cause: "unknown_version", detail: "a newer wire version".to_owned() });
        }
        arrivals.push(arrival.admit(seen.entry(at).or_default()));
    }
    let ranges: Vec<_> = ends.into_iter().map(|(at, end)| OffsetRange::new(at, 0, end)).collect();
    let lake = Lake::open(options).await.unwrap();
    for table in registry::all() {
        let handle = lake.ensure_table(&table.def).await.unwrap();
        let files = handle.write(&table.rows(&arrivals.iter().collect::<Vec<_>>()).unwrap()).await.unwrap();
        let landed = handle.commit(CommitRequest::new(ranges.clone(), Token::random(), files)).await;
        assert!(matches!(landed, CommitOutcome::Committed(_)), "{landed:?}");
    }
    arrivals.iter().filter(|arrival| arrival.outcome.is_err()).count()
}

fn replay(place: &Place) -> Program {
    let mut command = place.command("causeway");
    command.args(["dlq", "replay", "--all", "--json"]);
    Program::start(command)
}

fn outcomes(said: &Said) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in said.json()["messages"].as_array().unwrap() {
        *counts.entry(message["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn dead_letters_are_replayed_through_kafka_by_several_commands_at_once_and_land_once() {
    let _alone = alone();
    let place = Place::local();
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    ingest.0.terminate().ok();
    // What ingest has made so far is empty: the older version makes its tables anew.
    for file in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = std::fs::remove_file(place.dir(file));
    }
    std::fs::remove_dir_all(place.dir("warehouse")).unwrap();
    let account = Fleet::send(&place, 8, 40_000, 7);
    let messages: Vec<_> = place.messages().into_iter().filter(|message| &*message.at.topic == EVENTS).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dead = runtime.block_on(land_as_an_older_version(&place, messages));
    assert!(dead > 10, "{dead}");
    assert_eq!(place.audit().code, Some(1), "rows are missing");

    let at_once = [replay(&place), replay(&place), replay(&place)];
    for command in at_once {
        // None of them sees the messages of the others before ingest has landed them: all are sent.
        let said = command.end(crate::TEST_TIMEOUT).ok();
        assert_eq!(outcomes(&said), BTreeMap::from([("sent".to_owned(), dead)]));
    }
    let ingest = Ingest::start(&place);
    for _ in 0..2 {
        place.wait_for_no_lag(&[&ingest]);
    }
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);

    assert_eq!(outcomes(&replay(&place).end(crate::TEST_TIMEOUT).ok()), BTreeMap::new(), "all were replayed");
    let mut list = place.command("causeway");
    list.args(["dlq", "list", "--json"]);
    let list = program::run(list).ok().json();
    let replayed = list.as_array().unwrap().iter().filter(|letter| letter["replayed_as"] != Value::Null);
    assert_eq!(json!(replayed.count()), json!(dead));
    ingest.0.terminate().ok();
}
