//! The only broker stands still for longer than its session with the controller, again and again: it leaves the metadata and
//! comes back, and ingest waits for it.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::Place;
use crate::wait_until;

/// Longer than the session of the broker that `infra/dev/kafka.sh` starts.
const STILL: Duration = Duration::from_millis(3_300);
const TIMES: u32 = 10;

#[test]
fn an_ingest_whose_only_broker_is_fenced_ten_times_goes_on() {
    let _alone = alone();
    let place = Place::local();
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    let fleet = Fleet::start(&place, 4, 2_000, 1);
    for time in 1..=TIMES {
        let before = ingest.commits("silver.events");
        wait_until("events land", || ingest.commits("silver.events") > before);
        place.kafka.signal(Signal::SIGSTOP);
        std::thread::sleep(STILL);
        place.kafka.signal(Signal::SIGCONT);
        assert!(ingest.ended().is_none(), "ended after {time} times: {}", ingest.last_lines());
    }
    let fenced = place.kafka.fenced();
    assert!(fenced >= TIMES as usize / 2, "the broker was fenced {fenced} times");
    let account = fleet.stop();
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}
