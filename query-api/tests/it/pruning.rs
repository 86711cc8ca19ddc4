//! What is not read: files that cannot match, and all of them where the manifests know the answer. Proved by taking the files away.

use std::ops::Range;
use std::path::Path;

use arrow::record_batch::RecordBatch;
use event_schema::batch::{Event, EventRows};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use serde_json::json;

use crate::fixture::{Fixture, Served, event};

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;

#[tokio::test]
async fn count_min_and_max_read_no_data() {
    let fixture = Fixture::with_events().await;
    for file in fixture.data_files("silver.events") {
        std::fs::remove_file(file).unwrap();
    }
    let served = fixture.serve().await;
    let sql = "SELECT count(*), min(duration), max(duration), min(timestamp), max(source), count(rank), count(comm) FROM events";
    let expected = json!([[6, 500, 2_000_000, 1_772_323_200_000_000_000i64, 9, 0, 6]]);
    assert_eq!(served.rows(sql).await, expected);
    let (status, problem) = served.sql("SELECT avg(duration) FROM events").await;
    assert_eq!((status, &problem["type"]), (500, &json!("urn:causeway:problem:data-file")), "{problem}");
}

#[tokio::test]
async fn a_file_that_begins_and_ends_on_two_days_of_a_zone_is_not_left_out_by_times_of_the_day() {
    let mut fixture = Fixture::empty().await;
    let minute = 60_000_000;
    // In Tokyo half past eleven in the evening, and half past midnight.
    fixture.land_events("a", &[event(1, 3, 5, 870 * minute), event(1, 3, 7, 930 * minute)]).await;
    let served = fixture.serve().await;
    for (condition, count) in [
        ("CAST(ts AT TIME ZONE 'Asia/Tokyo' AS TIME) < TIME '01:00:00'", 1),
        ("CAST(ts AT TIME ZONE 'Asia/Tokyo' AS TIME) > TIME '23:00:00'", 1),
        ("CAST(ts AS TIME) BETWEEN TIME '15:00:00' AND TIME '16:00:00'", 1),
    ] {
        let sql = format!("SELECT count(*) FROM events WHERE {condition}");
        assert_eq!(served.rows(&sql).await, json!([[count]]), "{condition}");
    }
}

#[tokio::test]
async fn a_filter_leaves_out_files_of_other_nodes_and_days() {
    let mut fixture = Fixture::empty().await;
    fixture.land_events("a", &[event(1, 3, 5, 0)]).await;
    let kept = fixture.data_files("silver.events");
    let mut tomorrow = event(1, 3, 7, 0);
    tomorrow.boot_ns = DAY;
    fixture.land_events("b", &[tomorrow]).await;
    for file in fixture.data_files("silver.events").iter().filter(|file| !kept.contains(file)) {
        std::fs::remove_file(file).unwrap();
    }
    let served = fixture.serve().await;
    let today = "'2026-03-01T12:00:00Z'";
    for condition in [
        "node = 'a'".to_owned(),
        "node IN ('a', 'a1', 'a2')".to_owned(),
        "node = 'a' OR node = 'a9'".to_owned(),
        format!("ts < {today}"),
        format!("ts BETWEEN '2026-03-01T00:00:00Z' AND {today}"),
        "ts < to_timestamp_nanos(1772366400000000500)".to_owned(),
        "CAST(ts AS TIMESTAMP) < TIMESTAMP '2026-03-01 12:00:00'".to_owned(),
        "timestamp < 1772366400000000000".to_owned(),
        "duration = 5".to_owned(),
        "duration < 6 AND pid = 100".to_owned(),
    ] {
        let sql = format!("SELECT sum(duration) FROM events WHERE {condition}");
        assert_eq!(served.rows(&sql).await, json!([[5]]), "{condition}");
    }
    for condition in ["node = 'b'", "duration > 6", "tid = 101", "CAST(duration AS VARCHAR) = '7'"] {
        let (status, body) = served.sql(&format!("SELECT sum(duration) FROM events WHERE {condition}")).await;
        assert_eq!(status, 500, "{condition} must have read the file that is gone: {body}");
    }
}

#[tokio::test]
async fn a_corrupt_file_is_named() {
    let fixture = Fixture::with_events().await;
    let files = fixture.data_files("silver.events");
    let mut bytes = std::fs::read(&files[1]).unwrap();
    // Data pages lie between the leading magic and the footer.
    let middle = 4..bytes.len() / 2;
    bytes[middle].fill(0xff);
    std::fs::write(&files[1], bytes).unwrap();
    let served = fixture.serve().await;
    let (status, problem) =
        served.sql("SELECT node, sum(duration), max(comm), max(boot_id) FROM events GROUP BY node").await;
    assert_eq!((status, &problem["type"]), (500, &json!("urn:causeway:problem:data-file")), "{problem}");
    let name = files[1].file_name().unwrap().to_str().unwrap();
    assert!(problem["file"].as_str().unwrap().ends_with(name), "{problem}");
    let cut = std::fs::read(&files[2]).unwrap();
    std::fs::write(&files[2], &cut[..cut.len() / 2]).unwrap();
    std::fs::remove_file(&files[1]).unwrap();
    let (_, problem) = served.sql("SELECT node, sum(duration) FROM events GROUP BY node").await;
    assert_eq!(problem["type"], "urn:causeway:problem:data-file", "{problem}");
}

