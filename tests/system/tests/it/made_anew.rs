//! A topic is deleted and made anew under a running ingest: nothing of the new log lands as if it were of the old one, and the
//! operator can go on without losing anything of either.

use nix::sys::signal::Signal;

use crate::fleet::{Account, Fleet};
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::{EVENTS, Place};
use crate::{topics, wait_until};

/// So long that a member that stands still for a while keeps its partitions.
const LONG_SESSION: &str = "kafka.session_timeout_ms=30000";
const FOLLOW: &str = "ingest.on_new_log=follow";
const ANOTHER_LOG: &str = "is another log than the one the tables were filled from";

/// Messages in `bronze.messages`, by the log they came from.
#[track_caller]
fn messages_by_log(place: &Place) -> Vec<(String, u64)> {
    let by_log = ["--id", "log_name,log_partition,log_offset", "--group", "log_name", "--sum", "log_offset"];
    place.oracle("bronze.messages", &by_log).groups.into_iter().collect()
}

/// Waits for ingest to end because of another log; what landed before is `landed` and nothing else.
#[track_caller]
fn ends_with_nothing_of_the_new_log(place: &Place, ingest: Ingest, landed: &Account) {
    let said = ingest.0.end(crate::TEST_TIMEOUT);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains(ANOTHER_LOG) && said.err.contains("on_new_log"), "{}", said.err);
    assert_eq!(place.oracle("silver.events", &[]), landed.expected);
}

/// Goes on with the new log, and lands all of it.
#[track_caller]
fn follow(place: &Place, generation: u32) -> Ingest {
    let ingest = Ingest::start_with(place, &[FOLLOW, LONG_SESSION]);
    // Until the log is known to be another one, the offsets of the former log are reported, which may be higher.
    is_followed(&ingest, generation);
    place.wait_for_no_lag(&[&ingest]);
    ingest
}

/// Waits until both partitions are read as this generation of the log.
fn is_followed(ingest: &Ingest, generation: u32) {
    wait_until("both partitions are followed", || {
        [0, 1]
            .iter()
            .all(|partition| ingest.logged(&format!("\"now\":\"{EVENTS}@{generation}/{partition}\"")).is_some())
    });
}

/// Each time another way of being made anew. Ingest stands still meanwhile, so that its client sees neither the deletion nor an
/// error; in the last round the group changes at the same time.
#[test]
fn a_topic_made_anew_under_a_running_ingest_is_noticed_and_followed_whatever_it_holds() {
    let _alone = alone();
    let place = Place::local();
    let mut ingest = Ingest::start_with(&place, &[LONG_SESSION]);
    ingest.wait_for_log("reading begins");
    let mut all = Fleet::send(&place, 4, 20_000, 1);
    place.wait_for_no_lag(&[&ingest]);
    let mut logs = vec![(EVENTS.to_owned(), all.messages)];

    // More messages than the old log had: a client that goes on at its offset reads the rest of them.
    ingest.signal(Signal::SIGSTOP);
    topics::make_anew(&place);
    let anew = Fleet::send(&place, 4, 60_000, 2);
    ingest.signal(Signal::SIGCONT);
    ends_with_nothing_of_the_new_log(&place, ingest, &all);
    ingest = follow(&place, 2);
    all = all.and(&anew);
    logs.push((format!("{EVENTS}@2"), anew.messages));

    // As many messages: the position is the end of the new log, and no message shows that it is another one.
    ingest.signal(Signal::SIGSTOP);
    topics::make_anew(&place);
    let same_number = Fleet::send(&place, 4, 60_000, 3);
    assert_eq!(same_number.messages, anew.messages);
    ingest.signal(Signal::SIGCONT);
    // This one was started to follow, and does so by itself.
    is_followed(&ingest, 3);
    place.wait_for_no_lag(&[&ingest]);
    all = all.and(&same_number);
    logs.push((format!("{EVENTS}@3"), same_number.messages));

    // The same messages: as a log that was restored from a copy. Their rows are there already.
    let messages: Vec<_> = place.messages().into_iter().filter(|message| &*message.at.topic == EVENTS).collect();
    ingest.0.terminate().ok();
    let ingest = Ingest::start_with(&place, &[LONG_SESSION]);
    place.wait_for_no_lag(&[&ingest]);
    ingest.signal(Signal::SIGSTOP);
    topics::make_anew(&place);
    topics::write(&place, &messages);
    ingest.signal(Signal::SIGCONT);
    ends_with_nothing_of_the_new_log(&place, ingest, &all);
    follow(&place, 4).0.terminate().ok();
    logs.push((format!("{EVENTS}@4"), messages.len() as u64));
    assert_eq!(place.oracle("silver.events", &[]), all.expected);

    // While the group gives partitions to a second member.
    let mut one = Ingest::start(&place);
    place.wait_for_no_lag(&[&one]);
    let two = Ingest::start(&place);
    one.wait_for_log("partition revoked");
    topics::make_anew(&place);
    let shared = Fleet::send(&place, 4, 30_000, 5);
    let mut members = [one, two];
    wait_until("a member notices", || members.iter_mut().any(|member| member.ended().is_some()));
    for mut member in members {
        let has_ended = member.ended().is_some();
        let said = if has_ended { member.0.end(crate::TEST_TIMEOUT) } else { member.0.terminate() };
        assert!(said.code == Some(0) || said.err.contains(ANOTHER_LOG), "{}", said.err);
    }
    assert_eq!(place.oracle("silver.events", &[]), all.expected);
    follow(&place, 5).0.terminate().ok();
    logs.push((format!("{EVENTS}@5"), shared.messages));
    all = all.and(&shared);

    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), all.expected);
    assert_eq!(messages_by_log(&place), logs);
}

/// Ingest has paused reading, because its memory is full while the catalog is away.
#[test]
fn a_topic_made_anew_while_reading_is_paused_loses_nothing_that_was_read_and_nothing_of_the_new_log() {
    let _alone = alone();
    let place = Place::remote(2);
    let mut ingest = Ingest::start_with(&place, &["ingest.memory=16MiB", LONG_SESSION]);
    ingest.wait_for_log("reading begins");
    // The nodes are known before the catalog goes: an agent's run that is new waits for the catalog to give it a home.
    let fleet = Fleet::start(&place, 4, 20_000, 1);
    wait_until("events land", || ingest.commits("silver.events") > 0);
    place.postgres().kill();
    // Half of the memory is for messages that have not landed.
    wait_until("the memory is full", || {
        ingest.metric("causeway_ingest_buffered_bytes", &[]).is_some_and(|bytes| bytes >= f64::from(8 << 20))
    });
    fleet.stop();
    let read = ingest.metric("causeway_ingest_messages_total", &[]).unwrap() as u64;
    topics::make_anew(&place);
    let anew = Fleet::send(&place, 4, 400_000, 2);
    place.postgres().restart();
    let said = ingest.0.end(crate::TEST_TIMEOUT);
    assert!(said.code == Some(1) && said.err.contains(ANOTHER_LOG), "{}", said.err);
    let by_log = messages_by_log(&place);
    let [(log, landed)] = &by_log[..] else { panic!("{by_log:?}") };
    assert!(log == EVENTS && *landed >= read, "{landed} landed, {read} were read of {log}");

    follow(&place, 2).0.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(messages_by_log(&place), [(EVENTS.to_owned(), *landed), (format!("{EVENTS}@2"), anew.messages)]);
    assert_eq!(place.oracle("silver.events", &[]).rows, landed * 200 + anew.events);
}
