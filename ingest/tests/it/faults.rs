//! What ingest does when the log has lost something, and when the store is away.

use std::process::Command;

use ingest::OnGap;
use sqlx::{Connection, Executor};
use stream::kafka::KafkaConfig;
use stream::{Source, SourceEvent};

use super::*;

/// A log of ten messages with five rows each, of which retention has deleted the first `deleted`.
fn log_without(place: &Place, deleted: i64) {
    // Each message in a segment of its own: segments are what retention deletes.
    let options = LogOptions { segment_bytes: 200, ..LogOptions::default() };
    let mut log = LogWriter::open(&place.spool(), &at(), options).unwrap();
    let messages: Vec<_> = (0..10).map(|i| message("a", i * 5, 5)).collect();
    append(&mut log, &messages);
    log.delete_below(NextOffset(deleted)).unwrap();
    assert_eq!(log.watermarks().low, NextOffset(deleted));
}

fn at() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

fn until_caught_up(on_gap: OnGap) -> Options {
    Options { until: Until::CaughtUp, on_gap, ..Options::default() }
}

/// The gaps and the next offset that every table has.
async fn assert_tables_tell(place: &Place, gap: (i64, i64), next: i64) {
    let lake = place.lake().await;
    for table in tables::registry::all() {
        let name = table.def.name;
        let snapshot = lake.table(name.namespace, name.name).snapshot().await.unwrap();
        assert_eq!(snapshot.gaps(), [OffsetRange::new(at(), gap.0, gap.1)], "{name}");
        assert_eq!(snapshot.offsets()[&at()], NextOffset(next), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_never_seen_before_is_read_from_its_oldest_message_and_the_gap_is_told() {
    let place = Place::new();
    log_without(&place, 4);
    let summary = place.ingest_with(until_caught_up(OnGap::Stop)).await.unwrap();
    assert_eq!((summary.messages, summary.rows), (6, 30));
    assert_eq!(place.longs("silver", "events", "seq").await, (20..50).collect::<Vec<_>>());
    assert_tables_tell(&place, (0, 4), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overtook_the_tables_stops_ingest_until_the_gap_may_be_recorded() {
    let place = Place::new();
    {
        let mut log = LogWriter::open(&place.spool(), &at(), LogOptions::default()).unwrap();
        append(&mut log, &[message("a", 0, 5), message("a", 5, 5)]);
    }
    place.ingest().await.unwrap();
    let mut log =
        LogWriter::open(&place.spool(), &at(), LogOptions { segment_bytes: 200, ..LogOptions::default() }).unwrap();
    let more: Vec<_> = (2..10).map(|i| message("a", i * 5, 5)).collect();
    append(&mut log, &more);
    log.delete_below(NextOffset(6)).unwrap();

    let refused = place.ingest_with(until_caught_up(OnGap::Stop)).await.unwrap_err().to_string();
    assert!(refused.contains("deleted 4 messages of causeway.events.v1/0"), "{refused}");
    assert!(refused.contains("`ingest.on_gap = \"record\"`"), "{refused}");
    assert_eq!(place.longs("silver", "events", "seq").await, (0..10).collect::<Vec<_>>(), "nothing was skipped");

    let summary = place.ingest_with(until_caught_up(OnGap::Record)).await.unwrap();
    assert_eq!(summary.rows, 20);
    let rest = (0..10).chain(30..50).collect::<Vec<_>>();
    assert_eq!(place.longs("silver", "events", "seq").await, rest);
    assert_tables_tell(&place, (2, 6), 10).await;
    let again = place.ingest_with(until_caught_up(OnGap::Stop)).await.unwrap();
    assert_eq!(again, Summary::default(), "a recorded gap is no gap any more");
}

/// A log that is read one message at a time, and of which retention deletes all below the seventh once the third was read.
fn overtaken_while_read(place: &Place) -> Staged {
    let options = LogOptions { segment_bytes: 200, ..LogOptions::default() };
    let mut writer = LogWriter::open(&place.spool(), &at(), options).unwrap();
    let mut read = 0;
    let poll = move |log: &mut LogSource, timeout, _| {
        let event = log.poll(timeout, 1)?;
        if matches!(event, SourceEvent::Messages(_)) {
            read += 1;
            if read == 3 {
                writer.delete_below(NextOffset(7)).unwrap();
            }
        }
        Ok(event)
    };
    Staged { poll: Box::new(poll), ..Staged::new(place.spool(), topics::READ) }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overtakes_a_running_reader_is_recorded_behind_what_was_read() {
    for on_gap in [OnGap::Stop, OnGap::Record] {
        let place = Place::new();
        log_without(&place, 0);
        let log = Box::new(overtaken_while_read(&place));
        let ended = place.ingest_from(log, until_caught_up(on_gap), Drain::new()).await;
        match on_gap {
            OnGap::Stop => assert!(ended.unwrap_err().to_string().contains("deleted 4 messages")),
            OnGap::Record => {
                assert_eq!(ended.unwrap().messages, 6);
                assert_tables_tell(&place, (3, 7), 10).await;
                let rest = (0..15).chain(35..50).collect::<Vec<_>>();
                assert_eq!(place.longs("silver", "events", "seq").await, rest);
            }
        }
    }
}

/// A file beside the segments of the spool's first partition.
fn beside_the_log(place: &Place, name: &str) -> PathBuf {
    place.spool().join(TOPIC).join("0").join(name)
}

/// As after a kill between append and sync: they cannot be read before a writer has opened the spool again.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_never_synced_are_not_waited_for() {
    let place = Place::new();
    let mut log = writer(&place.spool(), 0);
    append(&mut log, &[message("a", 0, 5)]);
    let mark = beside_the_log(&place, "high-watermark");
    let older = std::fs::read(&mark).unwrap();
    append(&mut log, &[message("a", 5, 5)]);
    drop(log);
    std::fs::write(&mark, older).unwrap();
    let caught_up = tokio::time::timeout(Duration::from_secs(30), place.ingest());
    assert_eq!(caught_up.await.expect("ingest ends").unwrap().rows, 5);
    drop(writer(&place.spool(), 0));
    assert_eq!(place.ingest().await.unwrap().rows, 5);
    assert_eq!(place.longs("silver", "events", "seq").await, (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_log_gives_again_are_taken_once() {
    let place = Place::new();
    log_without(&place, 0);
    let mut again = None;
    let poll = move |log: &mut LogSource, timeout, max_bytes| {
        if let Some(event) = again.take() {
            return Ok(event);
        }
        let event = log.poll(timeout, max_bytes)?;
        again = Some(event.clone()).filter(|event| matches!(event, SourceEvent::Messages(_)));
        Ok(event)
    };
    let log = Staged { poll: Box::new(poll), ..Staged::new(place.spool(), topics::READ) };
    let summary = place.ingest_from(Box::new(log), until_caught_up(OnGap::Stop), Drain::new()).await.unwrap();
    assert_eq!((summary.messages, summary.duplicate_rows), (10, 0));
    assert_eq!(place.longs("bronze", "messages", "log_offset").await, (0..10).collect::<Vec<_>>());
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_told_what_has_landed_lands_all_the_same() {
    let place = Place::new();
    log_without(&place, 0);
    let landed = beside_the_log(&place, "landed");
    std::fs::remove_file(&landed).unwrap();
    std::fs::create_dir(&landed).unwrap();
    // Slow enough for some to land, and to be reported, before the last is read.
    let poll = |log: &mut LogSource, timeout, _| {
        std::thread::sleep(Duration::from_millis(50));
        log.poll(timeout, 1)
    };
    let log = Staged { poll: Box::new(poll), ..Staged::new(place.spool(), topics::READ) };
    let options = Options { commit_interval: Duration::from_millis(5), ..until_caught_up(OnGap::Stop) };
    let summary = place.ingest_from(Box::new(log), options, Drain::new()).await.unwrap();
    assert!(summary.batches > 1, "{summary:?}");
    assert!(landed.is_dir(), "what has landed could not be reported");
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_kafka_does_not_take_are_counted_and_kept_in_the_table() {
    let place = Place::new();
    let garbage = Bytes::from(vec![b'x'; 4 << 10]);
    append(&mut writer(&place.spool(), 0), &vec![garbage; 100]);
    let nowhere = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), send_queue_kib: 64, ..KafkaConfig::default() };
    let mut registry = Registry::default();
    let (metrics, readiness) = (Metrics::new(&mut registry), Readiness::new());
    let (lake, options) = (place.lake().await, until_caught_up(OnGap::Stop));
    let ingest =
        Ingest::open(Parts { kafka: Some(&nowhere), metrics, ..parts(&lake, &readiness) }, options).await.unwrap();
    let ended = ingest.run(Box::new(LogSource::new(place.spool(), topics::READ)), Drain::new());
    let summary = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("ingest ends").unwrap();
    assert_eq!(summary.rejected, 100);
    assert_eq!(place.rows("ops", "dlq").await.num_rows(), 100);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let metric = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    assert!(metric("dead_letters_unsent_total").unwrap() > 0, "{text}");
    assert_eq!(metric("buffered_bytes"), Some(0), "{text}");
}

/// The sixteenth commit merges the manifests of those before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_gone_ends_ingest_and_is_named() {
    let place = Place::new();
    let mut log = writer(&place.spool(), 0);
    for i in 0..15 {
        append(&mut log, &[message("a", i * 5, 5)]);
        place.ingest().await.unwrap();
    }
    let metadata = std::fs::read_dir(place.dir.path().join("warehouse/silver/events/metadata")).unwrap();
    let mut manifests =
        metadata.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().ends_with("-m.avro"));
    let gone = manifests.next().unwrap();
    std::fs::remove_file(&gone).unwrap();
    append(&mut log, &[message("a", 75, 5)]);
    let ended = tokio::time::timeout(Duration::from_secs(30), place.ingest()).await.expect("it is not waited for");
    let reason = service_kit::run::report(&ended.unwrap_err());
    assert!(reason.contains("silver.events cannot be committed to"), "{reason}");
    assert!(reason.contains(&*gone.file_name().unwrap().to_string_lossy()), "{reason}");
}

/// A table that a newer version adds has seen nothing, and the log no longer begins at its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_added_later_begins_with_the_log_and_what_was_seen_before_is_not_forgotten() {
    let place = Place::new();
    log_without(&place, 0);
    place.ingest().await.unwrap();
    let uri = format!("sqlite://{}/catalog.sqlite", place.dir.path().display());
    let mut catalog = sqlx::SqliteConnection::connect(&uri).await.unwrap();
    catalog.execute("DELETE FROM iceberg_tables WHERE table_name = 'op_minute'").await.unwrap();
    std::fs::remove_dir_all(place.dir.path().join("warehouse/gold/op_minute")).unwrap();
    let mut log =
        LogWriter::open(&place.spool(), &at(), LogOptions { segment_bytes: 200, ..LogOptions::default() }).unwrap();
    // Sent again, although it landed: its first sending is no longer in the log.
    append(&mut log, &[message("a", 10, 5), message("a", 50, 5)]);
    log.delete_below(NextOffset(6)).unwrap();

    let summary = place.ingest_with(until_caught_up(OnGap::Stop)).await.unwrap();
    assert_eq!((summary.rows, summary.duplicate_rows), (25, 5), "offsets 6 to 12 were read");
    assert_eq!(place.longs("silver", "events", "seq").await, (0..55).collect::<Vec<_>>());
    assert_eq!(place.longs("gold", "op_minute", "count").await.iter().sum::<i64>(), 25);
    let lake = place.lake().await;
    let gaps = async |namespace, name| lake.table(namespace, name).snapshot().await.unwrap().gaps();
    assert_eq!(gaps("gold", "op_minute").await, [OffsetRange::new(at(), 0, 6)]);
    assert_eq!(gaps("silver", "events").await, []);
}

/// Puts a file where the tables' directories are; [`bring_back`] undoes it.
pub(crate) fn take_away(place: &Place) {
    let warehouse = place.dir.path().join("warehouse");
    std::fs::rename(&warehouse, place.dir.path().join("away")).unwrap();
    std::fs::write(&warehouse, "").unwrap();
}

pub(crate) fn bring_back(place: &Place) {
    let warehouse = place.dir.path().join("warehouse");
    std::fs::remove_file(&warehouse).unwrap();
    std::fs::rename(place.dir.path().join("away"), &warehouse).unwrap();
}

/// Waits until a condition whose name is wanted says what failed.
async fn wait_for_reason(readiness: &Readiness, is_wanted: impl Fn(&str) -> bool) -> String {
    let reason = async {
        loop {
            let mut unmet = readiness.unmet().into_iter();
            let reason = unmet.find(|(name, reason)| is_wanted(name) && reason.contains("failed"));
            match reason {
                Some((_, reason)) => return reason,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(30), reason).await;
    let reason = reason.unwrap_or_else(|_| panic!("{:?}", readiness.unmet()));
    assert!(reason.contains("cannot"), "{reason}");
    reason
}

/// The condition that is met once the store has taken an object.
const STORE: &str = "store";

/// Runs ingest with the store away from before the first message until `then` has been done.
async fn with_store_away(
    drain_limit: Duration,
    then: impl AsyncFnOnce(&Place, &Drain),
) -> Result<Summary, IngestError> {
    let place = Arc::new(Place::new());
    drop(writer(&place.spool(), 0));
    let readiness = Readiness::new();
    let options = Options { drain_limit, ..Options::default() };
    let ingest = place.open(options, &readiness).await.unwrap();
    take_away(&place);
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    let drain = Drain::new();
    let running = tokio::spawn({
        let (log, drain) = (Box::new(LogSource::new(place.spool(), topics::READ)), drain.clone());
        async move { ingest.run(log, drain).await }
    });
    wait_for_reason(&readiness, |name| name != STORE).await;
    then(&place, &drain).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    if ended.is_ok() {
        assert!(readiness.is_ready(), "{:?}", readiness.unmet());
        assert_eq!(place.longs("silver", "events", "seq").await, (0..5).collect::<Vec<_>>());
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_told_waited_for_and_then_everything_lands() {
    let back = async |place: &Place, drain: &Drain| {
        bring_back(place);
        drain.cancel();
    };
    with_store_away(Duration::from_secs(60), back).await.unwrap();
}

/// Runs ingest, with nothing to land, while the store takes nothing until `mend`; returns the reason that was reported meanwhile.
async fn with_store_that_takes_nothing(place: &Place, spoil: impl FnOnce(), mend: impl FnOnce()) -> String {
    let readiness = Readiness::new();
    drop(writer(&place.spool(), 0));
    let ingest = place.open(Options::default(), &readiness).await.unwrap();
    spoil();
    let (log, drain) = (Box::new(LogSource::new(place.spool(), topics::READ)), Drain::new());
    let running = tokio::spawn({
        let drain = drain.clone();
        async move { ingest.run(log, drain).await }
    });
    let reason = wait_for_reason(&readiness, |name| name == STORE).await;
    mend();
    let mended = async {
        while !readiness.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), mended).await.unwrap();
    drain.cancel();
    running.await.unwrap().unwrap();
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_nothing_is_told_before_there_is_anything_to_land() {
    let place = Place::new();
    let reason = with_store_that_takes_nothing(&place, || take_away(&place), || bring_back(&place)).await;
    assert!(reason.contains("cannot write"), "{reason}");
    assert_eq!(files(&place, "", ".probe"), Vec::<PathBuf>::new());
}

/// A mounted directory, unmounted when the test ends, however it ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_is_named_before_there_is_anything_to_land() {
    let place = Place::new();
    let dir = place.dir.path();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(dir).output().unwrap();
    if !mount.status.success() {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let _mounted = Mounted(dir);
    let filler = dir.join("filler");
    let fill = || drop(std::fs::write(&filler, vec![0; 16 << 20]).unwrap_err());
    let reason = with_store_that_takes_nothing(&place, fill, || std::fs::remove_file(&filler).unwrap()).await;
    assert!(reason.contains("No space left on device"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stays_away_does_not_keep_ingest_from_ending() {
    let ended = with_store_away(Duration::from_millis(200), async |_, drain| drain.cancel()).await;
    assert!(matches!(ended, Err(IngestError::Overdue(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_the_wait_for_a_store_that_tells_no_positions() {
    let place = Place::new();
    append(&mut writer(&place.spool(), 0), &[message("a", 0, 5)]);
    place.ingest().await.unwrap();
    let readiness = Readiness::new();
    let ingest = place.open(Options { drain_limit: Duration::from_secs(60), ..Options::default() }, &readiness);
    let (ingest, drain) = (ingest.await.unwrap(), Drain::new());
    take_away(&place);
    let log = Box::new(LogSource::new(place.spool(), topics::READ));
    let running = tokio::spawn({
        let drain = drain.clone();
        async move { ingest.run(log, drain).await }
    });
    wait_for_reason(&readiness, |name| name != STORE).await;
    drain.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await.expect("the drain is seen").unwrap();
    assert_eq!(ended.unwrap(), Summary::default());
}

/// Files of a table whose names end so, oldest first: in front of the ending is an id that begins with a time.
fn files(place: &Place, below: &str, ending: &str) -> Vec<PathBuf> {
    let mut dirs = vec![place.dir.path().join("warehouse/ops/ledger").join(below)];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name[name.len() - ending.len() - 36..].to_owned()
    });
    found
}

/// Lands messages of `a` with five rows each, one batch a call.
async fn land(place: &Place, numbers: std::ops::Range<i64>) -> Summary {
    let mut log = writer(&place.spool(), 0);
    let messages: Vec<_> = numbers.map(|i| message("a", i * 5, 5)).collect();
    append(&mut log, &messages);
    drop(log);
    let options = Options { checkpoint_every: 4, ..until_caught_up(OnGap::Stop) };
    place.ingest_with(options).await.unwrap()
}

/// What was seen is taken from the newest checkpoint; of the ledger only what came after is read.
#[tokio::test(flavor = "multi_thread")]
async fn recovery_begins_at_the_newest_checkpoint() {
    let place = Place::new();
    land(&place, 0..4).await;
    let [first] = &files(&place, "metadata", ".stats")[..] else { panic!("one checkpoint") };
    land(&place, 4..9).await;
    assert_eq!(files(&place, "metadata", ".stats").len(), 2);
    land(&place, 9..10).await;
    // The part of the ledger below the checkpoint is not read, nor the checkpoint before.
    std::fs::remove_file(&files(&place, "data", ".parquet")[0]).unwrap();
    std::fs::remove_file(first).unwrap();
    let again = land(&place, 0..11).await;
    assert_eq!((again.rows, again.duplicate_rows), (5, 50), "all but the last were seen, some by the checkpoint alone");
    assert_eq!(place.longs("silver", "events", "seq").await, (0..55).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_gone_or_damaged_costs_reading_and_nothing_else() {
    let place = Place::new();
    land(&place, 0..4).await;
    land(&place, 4..9).await;
    let [first, second] = &files(&place, "metadata", ".stats")[..] else { panic!("two checkpoints") };
    std::fs::write(second, b"damaged").unwrap();
    let again = land(&place, 0..9).await;
    assert_eq!((again.rows, again.duplicate_rows), (0, 45));
    // The one before the last is kept, and what is older is deleted.
    let deleted = async {
        while first.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), deleted).await.expect("a replaced checkpoint is deleted");
    for damaged in files(&place, "metadata", ".stats") {
        std::fs::write(damaged, b"damaged").unwrap();
    }
    let again = land(&place, 0..10).await;
    assert_eq!((again.rows, again.duplicate_rows), (5, 45));
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
}

/// Another program's maintenance took the checkpoints out of the table's metadata, as an expiry of Spark does with those of the
/// snapshots it takes out.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_another_program_took_out_cost_reading_and_nothing_else() {
    let place = Place::new();
    land(&place, 0..4).await;
    land(&place, 4..9).await;
    let cache = std::env::var("CAUSEWAY_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/causeway", std::env::var("HOME").expect("HOME")));
    let dir = place.dir.path().display();
    let script = format!(
        "from pyiceberg.catalog.sql import SqlCatalog\n\
         catalog = SqlCatalog('causeway', uri='sqlite:///{dir}/catalog.sqlite', warehouse='file://{dir}/warehouse')\n\
         table = catalog.load_table('ops.ledger')\n\
         assert len(table.metadata.statistics) == 2, table.metadata.statistics\n\
         with table.update_statistics() as change:\n    \
             [change.remove_statistics(file.snapshot_id) for file in table.metadata.statistics]"
    );
    let output = Command::new(format!("{cache}/venv/bin/python")).arg("-c").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = land(&place, 0..10).await;
    assert_eq!((again.rows, again.duplicate_rows), (5, 45));
    assert_eq!(place.longs("silver", "events", "seq").await, (0..50).collect::<Vec<_>>());
}
