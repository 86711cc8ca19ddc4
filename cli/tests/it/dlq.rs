//! Messages that an older version did not decode go to the log once more, and land once.

use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use event_schema::batch::{Event, EventRows, MeasuredDuration};
use event_schema::catalog::Op;
use event_schema::clock::Beacon;
use event_schema::kind::RecordKind;
use event_schema::loss::LossCounters;
use event_schema::position::{Message, OffsetRange, TopicPartition};
use event_schema::stream::Stream;
use event_schema::topics;
use event_schema::wire::{HeaderDraft, encode};
use lake::{CommitOutcome, CommitRequest, Lake as Tables, LakeOptions, Token};
use serde_json::{Value, json};
use stream::log::{LogOptions, LogWriter};
use tables::arrival::{Arrival, Rejection};
use tables::registry;
use tables::seen::Seen;

use crate::bench::block_on;
use crate::run::{Lake, Said, causeway};

const NEWER: &str = "causeway.events.v1/0@1";
const DAMAGED: &str = "causeway.events.v1/0@3";

/// Events of the node `n` with the numbers from `first_seq` on.
fn events(first_seq: i64, rows: i64) -> Bytes {
    let mut events = EventRows::new();
    for i in first_seq..first_seq + rows {
        let event = Event {
            boot_ns: i * 1_000,
            duration: Some(MeasuredDuration::of_each(i)),
            sample_weight: 1.0,
            ..Event::default()
        };
        events.push(&event.with_op(Op::CudaLaunchKernel));
    }
    let draft = HeaderDraft {
        kind: RecordKind::Event,
        cluster: "c".into(),
        node: "n".into(),
        boot_id: "0123456789".into(),
        epoch: 0,
        stream: Stream::Data,
        beacon: Beacon { boot_ns: 0, wall_ns: 1_763_000_000_000_000_000, error_ns: 1 },
        losses: LossCounters { emitted: rows as u64, ..LossCounters::default() },
        agent: "test".into(),
    };
    encode(&draft, first_seq, &events.finish().unwrap()).unwrap()
}

/// A lake whose ingest was of a version that did not know the wire version of the second message. The fourth is damaged.
fn left_by_an_older_version() -> Lake {
    let lake = Lake::new();
    let mut damaged = events(15, 5).to_vec();
    damaged[40] ^= 1;
    let payloads = [events(0, 5), events(5, 5), events(10, 5), Bytes::from(damaged)];
    let at = TopicPartition::new(topics::EVENTS, 0);
    let mut log = LogWriter::open(&lake.path().join("spool"), &at, LogOptions::default()).unwrap();
    let mut seen = Seen::new();
    let mut arrivals = Vec::new();
    for (offset, payload) in payloads.into_iter().enumerate() {
        let key = Bytes::from_static(b"n\x1b[31m");
        log.append(Some(&key), &payload, 1_763_000_000_000).unwrap();
        let (offset, headers) = (offset as i64, Vec::new());
        let message =
            Message { at: at.clone(), offset, timestamp_ms: 1_763_000_000_000, key: Some(key), payload, headers };
        let mut arrival = Arrival::decode(message, 1_763_000_000_000_000 + offset);
        if offset == 1 {
            let detail = "the message has wire version 2, this build reads versions up to 1".to_owned();
            arrival.outcome = Err(Rejection { cause: "unknown_version", detail });
        }
        arrivals.push(arrival.admit(&mut seen));
    }
    log.sync().unwrap();
    block_on(land(&lake.path(), OffsetRange::new(at, 0, arrivals.len() as i64), &arrivals));
    lake
}

async fn land(dir: &Path, range: OffsetRange, arrivals: &[Arrival]) {
    let dir = dir.display();
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{dir}/catalog.sqlite"),
        warehouse: format!("{dir}/warehouse"),
        s3: None,
    };
    let lake = Tables::open(options).await.unwrap();
    for table in registry::all() {
        let handle = lake.ensure_table(&table.def).await.unwrap();
        let files = handle.write(&table.rows(&arrivals.iter().collect::<Vec<_>>()).unwrap()).await.unwrap();
        let landed = handle.commit(CommitRequest::new(vec![range.clone()], Token::random(), files)).await;
        assert!(matches!(landed, CommitOutcome::Committed(_)), "{landed:?}");
    }
}

fn dlq(lake: &Lake, args: &[&str]) -> Said {
    let mut command = causeway(&["dlq"]);
    command.args(args).arg("--data").arg(lake.path());
    Said::of(command.output().unwrap())
}

/// The outcomes of a replay, by message.
fn outcomes(said: &Said) -> Vec<(String, String)> {
    let document = said.json();
    let outcomes = document["messages"].as_array().unwrap().iter().map(|message| {
        (message["message"].as_str().unwrap().to_owned(), message["outcome"].as_str().unwrap().to_owned())
    });
    outcomes.collect()
}

fn of(outcomes: &[(&str, &str)]) -> Vec<(String, String)> {
    outcomes.iter().map(|(message, outcome)| ((*message).to_owned(), (*outcome).to_owned())).collect()
}

/// What the audit counts, where it finds everything in order.
#[track_caller]
fn counted(lake: &Lake) -> (Value, Value) {
    let document = lake.audit().ok().json();
    (document["messages"].clone(), document["rows"].clone())
}

