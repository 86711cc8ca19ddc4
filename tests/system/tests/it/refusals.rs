//! Ingest reports a wrong configuration in one message, soon, and without a secret; the events are still there afterwards.

use std::time::Duration;

use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::Place;
use crate::program::{Program, Said};
use crate::wait_until;

/// Well above every timeout of ours.
const SOON: Duration = Duration::from_secs(60);

fn ingest_with(place: &Place, settings: &[&str]) -> Said {
    let mut command = place.command("causeway-ingest");
    command.args(["--log", "off"]).args(settings.iter().flat_map(|setting| ["--set", setting]));
    Program::start(command).end(SOON)
}

#[test]
fn a_wrong_address_password_bucket_or_topic_is_named_and_nothing_is_lost() {
    let _alone = alone();
    let place = Place::remote(4);
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    ingest.0.terminate().ok();
    let fleet = Fleet::start(&place, 2, 2_000, 1);
    wait_until("messages are in Kafka", || place.messages_in_kafka() > 20);
    let account = fleet.stop();

    let wrong = place.postgres().env("DATABASE_URL").replace("causeway-secret", "wrong-secret");
    let empty = format!("catalog.uri=sqlite://{}", place.dir("empty.sqlite").display());
    let absent = ["kafka.topics=causeway.absent", "ingest.topic_partitions=0"];
    for (settings, message) in [
        (&["kafka.brokers=127.0.0.1:1"][..], "no kafka broker answered at 127.0.0.1:1 within 10s"),
        (&[&*format!("catalog.uri={wrong}")], "password authentication failed"),
        (&[&*empty, "store.warehouse=s3://absent/warehouse"], "NoSuchBucket"),
        (&["store.warehouse=s3://absent/warehouse"], "lies outside the warehouse s3://absent/warehouse"),
        (&absent, "topic causeway.absent does not exist"),
    ] {
        let said = ingest_with(&place, settings);
        eprintln!("{}", said.err);
        assert_eq!(said.code, Some(1), "{settings:?}: {}", said.err);
        assert!(said.err.starts_with("error: ") && said.err.contains(message), "{settings:?}: {}", said.err);
        assert!(!said.err.contains("-secret"), "{}", said.err);
    }

    let ingest = Ingest::start(&place);
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}
