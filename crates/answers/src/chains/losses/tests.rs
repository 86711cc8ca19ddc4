//! The time in which a loss happened, from the batches of a stream.

use super::*;

const MS: i64 = 1_000;
const FULL: i64 = 8_192;

/// A batch whose events lie in this time and that was written so long after the last, in milliseconds.
fn batch(rows: i64, from_ms: i64, to_ms: i64, late_ms: i64, lost: u64) -> BatchReport {
    BatchReport {
        cluster: "c".to_owned(),
        run: ("boot".to_owned(), 1),
        rows,
        lost,
        made: rows.unsigned_abs() + lost,
        first_us: from_ms * MS,
        last_us: to_ms * MS,
        written_us: (to_ms + late_ms) * MS,
    }
}

fn losses(batches: &[BatchReport]) -> Vec<(i64, i64, u64, u64)> {
    let mut stretch = Stretch::default();
    let found = batches.iter().filter_map(|report| stretch.add(report, FULL));
    found.map(|loss| (loss.from_ns / 1_000_000, loss.to_ns / 1_000_000, loss.lost, loss.made)).collect()
}

#[test]
fn while_an_agent_keeps_up_a_loss_lies_between_a_batch_and_the_one_before() {
    let batches = [
        batch(FULL, 0, 1_000, 20, 0),
        batch(FULL, 1_000, 2_000, 20, 0),
        batch(500, 2_000, 2_250, 20, 500),
        batch(500, 2_250, 2_500, 20, 0),
    ];
    assert_eq!(losses(&batches), [(1_500, 2_270, 500, 1_000)]);
}

#[test]
fn what_is_reported_after_a_backlog_was_lost_at_any_time_since_the_agent_fell_behind() {
    // Stopped from 3 s to 8 s: the ring holds what came first, and is emptied in one go while more comes.
    let batches = [
        batch(700, 2_000, 2_250, 20, 0),
        batch(FULL, 2_250, 2_900, 5_200, 0),
        batch(FULL, 2_900, 8_100, 400, 0),
        batch(FULL, 8_100, 9_000, 300, 0),
        batch(FULL, 9_000, 9_900, 100, 0),
        batch(300, 9_900, 10_100, 10, 70_000),
        batch(300, 10_100, 10_300, 10, 0),
        batch(300, 10_300, 10_550, 10, 30),
    ];
    let made = 4 * 8_192 + 300 + 70_000;
    assert_eq!(losses(&batches), [(1_750, 10_110, 70_000, made), (9_800, 10_560, 30, 330)]);
}

#[test]
fn a_loss_reported_before_the_backlog_it_fell_into_reaches_to_when_it_was_reported() {
    let batches = [batch(700, 2_000, 2_250, 20, 0), batch(700, 2_250, 2_900, 5_200, 70_000)];
    assert_eq!(losses(&batches), [(1_750, 8_100, 70_000, 70_700)]);
    let delayed = [batch(700, 2_000, 2_250, 20, 0), batch(700, 2_250, 2_900, 3_600_000, 700)];
    assert_eq!(losses(&delayed), [(1_750, 2_900, 700, 1_400)], "stamped by a broker that was away for an hour");
}

#[test]
fn a_loss_belongs_to_every_window_that_its_stretch_overlaps() {
    let loss = Loss { from_ns: 1_750_000_000, to_ns: 10_110_000_000, lost: 70_000, made: 100_000 };
    let window =
        |from_ms: i64, to_ms: i64| Window { from_ns: from_ms * 1_000_000, to_ns: to_ms * 1_000_000, job: None };
    assert!(is_in(&loss, &window(3_000, 9_000)), "reported after its end");
    assert!(is_in(&loss, &window(0, 1_750)) && is_in(&loss, &window(10_110, 20_000)));
    assert!(!is_in(&loss, &window(0, 1_700)) && !is_in(&loss, &window(10_200, 20_000)));
    assert!(of_stream(&window(3_000, 9_000)).contains("1970-01-01 00:01:09"), "read as far as an agent may be behind");
}

#[test]
fn another_run_of_an_agent_begins_anew() {
    let next = BatchReport { run: ("boot".to_owned(), 2), ..batch(500, 60_000, 60_250, 20, 100) };
    assert_eq!(losses(&[batch(FULL, 0, 1_000, 5_000, 0), next]), [(60_000, 60_270, 100, 600)]);
}
