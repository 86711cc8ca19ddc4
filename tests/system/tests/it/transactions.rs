//! A transactional producer writes to the topic of events: markers and aborted messages are no losses, and what an open
//! transaction holds back is reported.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::{EVENTS, Place};
use crate::{TEST_TIMEOUT, wait_until};

/// Messages of one transaction.
const MESSAGES: i64 = 5;

fn transactional(place: &Place) -> BaseProducer {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", place.brokers()).set("transactional.id", "by-mistake");
    let producer: BaseProducer = client.create().unwrap();
    producer.init_transactions(TEST_TIMEOUT).unwrap();
    producer
}

/// Begins a transaction with messages that no reader can decode in partition 0.
fn begin(producer: &BaseProducer) {
    producer.begin_transaction().unwrap();
    for number in 0..MESSAGES {
        let payload = format!("not one of ours: {number}");
        producer.send(BaseRecord::<(), str>::to(EVENTS).partition(0).payload(&payload)).unwrap();
    }
    producer.flush(TEST_TIMEOUT).unwrap();
}

#[test]
fn committed_aborted_and_open_transactions_do_not_stop_ingest_and_are_not_losses() {
    let _alone = alone();
    let place = Place::local();
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    let producer = transactional(&place);
    let mut all = Fleet::send(&place, 4, 10_000, 1);
    begin(&producer);
    producer.commit_transaction(TEST_TIMEOUT).unwrap();
    all = all.and(&Fleet::send(&place, 4, 10_000, 2));
    begin(&producer);
    producer.abort_transaction(TEST_TIMEOUT).unwrap();
    // Nothing follows the marker of the abort.
    place.wait_for_no_lag(&[&ingest]);
    place.assert_audit_holds();

    begin(&producer);
    let behind = Fleet::send(&place, 4, 10_000, 3);
    let undecided = || ingest.metric("causeway_ingest_undecided_offsets", &["partition=\"0\""]).unwrap_or(0.0);
    wait_until("the open transaction is reported", || undecided() > MESSAGES as f64);
    wait_until("what can be read has landed", || ingest.commits("silver.events") > 2);
    place.assert_audit_holds();
    producer.abort_transaction(TEST_TIMEOUT).unwrap();
    place.wait_for_no_lag(&[&ingest]);
    wait_until("nothing is undecided", || undecided() == 0.0);
    all = all.and(&behind);

    let skipped = ingest.metric("causeway_ingest_skipped_offsets_total", &[]).unwrap();
    assert_eq!(skipped, (3 + 2 * MESSAGES) as f64, "three markers, two aborted transactions");
    assert_eq!(ingest.metric("causeway_ingest_gap_offsets_total", &[]), Some(0.0));
    ingest.0.terminate().ok();
    // Also after a start, with what was skipped behind it.
    let ingest = Ingest::start(&place);
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), all.expected);
    let ids = ["--id", "log_name,log_partition,log_offset", "--group", "log_name", "--sum", "log_offset"];
    assert_eq!(place.oracle("bronze.messages", &ids).rows, all.messages + MESSAGES as u64);
    let by_status = ["--id", "log_name,log_partition,log_offset", "--group", "status", "--sum", "skipped_offsets"];
    let ledger = place.oracle("ops.ledger", &by_status);
    assert_eq!(ledger.sum, i128::from(3 + 2 * MESSAGES));
    assert_eq!(ledger.groups["dead_letter"], MESSAGES as u64);
}
