//! The reference's tables over ours: what a view shows once, and what it must not hide.

use event_schema::batch::{Event, MeasuredDuration, Value};
use event_schema::catalog::Op;
use event_schema::kind::RecordKind;
use serde_json::json;

use crate::fixture::{DAY_NS, Fixture, event};

fn session(started_ns: i64, stopped_ns: Option<i64>) -> Vec<(&'static str, Value)> {
    vec![
        ("boot_ns", Value::Long(stopped_ns.unwrap_or(started_ns) - DAY_NS)),
        ("started_ns", Value::Long(started_ns)),
        ("stopped_ns", stopped_ns.map_or(Value::Null, Value::Long)),
        ("kernel", Value::Text("6.1.0".to_owned())),
        ("agent_version", Value::Text("0.1.0".to_owned())),
    ]
}

#[tokio::test]
async fn a_run_that_was_recorded_at_its_begin_and_its_end_is_one_session() {
    let mut fixture = Fixture::empty().await;
    let of_one_run = vec![session(DAY_NS, None), session(DAY_NS, Some(DAY_NS + 9_000))];
    fixture.land_records("n1", RecordKind::Session, of_one_run).await;
    fixture.land_records("n1", RecordKind::Session, vec![session(DAY_NS + 20_000, None)]).await;
    let served = fixture.serve().await;
    let rows = served.rows("SELECT id, node, stopped_at, kernel, ingero_ver FROM sessions ORDER BY id").await;
    assert_eq!(rows, json!([[1, "n1", DAY_NS + 9_000, "6.1.0", "0.1.0"], [2, "n1", null, "6.1.0", "0.1.0"]]));
}

fn aggregate(minute: i64, count: i64) -> Vec<(&'static str, Value)> {
    let number = |name, n| (name, Value::Long(n));
    vec![
        number("boot_ns", minute * 60_000_000_000),
        number("source", 3),
        number("op", 1),
        number("pid", 100),
        number("count", count),
        number("stored", 1),
        number("sum_duration_ns", 5),
        number("min_duration_ns", 5),
        number("max_duration_ns", 5),
        number("sum_arg0", 0),
    ]
}

#[tokio::test]
async fn imported_aggregates_stand_for_what_they_cover_and_hide_nothing_else() {
    let mut fixture = Fixture::empty().await;
    let at = |minute: i64| event(3, 1, 5, minute * 60_000_000);
    // The imported minute 0 covers its kept event; minute 5 was recorded by an agent of ours since.
    fixture.land_records("n1", RecordKind::Aggregate, vec![aggregate(0, 40)]).await;
    fixture.land_events("n1", &[at(0), at(5), event(4, 1, 5, 1)]).await;
    fixture.land_events("n2", &[at(0)]).await;
    let served = fixture.serve().await;
    let sql = "SELECT node, (bucket - 1772323200000000000) / 60000000000 AS minute, source, count, cluster \
               FROM event_aggregates ORDER BY node, minute, source";
    let expected =
        json!([["n1", 0, 3, 40, "test"], ["n1", 0, 4, 1, "test"], ["n1", 5, 3, 1, "test"], ["n2", 0, 3, 1, "test"]]);
    assert_eq!(served.rows(sql).await, expected);
}

#[tokio::test]
async fn launches_that_were_not_timed_have_no_duration_in_events_averages_and_aggregates() {
    let mut fixture = Fixture::empty().await;
    let launch = |nth| Event { duration: None, ..event(1, 3, 0, nth) };
    let sampled = |ns, nth| Event { duration: Some(MeasuredDuration { ns, weight: 100.0 }), ..event(4, 1, 0, nth) };
    fixture.land_events("n1", &[launch(0), launch(1), event(1, 5, 40, 2), sampled(7, 3), launch(4)]).await;
    let served = fixture.serve().await;
    let of_events = "SELECT op_name, count(*), avg(duration), min(duration), sum(duration * duration_weight) FROM events \
                     GROUP BY op_name ORDER BY op_name";
    let expected = json!([
        ["cuLaunchKernel", 1, 7.0, 7, 700.0],
        ["cudaLaunchKernel", 3, null, null, null],
        ["cudaStreamSync", 1, 40.0, 40, 40.0]
    ]);
    assert_eq!(served.rows(of_events).await, expected);
    assert_eq!(served.rows("SELECT avg(duration) FROM events WHERE source = 1").await, json!([[40.0]]));
    let of_minutes = "SELECT op, count, timed, sum_dur, min_dur, max_dur FROM event_aggregates ORDER BY source, op";
    let expected = json!([[3, 3, 0, null, null, null], [5, 1, 1, 40, 40, 40], [1, 1, 100, 700, 7, 7]]);
    assert_eq!(served.rows(of_minutes).await, expected);
}

#[tokio::test]
async fn arguments_of_operations_have_columns_of_their_own_in_typed_events() {
    let mut fixture = Fixture::empty().await;
    let of = |op: Op, arg0, arg1, bytes| Event { arg0, arg1, bytes, ..event(0, 0, 5, 0).with_op(op) };
    let beyond = i64::from(i32::MAX) + 1;
    let events = [
        of(Op::CudaLaunchKernel, 64, 7, None),
        of(Op::RunnableWait, 99, 1, None),
        of(Op::Blocked, 2, beyond, None),
        of(Op::BlockRead, 8, 1_000, Some(4_096)),
        of(Op::NcclAllReduce, 11, 7, Some(1 << 20)),
        of(Op::EpochEnd, 5, 1, Some(4)),
        of(Op::MmPageAllocSummary, 3, 12_288, None),
    ];
    fixture.land_events("n1", &events).await;
    let served = fixture.serve().await;
    let sql = "SELECT op_name, function, cuda_stream, peer_tid, reason, prev_state, waker_tid, sectors, drained, bytes \
               FROM typed_events ORDER BY op_name";
    let expected = json!([
        ["AllReduce", null, 7, null, null, null, null, null, null, 1 << 20],
        ["block_read", null, null, null, null, null, null, 8, null, 4_096],
        ["blocked", null, null, null, null, 2, null, null, null, null],
        ["cudaLaunchKernel", 64, 7, null, null, null, null, null, null, null],
        ["epoch_end", null, null, null, null, null, null, null, 4, null],
        ["mm_page_alloc_summary", null, null, null, null, null, null, null, null, 12_288],
        ["runnable_wait", null, null, 99, 1, null, null, null, null, null],
    ]);
    assert_eq!(served.rows(sql).await, expected, "a thread id that is none is null");
    let reference = "SELECT arg0, arg1 FROM events WHERE op_name = 'runnable_wait'";
    assert_eq!(served.rows(reference).await, json!([[99, 1]]));
}

#[tokio::test]
async fn every_name_of_an_argument_is_a_documented_column_of_typed_events() {
    let served = Fixture::with_events().await.serve().await;
    let described = served.get_json("/api/v1/tables/typed_events").await;
    let columns = described["columns"].as_array().unwrap();
    for arg in Op::ALL.iter().flat_map(|op| op.args()) {
        let column = columns.iter().find(|column| column["name"] == arg.name).unwrap_or_else(|| panic!("{arg:?}"));
        assert!(column["doc"].as_str().is_some_and(|doc| doc.contains(arg.doc)), "{column}");
    }
}
