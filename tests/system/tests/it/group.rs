//! Several ingest processes share one group's partitions; members come and go, and the tables do not show it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::{EVENTS, Place};
use crate::wait_until;

#[test]
fn members_of_a_group_share_the_work_and_one_that_joins_or_leaves_changes_nothing() {
    let _alone = alone();
    let place = Place::remote(8);
    let (mut one, two) = (Ingest::start(&place), Ingest::start(&place));
    one.wait_for_log("reading begins");
    let fleet = Fleet::start(&place, 16, 4_000, 1);
    wait_until("both land events", || [&one, &two].iter().all(|member| member.commits("silver.events") > 2));

    let three = Ingest::start(&place);
    wait_until("the third lands events", || three.commits("silver.events") > 2);
    one.0.terminate().ok();
    let left = Instant::now();

    let before = [&two, &three].map(|member| member.commits("silver.events"));
    wait_until("the others have all partitions", || two.partitions(EVENTS) + three.partitions(EVENTS) == 8);
    eprintln!("taken over {:?} after the first left", left.elapsed());
    wait_until("and go on", || {
        [&two, &three].iter().zip(before).all(|(member, before)| member.commits("silver.events") > before)
    });
    let account = fleet.stop();
    place.wait_for_no_lag(&[&two, &three]);
    two.0.terminate().ok();
    three.0.terminate().ok();
    eprintln!("{} events in {} messages", account.events, account.messages);
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}

/// Longer than the session of a member that died.
const CATALOG_AWAY: Duration = Duration::from_secs(15);

/// A member that stands still is thrown out of the group, and when it goes on it still holds a batch that others landed.
#[test]
fn members_that_die_or_stand_still_beside_others_lose_and_repeat_nothing() {
    let _alone = alone();
    let place = Place::remote(8);
    let (mut one, mut two) = (Ingest::start(&place), Ingest::start(&place));
    one.wait_for_log("reading begins");
    two.wait_for_log("reading begins");
    let fleet = Fleet::start(&place, 16, 4_000, 2);
    wait_until("both land events", || [&one, &two].iter().all(|member| member.commits("silver.events") > 2));

    assert!(two.kill());
    wait_until("the one that is left has all partitions", || one.partitions(EVENTS) == 8);
    let (mut three, mut four) = (Ingest::start(&place), Ingest::start(&place));
    three.wait_for_log("reading begins");
    four.wait_for_log("reading begins");
    // Partitions change hands while the catalog is away.
    place.postgres().kill();
    assert!(four.kill());
    std::thread::sleep(CATALOG_AWAY);
    place.postgres().restart();
    wait_until("two share the work", || {
        let shares = [&one, &three].map(|member| member.partitions(EVENTS));
        shares.iter().sum::<usize>() == 8 && shares.iter().all(|share| *share > 0)
    });

    one.signal(Signal::SIGSTOP);
    wait_until("the other takes over", || three.partitions(EVENTS) == 8);
    let before = three.commits("silver.events");
    wait_until("and lands events", || three.commits("silver.events") > before);
    one.signal(Signal::SIGCONT);
    wait_until("it gets partitions again", || three.partitions(EVENTS) < 8);
    let account = fleet.stop();
    place.wait_for_no_lag(&[&one, &three]);
    for member in [one, three] {
        member.0.terminate().ok();
    }
    eprintln!("{} events in {} messages", account.events, account.messages);
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}
