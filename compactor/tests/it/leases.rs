//! Compactors share the work of a table: no task is done twice, and those of one that is gone pass on.

use std::time::Duration;

use futures::future::join_all;
use lake::Lake;
use maintenance::task::Work;
use maintenance::{Survey, survey};

use crate::fleet::{LATER_NS, SAME_DAY_NS, compact, listed, options};
use crate::place::Place;
use crate::rows::{TIME_LIMIT, def, land, range};

on_both!(
    compactors_that_start_together_share_the_tasks_and_do_none_twice,
    a_task_whose_compactor_is_gone_is_done_by_another_when_its_lease_has_ended,
);

async fn filled(place: &Place, commits: i64) -> Lake {
    let lake = place.lake().await;
    let table = lake.ensure_table(&def()).await.unwrap();
    for batch in 0..commits {
        land(&table, &[range(0, batch * 10, (batch + 1) * 10)]).await;
    }
    lake
}

/// Snapshots of the table that replaced files.
async fn replacements(lake: &Lake) -> u64 {
    let history = lake.table("silver", "t").snapshot().await.unwrap().history();
    history.iter().filter(|past| past.operation == "replace").count() as u64
}

async fn compactors_that_start_together_share_the_tasks_and_do_none_twice(place: Place) {
    filled(&place, 40).await;
    let tables = listed(def());
    let done = join_all((0..3).map(async |_| {
        let lake = place.lake().await;
        compact(&lake, tables, options(), LATER_NS).await
    }));
    let done = tokio::time::timeout(TIME_LIMIT, done).await.unwrap();
    let lake = place.lake().await;
    assert!(done.iter().all(|done| done.failed == 0), "{done:?}");
    assert_eq!(done.iter().map(|done| done.replaced).sum::<u64>(), replacements(&lake).await, "{done:?}");
    compact(&lake, tables, options(), LATER_NS).await;
    assert_eq!(lake.table("silver", "t").snapshot().await.unwrap().plan(&[]).await.unwrap().len(), 1);
    place.assert_landed(&[400]);
}

async fn a_task_whose_compactor_is_gone_is_done_by_another_when_its_lease_has_ended(place: Place) {
    let lake = filled(&place, 4).await;
    let tables = listed(def());
    let handle = lake.ensure_table(&def()).await.unwrap();
    let Survey::Planned(plan) = survey(&handle, &options().policy, SAME_DAY_NS / 1_000_000).await.unwrap() else {
        panic!("a plan")
    };
    let [task] = &plan.tasks[..] else { panic!("one task: {:?}", plan.tasks) };
    let Work::Rewrite(rewrite) = &task.work;
    assert_eq!(rewrite.inputs.len(), 4);
    let leases = lake.leases().await.unwrap();
    let gone = leases.acquire(&task.lease(), "gone", Duration::from_secs(10)).await.unwrap().unwrap();
    let done = compact(&lake, tables, options(), SAME_DAY_NS).await;
    assert_eq!((done.replaced, done.failed, done.left), (0, 0, 1));
    let heir = async {
        while compact(&lake, tables, options(), SAME_DAY_NS).await.replaced == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(TIME_LIMIT, heir).await.unwrap();
    assert!(!leases.renew(&gone, Duration::from_secs(60)).await.unwrap(), "one that comes back learns of it");
    place.assert_landed(&[40]);
}
