//! A log that takes the place of another under the same name: not a message of it lands as one of the former log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ingest::OnNewLog;
use lake::TableReader;
use stream::{SourceError, SourceEvent};

use super::*;

/// What comes into the new log, and where reading stood in the old one.
const NEW_MESSAGES: i64 = 10;
const OLD_MESSAGES: i64 = 3;

fn at() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn options(on_new_log: OnNewLog, until: Until) -> Options {
    Options {
        until,
        commit_interval: Duration::from_millis(5),
        idle_commit_interval: Duration::from_millis(50),
        on_new_log,
        ..Options::default()
    }
}

/// The place of the new log, with messages of `node` from number 0 on.
fn new_log(place: &Place, node: &str) -> PathBuf {
    let spool = place.dir.path().join("anew");
    let messages: Vec<_> = (0..NEW_MESSAGES).map(|i| message(node, i * 5, 5)).collect();
    append(&mut writer(&spool, 0), &messages);
    spool
}

/// Reads the old log to its end, and on when it is replaced; returns once ingest ends, or the new log has landed.
async fn read_while_it_is_replaced(
    place: &Arc<Place>,
    anew: &Path,
    on_new_log: OnNewLog,
) -> Result<Summary, IngestError> {
    let messages: Vec<_> = (0..OLD_MESSAGES).map(|i| message("a", i * 5, 5)).collect();
    append(&mut writer(&place.spool(), 0), &messages);
    let log = Staged::new(place.spool(), topics::READ);
    let (successor, drain) = (Arc::clone(&log.successor), Drain::new());
    let running = tokio::spawn({
        let (place, drain) = (Arc::clone(place), drain.clone());
        async move { place.ingest_from(Box::new(log), options(on_new_log, Until::Drained), drain).await }
    });
    wait_for(place, &at(), OLD_MESSAGES).await;
    *successor.lock().unwrap() = Some(anew.to_owned());
    if on_new_log == OnNewLog::Follow {
        wait_for(place, &at().of_generation(2), NEW_MESSAGES).await;
        drain.cancel();
    }
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("ingest ends").unwrap()
}

