//! What the maintenance of Apache Spark does to a table of ours while its writer goes on, in one run of Spark. The
//! catalog is SQLite and the warehouse a directory, which `infra/dev/spark.sh` opens.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use lake::commit::{ActionOutcome, Maintenance, Replace, RowCount};
use lake::{CommitOutcome, ReadError, TableHandle, Token};
use serde_json::{Value, json};

use crate::attachments::{attach, attached, files, nexts};
use crate::maintained::current;
use crate::place::Place;
use crate::rows::{TIME_LIMIT, batch, def, land, offsets, range, read, recorded, report, rows_of};
use crate::servers::infra;

/// A session of Spark over a place's lake; killed when dropped.
struct Spark {
    child: Child,
    answers: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Spark {
    fn over(place: &Place) -> Self {
        let log = place.dir.path().join("spark.log");
        let temporary = place.dir.path().join("spark");
        std::fs::create_dir(&temporary).unwrap();
        let mut child = Command::new("bash")
            .arg(infra().join("spark.sh"))
            .args(["sql", place.options.catalog_uri.strip_prefix("sqlite://").unwrap(), &place.options.warehouse])
            .env("TMPDIR", temporary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (send, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, answers, log }
    }

    /// The rows of a statement, or the first line of its error.
    fn run(&mut self, statement: &str) -> Result<Vec<Value>, String> {
        writeln!(self.child.stdin.as_mut().unwrap(), "{statement}").unwrap();
        let mut rows = Vec::new();
        loop {
            let Ok(line) = self.answers.recv_timeout(TIME_LIMIT) else {
                panic!("no answer to {statement}: {}", std::fs::read_to_string(&self.log).unwrap());
            };
            if line == "done" {
                return Ok(rows);
            }
            if let Some(error) = line.strip_prefix("failed: ") {
                return Err(error.to_owned());
            }
            rows.push(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
        }
    }

    /// Calls a procedure on the table; the rows it returns.
    #[track_caller]
    fn call(&mut self, procedure: &str, arguments: &str) -> Vec<Value> {
        self.ok(&format!("CALL causeway.system.{procedure}(table => 'silver.t'{arguments})"))
    }

    #[track_caller]
    fn ok(&mut self, statement: &str) -> Vec<Value> {
        let rows = self.run(statement);
        rows.unwrap_or_else(|error| panic!("{statement}: {error}\n{}", std::fs::read_to_string(&self.log).unwrap()))
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A time that lies behind every snapshot.
const EVERYTHING: &str = ", older_than => TIMESTAMP '2100-01-01 00:00:00'";

/// Gives every file of the warehouse an age of ten days: Spark's `remove_orphan_files` passes over those below three.
async fn age(place: &Place) {
    let then = SystemTime::now() - Duration::from_hours(240);
    for name in place.objects().await {
        let path = PathBuf::from(&place.options.warehouse).join(name);
        File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    }
}

/// The writer of a table and what it has landed.
struct Writer<'a> {
    place: &'a Place,
    table: TableHandle,
    /// The next offset of the partitions 0 and 1.
    next: [i64; 2],
}

impl Writer<'_> {
    /// Lands one message of partition 0 with an attachment, and ten of partition 1.
    async fn go_on(&mut self) {
        attach(&self.table, self.next[0]).await;
        self.next[0] += 1;
        let landed = range(1, self.next[1], self.next[1] + 10);
        assert_eq!(land(&self.table, &[landed]).await, 1);
        self.next[1] += 10;
    }

    /// The table has what was landed, and its offsets end there.
    async fn check(&self, after: &str) {
        let expected = rows_of(&[range(0, 0, self.next[0]), range(1, 0, self.next[1])]);
        assert_eq!(read(self.place).await.unwrap(), expected, "after {after}");
        assert_eq!(offsets(&self.table).await, self.next, "after {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_maintains_a_table_beside_its_writer() {
    let place = Place::embedded();
    let table = place.lake().await.ensure_table(&def()).await.unwrap();
    let mut spark = Spark::over(&place);
    let mut writer = Writer { place: &place, table, next: [0, 0] };
    for _ in 0..4 {
        writer.go_on().await;
    }
    rewrites_change_nothing_but_files(&mut spark, &mut writer).await;
    orphans_are_found_and_what_the_table_names_is_spared(&mut spark, &mut writer).await;
    expiry_takes_attachments_with_their_snapshots(&mut spark, &mut writer).await;
    statistics_take_the_place_of_an_attachment(&mut spark, &mut writer).await;
    files_that_spark_wrote_are_rewritten_here(&mut spark, &writer).await;
    place.assert_landed(&writer.next);
    expiry_behind_a_roll_back_leaves_live_files(&mut spark, &mut writer).await;
    place.assert_landed(&writer.next);
    another_format_version_is_refused_and_can_be_taken_back(&mut spark, &mut writer).await;
    row_level_deletes_are_refused_until_they_are_compacted(&mut spark, &writer).await;
}

async fn rewrites_change_nothing_but_files(spark: &mut Spark, writer: &mut Writer<'_>) {
    for (procedure, arguments, changed) in [
        ("rewrite_data_files", "", "rewritten_data_files_count"),
        ("rewrite_data_files", ", strategy => 'sort', options => map('rewrite-all', 'true')", "added_data_files_count"),
        ("rewrite_manifests", "", "rewritten_manifests_count"),
    ] {
        let recorded_before = recorded(writer.place).await;
        let attached_before = attached(writer.place).await;
        let said = spark.call(procedure, arguments);
        assert!(said[0][changed].as_i64().unwrap() > 0, "{procedure}: {said:?}");
        writer.check(procedure).await;
        // Offsets, gaps, tokens, and where attachments are.
        assert_eq!(recorded(writer.place).await, recorded_before, "{procedure}");
        assert_eq!(attached(writer.place).await, attached_before, "{procedure}");
        assert_eq!(attached_before.len(), 2);
        writer.go_on().await;
        writer.check("the next commits").await;
    }
    let said = spark.call("rewrite_position_delete_files", "");
    assert_eq!(said[0]["rewritten_delete_files_count"], 0, "the table has none");
    writer.check("rewrite_position_delete_files").await;
}

async fn orphans_are_found_and_what_the_table_names_is_spared(spark: &mut Spark, writer: &mut Writer<'_>) {
    let place = writer.place;
    let listed = attached(place).await;
    assert_eq!((nexts(&listed), files(place, 2).await.len()), (vec![writer.next[0], writer.next[0] - 1], 2));
    let table = PathBuf::from(&place.options.warehouse).join("silver/t");
    let orphans =
        ["data/orphan.parquet", "metadata/orphan-m.avro", "metadata/1-orphan.stats", "metadata/0-o.metadata.json"];
    for name in orphans {
        std::fs::write(table.join(name), "nothing names this").unwrap();
    }
    age(place).await;
    std::fs::write(table.join("data/young.parquet"), "a writer may be about to commit this").unwrap();

    let refused = spark.run(&format!("CALL causeway.system.remove_orphan_files(table => 'silver.t'{EVERYTHING})"));
    assert!(refused.unwrap_err().contains("interval less than 24 hours"), "Spark spares what is younger");
    let removed = spark.call("remove_orphan_files", "");
    let removed: BTreeSet<_> = removed.iter().map(|row| row["orphan_file_location"].as_str().unwrap()).collect();
    let expected: Vec<_> = orphans.iter().map(|name| format!("file:{}/{name}", table.display())).collect();
    assert_eq!(
        removed,
        expected.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        "the statistics files are spared"
    );
    assert!(table.join("data/young.parquet").exists() && !table.join(orphans[0]).exists());
    assert_eq!(attached(place).await, listed);
    writer.check("remove_orphan_files").await;
    writer.go_on().await;
}

async fn expiry_takes_attachments_with_their_snapshots(spark: &mut Spark, writer: &mut Writer<'_>) {
    let place = writer.place;
    let recorded_before = recorded(place).await;
    let said = spark.call("expire_snapshots", "");
    assert_eq!(
        said[0]["deleted_manifest_lists_count"], 0,
        "none is five days old, and the table's properties keep a hundred"
    );
    let said = spark.call("expire_snapshots", &format!("{EVERYTHING}, retain_last => 2"));
    let counts = [&said[0]["deleted_manifest_lists_count"], &said[0]["deleted_statistics_files_count"]];
    assert!(counts[0].as_i64().unwrap() > 5 && *counts[1] == json!(1), "{said:?}");
    // The properties still name it; the entry in `statistics` is gone.
    assert_eq!(recorded(place).await, recorded_before);
    assert_eq!(nexts(&attached(place).await), [writer.next[0]], "that of the snapshot before the last");
    writer.check("expire_snapshots").await;
    let said = spark.call("expire_snapshots", &format!("{EVERYTHING}, retain_last => 1"));
    assert_eq!(said[0]["deleted_statistics_files_count"], 1, "{said:?}");
    assert_eq!(nexts(&attached(place).await), [0_i64; 0]);
    writer.go_on().await;
    assert_eq!(nexts(&attached(place).await), [writer.next[0]]);
    writer.check("the next commits").await;
    // Only the current snapshot was kept, and two were added: the offsets can be followed through all of them.
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    assert_eq!(snapshot.history().iter().map(|past| past.follows).collect::<Vec<_>>(), [false, true, true]);
}

async fn statistics_take_the_place_of_an_attachment(spark: &mut Spark, writer: &mut Writer<'_>) {
    let place = writer.place;
    attach(&writer.table, writer.next[0]).await;
    writer.next[0] += 1;
    let newest = attached(place).await.remove(0);
    let computed = spark.call("compute_table_stats", "");
    let snapshot = place.lake().await.table("silver", "t").snapshot().await.unwrap();
    let replaced = snapshot.attachments(&newest.kind, &newest.at).remove(0);
    assert!(computed[0]["statistics_file"].as_str().unwrap().ends_with(replaced.location.rsplit('/').next().unwrap()));
    let error = snapshot.read_attachment(&replaced).await.unwrap_err();
    assert!(matches!(error, ReadError::NoAttachment { .. }), "{error:?}");
    writer.check("compute_table_stats").await;
    // Two commits later it is replaced, and readable again.
    writer.go_on().await;
    writer.go_on().await;
    assert_eq!(nexts(&attached(place).await), [writer.next[0], writer.next[0] - 1]);
}

async fn files_that_spark_wrote_are_rewritten_here(spark: &mut Spark, writer: &Writer<'_>) {
    spark.call("rewrite_data_files", ", options => map('rewrite-all', 'true')");
    let snapshot = writer.table.reader().snapshot().await.unwrap();
    let inputs: BTreeSet<_> = snapshot.plan(&[]).await.unwrap().iter().map(|file| file.location.clone()).collect();
    assert!(inputs.iter().all(|location| location.starts_with("file:/") && !location.starts_with("file://")));
    let mut reached = Vec::new();
    writer.table.reader().reachable(None, |name| reached.push(name.to_owned())).await.unwrap();
    assert!(reached.iter().all(|location| location.starts_with("file:///")), "as the store lists them: {reached:?}");
    let outputs = batch(&writer.table, &[range(0, 0, writer.next[0]), range(1, 0, writer.next[1])]).await.files;
    let replace = Maintenance::Replace(Replace { inputs, outputs, rows: RowCount::Kept });
    let outcome = writer.table.maintain(&replace, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    writer.check("a rewrite of ours").await;
}

async fn expiry_behind_a_roll_back_leaves_live_files(spark: &mut Spark, writer: &mut Writer<'_>) {
    let snapshot = writer.table.reader().snapshot().await.unwrap();
    let target = snapshot.snapshot_id().unwrap();
    let before = writer.next;
    writer.go_on().await;
    spark.call("rewrite_data_files", ", options => map('rewrite-all', 'true')");
    let outcome = writer.table.roll_back(target, current(&writer.table).await, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    writer.next = before;
    writer.check("a roll back").await;
    let said = spark.call("expire_snapshots", &format!("{EVERYTHING}, retain_last => 1"));
    assert!(said[0]["deleted_data_files_count"].as_i64().unwrap() >= 1, "what was rolled back: {said:?}");
    writer.check("expire_snapshots").await;
    // Spark's own roll back leaves the offsets. Ours to the same snapshot sets them back.
    let kept = writer.table.reader().snapshot().await.unwrap().snapshot_id().unwrap();
    writer.go_on().await;
    spark.ok(&format!("CALL causeway.system.rollback_to_snapshot('silver.t', {kept})"));
    assert_eq!(offsets(&writer.table).await, writer.next, "ahead of the rows");
    let outcome = writer.table.roll_back(kept, current(&writer.table).await, Token::random()).await;
    assert!(matches!(outcome, ActionOutcome::Committed(_)), "{outcome:?}");
    writer.next = before;
    writer.check("both roll backs").await;
    writer.go_on().await;
    writer.check("the next commits").await;
}

async fn another_format_version_is_refused_and_can_be_taken_back(spark: &mut Spark, writer: &mut Writer<'_>) {
    let place = writer.place;
    spark.ok("ALTER TABLE causeway.silver.t SET TBLPROPERTIES ('format-version' = '3')");
    let refused = read(place).await.unwrap_err();
    for part in ["has format version 3", "set the catalog's pointer back to the metadata file before this one"] {
        assert!(report(&refused).contains(part), "{}", report(&refused));
    }
    let outcome =
        writer.table.commit(batch(&writer.table, &[range(1, writer.next[1], writer.next[1] + 1)]).await).await;
    assert!(matches!(outcome, CommitOutcome::Unreachable(_)), "{outcome:?}");
    place.sql("UPDATE iceberg_tables SET metadata_location = previous_metadata_location").await;
    writer.check("the pointer was set back").await;
    writer.go_on().await;
    writer.check("the next commits").await;
}

async fn row_level_deletes_are_refused_until_they_are_compacted(spark: &mut Spark, writer: &Writer<'_>) {
    let place = writer.place;
    spark.ok("DELETE FROM causeway.silver.t WHERE part = 1 AND seq = 2");
    let mut expected = rows_of(&[range(0, 0, writer.next[0]), range(1, 0, writer.next[1])]);
    expected.retain(|row| *row != (1, 2));
    assert_eq!(read(place).await.unwrap(), expected, "by default Spark writes the file again without the row");

    spark.ok("ALTER TABLE causeway.silver.t SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')");
    spark.ok("DELETE FROM causeway.silver.t WHERE part = 1 AND seq = 3");
    let refused = read(place).await.unwrap_err();
    assert_eq!(
        report(&refused),
        "table silver.t has row-level deletes, which are not applied here: compact it with the program that wrote them, \
         Spark's rewrite_data_files for instance"
    );
    let landed = range(1, writer.next[1], writer.next[1] + 1);
    let outcome = writer.table.commit(batch(&writer.table, std::slice::from_ref(&landed)).await).await;
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "its writer goes on: {outcome:?}");
    expected.extend(rows_of(&[landed]));
    expected.sort_unstable();
    expected.retain(|row| *row != (1, 3));
    spark.call("rewrite_position_delete_files", ", options => map('rewrite-all', 'true')");
    assert!(matches!(read(place).await.unwrap_err(), ReadError::Deletes { .. }), "they are still there");
    spark.call("rewrite_data_files", ", options => map('delete-file-threshold', '1')");
    assert_eq!(read(place).await.unwrap(), expected);
}
