//! Processes share work by leases, which pass on when their holder is gone.

use std::time::Duration;

use futures::future::join_all;
use lake::{CatalogError, Lake, LakeOptions};

use crate::place::Place;
use crate::rows::TIME_LIMIT;

on_both!(
    one_of_many_that_ask_at_once_gets_a_lease_and_the_others_after_it,
    a_lease_passes_on_when_it_has_ended_and_its_former_holder_learns_of_it,
);

const LONG: Duration = Duration::from_secs(600);

async fn one_of_many_that_ask_at_once_gets_a_lease_and_the_others_after_it(place: Place) {
    let asked = (0..8).map(async |worker| {
        let leases = place.lake().await.leases().await.unwrap();
        leases.acquire("silver.t/1", &format!("w{worker}"), LONG).await.unwrap()
    });
    let found: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let leases = place.lake().await.leases().await.unwrap();
    assert!(leases.acquire("silver.t/2", "other", LONG).await.unwrap().is_some(), "of another name");
    assert!(leases.renew(&found[0], LONG).await.unwrap());
    let again = leases.acquire("silver.t/1", &found[0].holder, LONG).await.unwrap().unwrap();
    assert_eq!(again.fence, 2, "its own holder may lose the reply and ask again");
    assert!(!leases.renew(&found[0], LONG).await.unwrap(), "the older one is no lease any more");
    leases.release(&found[0]).await.unwrap();
    assert_eq!(leases.acquire("silver.t/1", "other", LONG).await.unwrap(), None, "only the newest is released");
    leases.release(&again).await.unwrap();
    let next = leases.acquire("silver.t/1", "other", LONG).await.unwrap().unwrap();
    assert_eq!(next.fence, 3);
}

async fn a_lease_passes_on_when_it_has_ended_and_its_former_holder_learns_of_it(place: Place) {
    let leases = place.lake().await.leases().await.unwrap();
    let dead = leases.acquire("silver.t/1", "dead", Duration::from_secs(3)).await.unwrap().unwrap();
    assert_eq!(leases.acquire("silver.t/1", "heir", LONG).await.unwrap(), None);
    let asked = async {
        loop {
            if let Some(lease) = leases.acquire("silver.t/1", "heir", LONG).await.unwrap() {
                return lease;
            }
        }
    };
    let heir = tokio::time::timeout(TIME_LIMIT, asked).await.unwrap();
    assert_eq!((heir.holder.as_str(), heir.fence), ("heir", dead.fence + 1));
    assert!(!leases.renew(&dead, LONG).await.unwrap());
    leases.release(&dead).await.unwrap();
    assert!(leases.renew(&heir, LONG).await.unwrap(), "the dead one cannot release it");
    // A lease that no other holder has taken has ended all the same.
    let short = leases.acquire("silver.t/2", "late", Duration::ZERO).await.unwrap().unwrap();
    assert!(!leases.renew(&short, LONG).await.unwrap());
}

#[tokio::test]
async fn a_catalog_in_memory_keeps_no_leases() {
    let dir = tempfile::tempdir().unwrap();
    let warehouse = dir.path().display().to_string();
    let lake = Lake::open(LakeOptions { catalog_uri: "memory:".to_owned(), warehouse, s3: None }).await.unwrap();
    assert!(matches!(lake.leases().await, Err(CatalogError::NoLeases { .. })));
}
