//! Messages are copied to other partitions by another tool, agents repeat theirs after partitions were added, and members of the
//! group die meanwhile: every event lands once.

use std::collections::BTreeSet;

use event_schema::position::{Message, TopicPartition};
use stream::kafka::{KafkaConfig, KafkaProducer, ProducerRecord, Sent};

use crate::chance::Chance;
use crate::fleet::Fleet;
use crate::harness::alone;
use crate::ingest::Ingest;
use crate::place::{EVENTS, Place};
use crate::{TEST_TIMEOUT, topics, wait_until};

/// A tool with a partitioner of its own.
struct Mirror(KafkaProducer);

impl Mirror {
    fn open(place: &Place) -> Self {
        Self(KafkaProducer::open(&KafkaConfig { brokers: place.brokers(), ..KafkaConfig::default() }).unwrap())
    }

    /// Copies about a quarter of the messages to any of `partitions` partitions; returns how many.
    fn copy(&self, messages: &[Message], partitions: u64, chance: &mut Chance) -> usize {
        let mut copied = 0;
        for message in messages.iter().filter(|message| &*message.at.topic == EVENTS) {
            if chance.one_in(4) {
                let to = TopicPartition::new(EVENTS, chance.below(partitions) as i32);
                let sent = self.0.send_to(&to, ProducerRecord::of(message), 0);
                assert_eq!(sent.unwrap(), Sent::Queued);
                copied += 1;
            }
        }
        self.wait_for(copied);
        copied
    }

    /// Sends messages once more, as an agent would that did not note their acknowledgement.
    fn repeat(&self, messages: &[Message]) {
        for message in messages {
            let sent = self.0.send(&message.at.topic, ProducerRecord::new(message.key.as_deref(), &message.payload), 0);
            assert_eq!(sent.unwrap(), Sent::Queued);
        }
        self.wait_for(messages.len());
    }

    fn wait_for(&self, messages: usize) {
        for _ in 0..messages {
            self.0.delivery(TEST_TIMEOUT).expect("an acknowledgement").result.unwrap();
        }
    }
}

fn forwarded(members: &[&Ingest]) -> f64 {
    members.iter().filter_map(|m| m.metric("causeway_ingest_forwarded_messages_total", &[])).sum()
}

#[test]
fn messages_in_other_partitions_than_their_own_land_once_while_members_die_and_partitions_are_added() {
    let _alone = alone();
    let (mut chance, seed) = Chance::seeded();
    let mut place = Place::remote(4);
    let (mut one, mut two) = (Ingest::start(&place), Ingest::start(&place));
    one.wait_for_log("reading begins");
    two.wait_for_log("reading begins");
    let fleet = Fleet::start(&place, 8, 4_000, seed);
    wait_until("both land events", || [&one, &two].iter().all(|member| member.commits("silver.events") > 2));

    let mirror = Mirror::open(&place);
    let mut copied = mirror.copy(&place.messages(), 4, &mut chance);
    wait_until("copies are forwarded", || forwarded(&[&one, &two]) > 0.0);
    assert!(one.kill());
    copied += mirror.copy(&place.messages(), 4, &mut chance);
    let three = Ingest::start(&place);
    // The group shares out the partitions of both topics together: of this one, a member may have three.
    wait_until("two share the work", || {
        let shares = [two.partitions(EVENTS), three.partitions(EVENTS)];
        shares.iter().sum::<usize>() == 4 && !shares.contains(&0)
    });
    let account = fleet.stop();

    place.grow(8);
    wait_until("the added partitions are read", || two.partitions(EVENTS) + three.partitions(EVENTS) == 8);
    assert!(two.kill());
    // A producer opened now knows of the added partitions: half of the nodes have another one.
    let (again, messages) = (Mirror::open(&place), place.messages());
    again.repeat(&messages);
    copied += again.copy(&messages, 8, &mut chance);
    let four = Ingest::start(&place);
    // The second time, what was forwarded last is waited for.
    for _ in 0..2 {
        place.wait_for_no_lag(&[&three, &four]);
    }
    eprintln!("{} events in {} messages, {copied} copied", account.events, account.messages);
    eprintln!("{} forwarded by the members left", forwarded(&[&three, &four]));
    assert!(forwarded(&[&three, &four]) > 0.0);
    for member in [three, four] {
        member.0.terminate().ok();
    }
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}

/// The topic has fewer partitions after it was made anew, so that some agents' homes are gone. What they repeat landed from there.
#[test]
fn what_landed_from_a_partition_that_is_gone_is_known_where_its_agents_send_now() {
    let _alone = alone();
    let mut place = Place::remote(4);
    let mut ingest = Ingest::start(&place);
    ingest.wait_for_log("reading begins");
    let account = Fleet::send(&place, 8, 40_000, 5);
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    let messages: Vec<_> = place.messages().into_iter().filter(|message| &*message.at.topic == EVENTS).collect();
    let homes: BTreeSet<_> = messages.iter().map(|message| message.at.partition).collect();
    assert!(homes.contains(&2) || homes.contains(&3), "no agent's home will be gone: {homes:?}");

    place.set_partitions(2);
    topics::make_anew(&place);
    topics::write(&place, &messages);
    let follow = || Ingest::start_with(&place, &["ingest.on_new_log=follow"]);
    let mut ingest = follow();
    ingest.wait_for_log("it is moved");
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    // Once more, by a process that has to read anew which homes were moved.
    topics::write(&place, &messages);
    let ingest = follow();
    place.wait_for_no_lag(&[&ingest]);
    ingest.0.terminate().ok();
    place.assert_audit_holds();
    assert_eq!(place.oracle("silver.events", &[]), account.expected);
}