#[test]
fn a_message_that_this_version_decodes_lands_once_however_often_it_is_replayed() {
    let lake = left_by_an_older_version();
    let audit = lake.audit();
    assert_eq!(audit.code, 1, "the rows of the dead letter are missing: {}", audit.out);

    let dry = dlq(&lake, &["replay", "--all", "--dry-run", "--json"]);
    assert_eq!((dry.code, outcomes(&dry)), (1, of(&[(NEWER, "sent"), (DAMAGED, "refused")])), "{}", dry.err);
    assert_eq!(lake.audit().code, 1, "a dry run sends nothing");

    let sent = dlq(&lake, &["replay", "--all", "--json"]);
    assert_eq!((sent.code, outcomes(&sent)), (1, of(&[(NEWER, "sent"), (DAMAGED, "refused")])), "{}", sent.err);
    assert_eq!(sent.json()["messages"][1]["cause"], "bad_checksum");
    assert_eq!(counted(&lake), (json!(5), json!(15)));

    for args in [&["replay", NEWER, "--json"][..], &["replay", NEWER, "--dry-run", "--json"]] {
        let again = dlq(&lake, args).ok();
        assert_eq!(outcomes(&again), of(&[(NEWER, "replayed")]));
        assert!(again.json()["messages"][0]["replayed_as"].as_str().unwrap().starts_with("causeway.events.v1/"));
    }
    let rest = dlq(&lake, &["replay", "--all", "--json"]);
    assert_eq!((rest.code, outcomes(&rest)), (1, of(&[(DAMAGED, "refused")])));
    assert_eq!(counted(&lake), (json!(5), json!(15)));

    let list = dlq(&lake, &["list", "--json"]).ok().json();
    assert!(list[0]["replayed_as"].is_string() && list[1]["replayed_as"].is_null(), "{list}");
    let up = lake.up(&[]);
    assert_eq!(up.csv("SELECT count(*) AS n, count(DISTINCT event_id) AS ids FROM silver.events"), "n,ids\n15,15\n");
    let header = up.csv("SELECT headers FROM bronze.messages WHERE headers IS NOT NULL");
    assert!(header.contains("causeway.replay-of"), "{header}");
}

#[test]
fn two_replays_at_once_send_a_message_once_also_while_a_server_lands_it() {
    let lake = left_by_an_older_version();
    let up = lake.up(&[]);
    let mut running = Vec::new();
    for _ in 0..3 {
        let mut command = causeway(&["dlq", "replay", NEWER, "--json", "--data"]);
        command.arg(lake.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push(command.spawn().unwrap());
    }
    let mut found: Vec<String> = Vec::new();
    for child in running {
        let said = Said::of(child.wait_with_output().unwrap()).ok();
        found.push(outcomes(&said).remove(0).1);
    }
    found.sort();
    assert_eq!(found, ["replayed", "replayed", "sent"]);
    up.stop().ok();
    assert_eq!(counted(&lake), (json!(5), json!(15)));
}

#[test]
fn dead_letters_are_listed_and_shown_without_what_a_terminal_would_obey() {
    let lake = left_by_an_older_version();
    let text = dlq(&lake, &["list"]).ok().out;
    for part in [NEWER, DAMAGED, "unknown_version", "bad_checksum", "2025-11-13T02:13:20.000Z"] {
        assert!(text.contains(part), "{text}");
    }
    let some = dlq(&lake, &["list", "--cause", "bad_checksum", "--json"]).ok().json();
    assert_eq!((some.as_array().unwrap().len(), &some[0]["offset"]), (1, &json!(3)), "{some}");
    assert_eq!(dlq(&lake, &["list", "--since", "1h"]).ok().out, "no dead letters\n");

    let shown = dlq(&lake, &["show", NEWER]).ok().out;
    for part in ["cause:     unknown_version", "wire version 2", "key:       0x6e1b5b33316d", "43 53 57 59", "|CSWY"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let whole = dlq(&lake, &["show", NEWER, "--json"]).ok().json();
    let hexadecimal: String = events(5, 5).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&whole["payload"], &whole["headers"]), (&json!(hexadecimal), &json!([])));
}

#[test]
fn what_is_no_dead_letter_is_refused_by_name_and_nothing_is_sent() {
    let lake = left_by_an_older_version();
    for (args, code, part) in [
        (&["replay", "causeway.events.v1/0@0"][..], 1, "causeway.events.v1/0@0 is no dead letter: `causeway dlq list`"),
        (&["show", "causeway.events.v1/1@1"], 1, "causeway.events.v1/1@1 is no dead letter"),
        (&["replay", "causeway.events.v1@1"], 2, "write LOG/PARTITION@OFFSET"),
        (&["replay"], 2, "required"),
        (&["replay", NEWER, "--all"], 2, "cannot be used with"),
        (&["list", "--since", "soon"], 2, "`soon` is not a time"),
    ] {
        let refused = dlq(&lake, args);
        assert_eq!(refused.code, code, "{args:?}: {}", refused.err);
        assert!(refused.err.contains(part), "{args:?}: {}", refused.err);
    }
    assert_eq!(dlq(&Lake::new(), &["list"]).code, 1, "there is no lake");
    assert_eq!(lake.audit().code, 1, "nothing was sent");
}

/// The rows of the dead letter came by another message, as when its agent sent the batch again.
#[test]
fn a_dead_letter_whose_rows_have_landed_from_another_message_is_not_sent() {
    let lake = left_by_an_older_version();
    let at = TopicPartition::new(topics::EVENTS, 0);
    let mut log = LogWriter::open(&lake.path().join("spool"), &at, LogOptions::default()).unwrap();
    log.append(Some(b"n"), &events(5, 5), 1_763_000_000_000).unwrap();
    log.sync().unwrap();
    drop(log);
    let said = dlq(&lake, &["replay", NEWER, "--json"]).ok();
    assert_eq!(outcomes(&said), of(&[(NEWER, "landed")]));
    assert_eq!(counted(&lake), (json!(5), json!(15)));
}