#[tokio::test]
async fn several_files_are_read_at_once_and_statistics_are_exact() {
    let served = Fixture::with_events().await.serve().await;
    let (_, body) = served.sql("EXPLAIN SELECT sum(duration) FROM events").await;
    let plan = body["rows"].to_string();
    assert!(plan.contains("file_groups={") && !plan.contains("file_groups={1 group"), "{plan}");
    let (_, body) = served.sql("EXPLAIN SELECT count(*), max(duration) FROM events").await;
    assert!(body["rows"].to_string().contains("PlaceholderRowExec"), "{body}");
    let (_, body) =
        served.sql("EXPLAIN SELECT sum(duration) FROM events WHERE duration < 1000 AND node = 'gpu-node-02'").await;
    let plan = body["rows"].to_string();
    assert!(plan.contains("file_groups={1 group: [[") && plan.contains("pruning_predicate=duration_ns_"), "{plan}");
}

/// A duration that no encoding makes small, so that every column of it has many blocks. Always the same for one event.
fn duration(nth: i64) -> i64 {
    let mut mixed = nth.unsigned_abs().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) & 0xff_ffff_ffff) as i64
}

/// Events of the day, a microsecond apart.
fn events(numbers: Range<i64>) -> RecordBatch {
    let mut rows = EventRows::new();
    numbers.for_each(|nth| rows.push(&event(1, 3, duration(nth), nth)));
    rows.finish().unwrap()
}

/// Overwrites parts of a Parquet file, without the blocks that other parts share: reading what is left of them fails.
fn spoil(file: &Path, parts: impl Fn(&ParquetMetaData) -> Vec<Range<u64>>) {
    const BLOCK_BYTES: u64 = 16 << 10;
    let mut bytes = std::fs::read(file).unwrap();
    let mut reader = ParquetMetaDataReader::new();
    reader.try_parse(&bytes::Bytes::from(bytes.clone())).unwrap();
    let mut spoilt = 0;
    for part in parts(&reader.finish().unwrap()) {
        let (start, end) = (part.start.next_multiple_of(BLOCK_BYTES), part.end - part.end % BLOCK_BYTES);
        if start < end {
            bytes[start as usize..end as usize].fill(0xff);
            spoilt += 1;
        }
    }
    assert!(spoilt > 0, "no part has a whole block");
    std::fs::write(file, bytes).unwrap();
}

/// The first `part` of `all` events can be summed although what lies behind them is spoilt.
async fn check_only_the_first_are_read(served: &Served, part: i64, all: i64) {
    let sum =
        |first: i64| format!("SELECT sum(duration) FROM events WHERE timestamp < 1772323200000000000 + {first} * 1000");
    assert_eq!(served.rows(&sum(part)).await, json!([[(0..part).map(duration).sum::<i64>()]]));
    let (status, problem) = served.sql(&sum(all)).await;
    assert_eq!((status, &problem["type"]), (500, &json!("urn:causeway:problem:data-file")), "{problem}");
}

#[tokio::test]
async fn row_groups_that_cannot_match_are_not_read() {
    let mut fixture = Fixture::empty().await;
    let batches: Vec<_> = (0..17).map(|i| events(i * 65_536..(i + 1) * 65_536)).collect();
    fixture.land_together("a", &batches).await;
    spoil(&fixture.data_files("silver.events")[0], |metadata| {
        let chunks = metadata.row_group(1).columns().iter().map(|chunk| chunk.byte_range());
        chunks.map(|(start, length)| start..start + length).collect()
    });
    check_only_the_first_are_read(&fixture.serve().await, 1_000_000, 1_100_000).await;
}

#[tokio::test]
async fn a_nan_is_found_where_the_statistics_of_its_file_leave_it_out() {
    let mut fixture = Fixture::empty().await;
    let weighing = |sample_weight: f32, nth| Event { sample_weight, ..event(1, 3, 5, nth) };
    fixture
        .land_events("a", &[weighing(1.0, 0), weighing(2.0, 1), weighing(f32::NAN, 2), weighing(-f32::NAN, 3)])
        .await;
    fixture.land_events("b", &[weighing(3.0, 0), weighing(0.0, 1), weighing(-0.0, 2)]).await;
    let served = fixture.serve().await;
    for (sql, expected) in [
        ("SELECT count(*) FROM silver.events WHERE sample_weight > 2", json!([[3]])),
        ("SELECT count(*) FROM silver.events WHERE sample_weight > 2e0 AND node = 'a'", json!([[2]])),
        ("SELECT count(*) FROM silver.events WHERE sample_weight = CAST('NaN' AS REAL)", json!([[2]])),
        ("SELECT count(*) FROM silver.events WHERE sample_weight IN (0e0, CAST('NaN' AS DOUBLE))", json!([[4]])),
        ("SELECT count(*) FROM silver.events WHERE sample_weight < 0", json!([[0]])),
        ("SELECT max(sample_weight), min(sample_weight) FROM silver.events", json!([["NaN", 0.0]])),
        ("SELECT count(DISTINCT sample_weight) FROM silver.events", json!([[5]])),
        (
            "SELECT sample_weight FROM silver.events ORDER BY sample_weight DESC, node LIMIT 3",
            json!([["NaN"], ["NaN"], [3.0]]),
        ),
        (
            "SELECT count(*) FROM silver.events AS a JOIN silver.events AS b ON a.sample_weight = b.sample_weight",
            json!([[11]]),
        ),
        (
            "SELECT sample_weight, count(*) AS n FROM silver.events GROUP BY sample_weight HAVING count(*) > 1 ORDER BY 1",
            json!([[0.0, 2], ["NaN", 2]]),
        ),
    ] {
        assert_eq!(served.rows(sql).await, expected, "{sql}");
    }
}
