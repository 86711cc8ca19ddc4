//! What an agent reports of processes that it cannot trace.

use event_schema::batch::Value as Cell;
use event_schema::kind::RecordKind;
use serde_json::json;

use crate::fixture::{DAY_NS, Fixture, NOW_NS};

#[tokio::test]
async fn a_process_that_is_not_traced_is_named_with_the_reason_while_its_agent_reports_it() {
    const MINUTE_NS: i64 = 60_000_000_000;
    let mut fixture = Fixture::with_events().await;
    let report = |pid: i64, before_now_ns: i64, reason: Option<&str>| {
        vec![
            ("boot_ns", Cell::Long(NOW_NS - DAY_NS - before_now_ns)),
            ("pid", Cell::Long(pid)),
            ("name", Cell::Text("python3".to_owned())),
            ("untraced", reason.map_or(Cell::Null, |reason| Cell::Text(reason.to_owned()))),
        ]
    };
    let reports = vec![
        report(7, 2 * MINUTE_NS, Some("cannot open library")),
        report(7, MINUTE_NS, Some("not an ELF file")),
        report(8, 2 * MINUTE_NS, Some("is traced by now")),
        report(8, MINUTE_NS, None),
        report(9, 10 * MINUTE_NS, Some("has ended")),
    ];
    fixture.land_records("n1", RecordKind::Process, reports).await;
    let served = fixture.serve().await;
    let untraced = &served.get_json("/api/v1/nodes").await["untraced"];
    assert_eq!(untraced.as_array().map(Vec::len), Some(1), "{untraced}");
    let of = |name: &str| untraced[0][name].clone();
    assert_eq!(
        [of("node"), of("pid"), of("name"), of("reason")],
        [json!("n1"), json!(7), json!("python3"), json!("not an ELF file")]
    );
}
