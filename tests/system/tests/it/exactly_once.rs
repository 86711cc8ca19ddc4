//! Ingest, Kafka and PostgreSQL are killed and S3 fails while events flow: afterwards every event is in the tables once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::{Chance, FaultLog};
use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::Place;
use crate::program::Program;
use crate::wait_until;

/// Kills of ingest between two other faults.
const KILLS_BETWEEN: u32 = 3;

/// What goes wrong besides ingest being killed, in this order.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kafka,
    Postgres,
    /// An order to `s3.sh fault`.
    S3(&'static str),
}

const FAULTS: [Fault; 8] = [
    Fault::S3("status=503&seconds=3"),
    Fault::Kafka,
    Fault::S3("status=500&count=6&when=after&method=PUT,POST"),
    Fault::Postgres,
    Fault::S3("status=500&seconds=2&when=after"),
    Fault::Kafka,
    Fault::S3("status=503&count=20"),
    Fault::S3("status=502&seconds=2&method=GET,HEAD"),
];

#[test]
fn every_event_lands_once_while_everything_is_killed() {
    survive(25);
}

#[test]
#[ignore = "ten minutes: make torture"]
fn torture_every_event_lands_once_while_everything_is_killed() {
    survive(250);
}

#[test]
fn every_event_lands_once_while_a_compactor_is_killed_beside_ingest() {
    let _alone = alone();
    let (mut chance, seed) = Chance::seeded();
    let mut log = FaultLog::new();
    let place = Place::remote(2);
    Ingest::start_as(&place, "one").wait_for_log("reading begins");
    let fleet = Fleet::start(&place, 4, 2_000, seed);
    let mut killed = 0;
    while killed < 8 {
        let mut compactor = start_compactor(&place);
        killed += u32::from(kill_once(&place, &mut chance, &mut log));
        compactor.kill();
        assert_unharmed(&compactor);
    }
    let account = fleet.stop();
    let ingest = Ingest::start_as(&place, "one");
    let mut compactor = start_compactor(&place);
    place.wait_for_no_lag(&[&ingest]);
    compactor.wait_for_log("files replaced");
    assert_unharmed(&compactor);
    ingest.0.terminate().ok();
    compactor.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}

/// One that merges whatever two files there are of one size.
fn start_compactor(place: &Place) -> Program {
    let mut command = place.command("causeway-compactor");
    for setting in ["compactor.fan_in=2", "compactor.interval=100ms", "compactor.lease=15s"] {
        command.args(["--set", setting]);
    }
    Program::start(command)
}

fn assert_unharmed(compactor: &Program) {
    for text in ["panicked", "refused before its commit"] {
        assert!(compactor.logged(text).is_none(), "{}", compactor.last_lines());
    }
}

fn survive(kills: u32) {
    let _alone = alone();
    let (mut chance, seed) = Chance::seeded();
    let mut log = FaultLog::new();
    let place = Place::remote(4);
    let at = &place;
    Ingest::start_as(&place, "one").wait_for_log("reading begins");
    let fleet = Fleet::start(&place, 8, 4_000, seed);
    let (mut killed, mut hits) = (0, BTreeMap::new());
    for round in 0.. {
        if killed >= kills {
            break;
        }
        assert!(round < 4 * kills as usize, "{killed} kills only: ingest ends by itself");
        let fault = FAULTS[round % FAULTS.len()];
        let before = place.s3().faulted();
        std::thread::scope(|scope| {
            let down_for = chance.millis(200..2_500);
            log.note(format_args!("{fault:?} (down for {down_for:?}, if it is a server)"));
            let struck = scope.spawn(move || strike(at, fault, down_for));
            for _ in 0..KILLS_BETWEEN {
                killed += u32::from(kill_once(&place, &mut chance, &mut log));
            }
            struck.join().unwrap();
        });
        if let Fault::S3(order) = fault {
            *hits.entry(order).or_insert(0) += place.s3().faulted() - before;
        }
    }
    place.s3().fault("clear");
    eprintln!("requests that S3 failed: {hits:?}");
    // One that fails so many requests waits for them; one that lasts a while may pass before ingest has started.
    let (counted, timed): (Vec<_>, Vec<_>) = hits.iter().partition(|(order, _)| order.contains("count="));
    let have_struck = counted.iter().all(|(_, hits)| **hits > 0) && timed.iter().any(|(_, hits)| **hits > 0);
    assert!(have_struck, "faults of S3 hit nothing: {hits:?}");
    let account = fleet.stop();
    log.note(format_args!("{killed} kills, {} events in {} messages", account.events, account.messages));
    eprintln!("{killed} kills, {} events in {} messages", account.events, account.messages);

    let ingest = Ingest::start_as(&place, "one");
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
    let messages = ["--id", "log_name,log_partition,log_offset", "--group", "log_name", "--sum", "log_offset"];
    assert_eq!(place.oracle("bronze.messages", &messages).rows, account.messages);
}

fn strike(place: &Place, fault: Fault, down_for: Duration) {
    let server = match fault {
        Fault::S3(order) => return place.s3().fault(order),
        Fault::Kafka => &place.kafka,
        Fault::Postgres => place.postgres(),
    };
    server.kill();
    std::thread::sleep(down_for);
    server.restart();
}

/// Starts ingest and kills it at a random moment: while it starts, or after it has landed something. False when it ended by
/// itself before, as it does when it is started while a server is away.
fn kill_once(place: &Place, chance: &mut Chance, log: &mut FaultLog) -> bool {
    let mut ingest = Ingest::start_as(place, "one");
    let moment = if chance.one_in(4) {
        chance.millis(0..1_500)
    } else {
        wait_until("ingest lands something or ends", || ingest.commits("") > 0 || ingest.ended().is_some());
        chance.millis(0..700)
    };
    std::thread::sleep(moment);
    let commits = ingest.commits("");
    let was_alive = ingest.kill();
    match was_alive {
        true => log.note(format_args!("ingest killed after {commits} commits")),
        false => {
            log.note(format_args!("ingest had ended by itself: {}", ingest.last_lines()));
            let is_excused = NOT_STARTED.iter().any(|error| ingest.logged(error).is_some())
                && ingest.logged(ANOTHER_SCHEMA).is_none();
            assert!(is_excused, "ingest ended although it had begun: {}", ingest.last_lines());
        }
    }
    assert!(ingest.logged("panicked").is_none(), "{}", ingest.last_lines());
    was_alive
}

/// What ingest says when a server is away at its start. Once it has begun it waits for them.
const NOT_STARTED: [&str; 3] = [
    "error: the lake cannot be opened",
    "error: kafka cannot be used",
    "error: a table could not be created or is not ours to write",
];

/// What it says of a table that is there and not as it should be: no server that is away excuses that.
const ANOTHER_SCHEMA: &str = "was made with another schema";