/// Waits until `bronze.messages` holds a log up to an offset.
async fn wait_for(place: &Place, at: &TopicPartition, next: i64) {
    let reached = async {
        let bronze = table(place, "bronze", "messages").await;
        while bronze.offsets().await.ok().and_then(|offsets| offsets.get(at).copied()) != Some(NextOffset(next)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("{at} up to {next}"));
}

/// Reads the new log from a fresh start.
async fn follow(place: &Place, anew: &Path) -> Summary {
    let log = Box::new(LogSource::new(anew.to_owned(), topics::READ));
    place.ingest_from(log, options(OnNewLog::Follow, Until::CaughtUp), Drain::new()).await.unwrap()
}

async fn table(place: &Place, namespace: &str, name: &str) -> TableReader {
    place.lake().await.table(namespace, name)
}

/// The topics in `bronze.messages`, each with its number of messages.
async fn messages_by_topic(place: &Place) -> Vec<(String, usize)> {
    let rows = place.rows("bronze", "messages").await;
    let column =
        arrow::compute::cast(rows.column_by_name("log_name").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
    let mut topics = std::collections::BTreeMap::<String, usize>::new();
    for topic in column.as_string::<i32>().iter().flatten() {
        *topics.entry(topic.to_owned()).or_default() += 1;
    }
    topics.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_replaced_while_it_is_read_ends_ingest_before_any_of_it_lands() {
    let place = Arc::new(Place::new());
    let anew = new_log(&place, "b");
    let refused = read_while_it_is_replaced(&place, &anew, OnNewLog::Stop).await.unwrap_err();
    let refused = service_kit::run::report(&refused);
    assert!(refused.contains("causeway.events.v1/0 is another log"), "{refused}");
    assert!(refused.contains("`ingest.on_new_log = \"follow\"`"), "{refused}");
    assert_eq!(place.longs("bronze", "messages", "log_offset").await, (0..OLD_MESSAGES).collect::<Vec<_>>());
    assert_eq!(place.longs("silver", "events", "seq").await, (0..OLD_MESSAGES * 5).collect::<Vec<_>>());

    // The way on: what has landed stays, and nothing of the new log is missed.
    let summary = follow(&place, &anew).await;
    assert_eq!((summary.messages, summary.rows), (10, 50));
    let expected = [(TOPIC.to_owned(), 3), (format!("{TOPIC}@2"), 10)];
    assert_eq!(messages_by_topic(&place).await, expected);
    for table_of in tables::registry::all() {
        let name = table_of.def.name;
        let offsets = table(&place, name.namespace, name.name).await.offsets().await.unwrap();
        assert_eq!(offsets[&at()], NextOffset(OLD_MESSAGES), "{name}");
        assert_eq!(offsets[&at().of_generation(2)], NextOffset(NEW_MESSAGES), "{name}");
    }
    assert_eq!(follow(&place, &anew).await, Summary::default(), "the new log is known now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_replaced_while_it_is_read_is_followed_from_its_oldest_message_on() {
    let place = Arc::new(Place::new());
    let anew = new_log(&place, "b");
    let summary = read_while_it_is_replaced(&place, &anew, OnNewLog::Follow).await.unwrap();
    assert_eq!((summary.messages, summary.rows), (13, 65));
    assert_eq!(messages_by_topic(&place).await, [(TOPIC.to_owned(), 3), (format!("{TOPIC}@2"), 10)]);
    assert_eq!(place.rows("silver", "events").await.num_rows(), 15 + 50);
}

/// A log that is restored from a copy carries what has landed from the former one.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_new_log_repeats_of_the_old_one_lands_once() {
    let place = Arc::new(Place::new());
    let anew = new_log(&place, "a");
    let summary = read_while_it_is_replaced(&place, &anew, OnNewLog::Follow).await.unwrap();
    assert_eq!((summary.messages, summary.rows, summary.duplicate_rows), (13, 50, 15));
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
    append(&mut writer(&anew, 0), &[message("a", 5, 5), message("a", 50, 5)]);
    let summary = follow(&place, &anew).await;
    assert_eq!((summary.rows, summary.duplicate_rows), (5, 5), "also after a restart");
}

/// Retention has deleted the beginning of the new log: where it begins is recorded, and what is known of the former log is kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_new_log_repeats_lands_once_although_its_oldest_messages_are_gone() {
    let place = Place::new();
    let messages: Vec<_> = (0..NEW_MESSAGES).map(|i| message("a", i * 5, 5)).collect();
    append(&mut writer(&place.spool(), 0), &messages[..OLD_MESSAGES as usize]);
    place.ingest().await.unwrap();
    let anew = place.dir.path().join("anew");
    let options = LogOptions { segment_bytes: 200, ..LogOptions::default() };
    let mut log = LogWriter::open(&anew, &at(), options).unwrap();
    append(&mut log, &messages);
    log.delete_below(NextOffset(2)).unwrap();
    drop(log);
    let summary = follow(&place, &anew).await;
    assert_eq!((summary.messages, summary.rows, summary.duplicate_rows), (8, 35, 5));
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
}

/// Kafka refuses a position of the old log before anybody has asked which log is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_refused_because_the_log_was_replaced_ends_nothing() {
    let place = Arc::new(Place::new());
    let anew = new_log(&place, "b");
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5), message("a", 5, 5), message("a", 10, 5)]);
    let (refuse, drain) = (Arc::new(AtomicBool::new(false)), Drain::new());
    let mut log = Staged::new(place.spool(), topics::READ);
    let is_refused = Arc::clone(&refuse);
    log.poll = Box::new(move |log, timeout, max_bytes| {
        if is_refused.swap(false, Ordering::Relaxed) { Err(SourceError::Refused) } else { log.poll(timeout, max_bytes) }
    });
    let successor = Arc::clone(&log.successor);
    let running = tokio::spawn({
        let (place, drain) = (Arc::clone(&place), drain.clone());
        async move { place.ingest_from(Box::new(log), options(OnNewLog::Follow, Until::Drained), drain).await }
    });
    wait_for(&place, &at(), OLD_MESSAGES).await;
    *successor.lock().unwrap() = Some(anew);
    refuse.store(true, Ordering::Relaxed);
    wait_for(&place, &at().of_generation(2), NEW_MESSAGES).await;
    drain.cancel();
    assert_eq!(running.await.unwrap().unwrap().messages, 13);
}

/// A topic that is deleted is revoked before anybody knows why: what was read of it is nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_of_a_partition_lands_when_it_is_revoked() {
    let place = Arc::new(Place::new());
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5), message("a", 5, 5)]);
    let mut log = Staged::new(place.spool(), topics::READ);
    let mut read: Option<Instant> = None;
    log.poll = Box::new(move |log, timeout, max_bytes| {
        // Long enough for the identity of the log to be asked for.
        if read.is_some_and(|read| read.elapsed() > Duration::from_millis(300)) {
            read = None;
            return Ok(SourceEvent::Revoked(vec![at()]));
        }
        let event = log.poll(timeout, max_bytes)?;
        if matches!(event, SourceEvent::Messages(_)) {
            read = Some(Instant::now());
        }
        Ok(event)
    });
    let drain = Drain::new();
    let running = tokio::spawn({
        let (place, drain) = (Arc::clone(&place), drain.clone());
        let hour = Duration::from_secs(3_600);
        let options = Options { commit_interval: hour, idle_commit_interval: hour, ..Options::default() };
        async move { place.ingest_from(Box::new(log), options, drain).await }
    });
    wait_for(&place, &at(), 2).await;
    drain.cancel();
    assert_eq!(running.await.unwrap().unwrap().rows, 10);
}

