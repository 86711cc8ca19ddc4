//! Writers agree on the homes of agents' runs.

use std::collections::HashMap;

use event_schema::identity::LaneId;
use event_schema::position::TopicPartition;
use event_schema::stream::Lane;
use futures::future::join_all;
use lake::Home;

use crate::place::Place;

on_both!(
    writers_that_claim_at_once_agree_and_later_ones_learn_what_was_agreed,
    a_home_is_moved_once_and_only_from_where_it_was,
);

fn at(partition: i32) -> TopicPartition {
    TopicPartition::new("causeway.events.v1", partition)
}

/// Names with what is special to one database or the other.
fn lanes(count: usize) -> Vec<LaneId> {
    let lane = |i: usize| LaneId {
        node: format!("n'{i}\\ \0ä").into(),
        boot_id: "".into(),
        epoch: (1 << 40) + i as i64,
        lane: if i.is_multiple_of(2) { Lane::Events } else { Lane::Critical },
    };
    (0..count).map(lane).collect()
}

async fn writers_that_claim_at_once_agree_and_later_ones_learn_what_was_agreed(place: Place) {
    // More than one statement takes.
    let lanes = lanes(1_200);
    let claims = (0..4).map(async |writer| {
        let homes = place.lake().await.homes().await.unwrap();
        let proposed: HashMap<_, _> = lanes.iter().map(|lane| (lane.clone(), at(writer))).collect();
        homes.claim(&proposed).await.unwrap()
    });
    let agreed = join_all(claims).await;
    assert_eq!(agreed[0].len(), lanes.len());
    assert!(agreed.iter().all(|homes| *homes == agreed[0]));
    assert!(agreed[0].values().all(|home| !home.is_moved && (0..4).contains(&home.at.partition)));

    let late = place.lake().await.homes().await.unwrap();
    let proposed = lanes.iter().map(|lane| (lane.clone(), at(9))).collect();
    assert_eq!(late.claim(&proposed).await.unwrap(), agreed[0]);
    assert_eq!(late.claim(&HashMap::new()).await.unwrap(), HashMap::new());
}

async fn a_home_is_moved_once_and_only_from_where_it_was(place: Place) {
    let homes = place.lake().await.homes().await.unwrap();
    let [moved, other] = &lanes(2)[..] else { panic!("two lanes") };
    let proposed = HashMap::from([(moved.clone(), at(3)), (other.clone(), at(3))]);
    homes.claim(&proposed).await.unwrap();
    let expected = Home { at: at(1), is_moved: true };
    assert_eq!(homes.rehome(moved, &at(3), &at(1)).await.unwrap(), Some(expected.clone()));
    // Another writer found the same, a moment later.
    assert_eq!(homes.rehome(moved, &at(3), &at(2)).await.unwrap(), Some(expected.clone()));
    let found = homes.claim(&proposed).await.unwrap();
    assert_eq!(found[moved], expected);
    assert_eq!(found[other], Home { at: at(3), is_moved: false });
}
