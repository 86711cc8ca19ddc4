//! What becomes of messages that belong elsewhere and are read again; no broker is there.

use std::collections::BTreeMap;
use std::time::Duration;

use event_schema::position::{Message, TopicPartition};
use lake::{Lake, LakeOptions};
use prometheus_client::registry::Registry;
use service_kit::admin::Readiness;
use stream::kafka::KafkaConfig;
use tables::registry::find;

use super::*;
use crate::batch::Budget;
use crate::metrics::Metrics;
use crate::room::Room;
use crate::share::Share;
use crate::sink::Sink;
use crate::table_task::Pace;

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn stray(offset: i64) -> Charged {
    let (key, payload, headers) = (None, bytes::Bytes::from_static(b"x"), Vec::new());
    let message = Message { at: at(), offset, timestamp_ms: 0, key, payload, headers };
    Charged::new(Arrival::decode(message, 0).forward(TopicPartition::new("t", 1)), &Budget::new(1 << 20))
}

/// The task of a ledger that holds the partition up to an offset.
async fn ledger(lake: &Lake, next: i64, abandoned: &Drain) -> TableTasks {
    let table = find("ops", "ledger").unwrap();
    let handle = lake.ensure_table(&table.def).await.unwrap();
    let (reachable, metrics) = (Readiness::new().condition("t", ""), Metrics::new(&mut Registry::default()));
    let sink = Sink::new(table, handle, reachable, Room::new(1 << 20), metrics);
    sink.standing().take_over(&[at()]).await.unwrap();
    sink.land(&Share::up_to(BTreeMap::from([(at(), NextOffset(next))]), Vec::new())).await.unwrap();
    let pace = Pace { commit_interval: Duration::ZERO, idle_commit_interval: Duration::ZERO };
    TableTasks::start(vec![sink], pace, abandoned).0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_holds_of_a_message_that_belongs_elsewhere_is_not_decided_anew() {
    let dir = tempfile::tempdir().unwrap();
    let options = LakeOptions {
        catalog_uri: format!("sqlite://{}/catalog.sqlite", dir.path().display()),
        warehouse: format!("{}/warehouse", dir.path().display()),
        s3: None,
    };
    let abandoned = Drain::new();
    let tables = ledger(&Lake::open(options).await.unwrap(), 5, &abandoned).await;
    let kafka =
        KafkaConfig { brokers: "127.0.0.1:1".to_owned(), topics: vec!["t".to_owned()], ..KafkaConfig::default() };
    let (reachable, metrics) = (Readiness::new().condition("t", ""), Metrics::new(&mut Registry::default()));
    let forwarder = Some(Arc::new(Forwarder::new(kafka, reachable, metrics)));
    let forward = Forward { forwarder, refused: Places::from([(at(), 3)]) };
    let mut batch = Batch { arrivals: vec![stray(3), stray(4)], ..Batch::default() };
    let refused = forward.strays_of(&mut batch, &tables, &abandoned);
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await.expect("no broker is asked").unwrap();
    abandoned.cancel();
    assert_eq!(refused.iter().map(|arrival| arrival.message.offset).collect::<Vec<_>>(), [3]);
    let [dead, forwarded] = &batch.arrivals[..] else { panic!("{batch:?}") };
    assert!(dead.arrival.forwarded_to.is_none());
    assert!(dead.arrival.outcome.as_ref().is_err_and(|dead| dead.cause == NOT_FORWARDED));
    assert_eq!(forwarded.arrival.forwarded_to, Some(TopicPartition::new("t", 1)));
}