/// As after a crash between the commits of two tables: one misses the end of a log that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_misses_the_end_of_the_old_log_records_a_gap() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    place.ingest().await.unwrap();
    let mut catalog = catalog(&place).await;
    let older = pointer(&mut catalog).await;
    append(&mut writer(&place.spool(), 0), &[message("a", 5, 5)]);
    place.ingest().await.unwrap();
    set_pointer(&mut catalog, &older).await;
    follow(&place, &new_log(&place, "b")).await;
    let events = table(&place, "silver", "events").await.snapshot().await.unwrap();
    assert_eq!(events.gaps(), [OffsetRange::new(at(), 1, 2)]);
    assert_eq!((events.offsets()[&at()], events.offsets()[&at().of_generation(2)]), (NextOffset(2), NextOffset(10)));
    let bronze = table(&place, "bronze", "messages").await.snapshot().await.unwrap();
    assert_eq!(bronze.gaps(), []);
    assert_eq!(place.rows("silver", "events").await.num_rows(), 5 + 50);
}

/// The former owner of the partition lands its last messages in one more table while the new log waits to be read.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_member_lands_late_of_the_old_log_is_waited_for_and_known_in_the_new_one() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    place.ingest().await.unwrap();
    let mut catalog = catalog(&place).await;
    let older = pointer(&mut catalog).await;
    append(&mut writer(&place.spool(), 0), &[message("a", 5, 5)]);
    place.ingest().await.unwrap();
    let newer = pointer(&mut catalog).await;
    set_pointer(&mut catalog, &older).await;

    let readiness = Readiness::new();
    let options = Options { former_owner: Duration::from_secs(3), ..options(OnNewLog::Follow, Until::CaughtUp) };
    let ingest = place.open(options, &readiness).await.unwrap();
    let log = LogSource::new(new_log(&place, "a"), topics::READ);
    let running = tokio::spawn(async move { ingest.run(Box::new(log), Drain::new()).await });
    let shown = async {
        while !readiness.unmet().iter().any(|(name, reason)| &**name == "log" && reason.contains("another member")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), shown).await.unwrap_or_else(|_| panic!("{:?}", readiness.unmet()));
    set_pointer(&mut catalog, &newer).await;
    let summary = tokio::time::timeout(Duration::from_secs(60), running).await.expect("ingest ends").unwrap().unwrap();
    assert_eq!((summary.messages, summary.rows, summary.duplicate_rows), (10, 40, 10));
    assert_eq!(table(&place, "silver", "events").await.snapshot().await.unwrap().gaps(), []);
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
    assert!(readiness.unmet().iter().all(|(name, _)| &**name != "log"), "{:?}", readiness.unmet());
}

/// Only `bronze.messages` remembers a log: it holds the first offsets of one at once, whatever they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_with_offsets_without_a_message_is_remembered_at_once() {
    let place = Arc::new(Place::new());
    drop(writer(&place.spool(), 0));
    let mut log = Staged::new(place.spool(), topics::READ);
    let started = Arc::new(AtomicBool::new(false));
    let is_started = Arc::clone(&started);
    log.start = Box::new(move |log, positions| {
        is_started.store(true, Ordering::Relaxed);
        log.start(positions)
    });
    log.poll = Box::new(move |log, timeout, max_bytes| {
        if started.swap(false, Ordering::Relaxed) {
            return Ok(SourceEvent::Skipped(OffsetRange::new(at(), 0, 2)));
        }
        log.poll(timeout, max_bytes)
    });
    let drain = Drain::new();
    let running = tokio::spawn({
        let (place, drain) = (Arc::clone(&place), drain.clone());
        let options = Options { idle_commit_interval: Duration::from_secs(3_600), ..Options::default() };
        async move { place.ingest_from(Box::new(log), options, drain).await }
    });
    wait_for(&place, &at(), 2).await;
    drain.cancel();
    running.await.unwrap().unwrap();
}

async fn catalog(place: &Place) -> sqlx::SqliteConnection {
    use sqlx::Connection;
    let path = place.dir.path().join("catalog.sqlite");
    sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap()
}

/// Where the newest metadata of `silver.events` is.
async fn pointer(catalog: &mut sqlx::SqliteConnection) -> String {
    let find =
        "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = 'silver' AND table_name = 'events'";
    sqlx::query_scalar(find).fetch_one(catalog).await.unwrap()
}

async fn set_pointer(catalog: &mut sqlx::SqliteConnection, location: &str) {
    let set =
        "UPDATE iceberg_tables SET metadata_location = ? WHERE table_namespace = 'silver' AND table_name = 'events'";
    sqlx::query(set).bind(location).execute(catalog).await.unwrap();
}
