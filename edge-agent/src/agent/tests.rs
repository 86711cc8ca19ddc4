//! The end of any thread is the end of the agent.

use super::*;

const PATIENT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_thread_that_ends_by_itself_ends_the_agent_and_is_named_when_it_failed() {
    for thread in ["probe", "scout", "spool", "ship"] {
        let over = Drain::new();
        let worker = spawn(thread, &over, || panic!("on purpose")).unwrap();
        tokio::time::timeout(PATIENT, over.cancelled()).await.unwrap();
        let joined: Result<(), _> = tokio::time::timeout(PATIENT, worker.join()).await.unwrap();
        assert!(matches!(joined, Err(AgentError::Panicked { thread: failed }) if failed == thread));
    }
}

#[tokio::test]
async fn a_drain_ends_the_agent_and_the_agent_does_not_end_its_neighbours() {
    let drain = Drain::new();
    let over = drain.child_token();
    spawn("spool", &over, || ()).unwrap().join().await.unwrap();
    tokio::time::timeout(PATIENT, over.cancelled()).await.unwrap();
    assert!(!drain.is_cancelled());
    let over = drain.child_token();
    drain.cancel();
    assert!(over.is_cancelled());
}

#[tokio::test]
async fn a_run_that_is_left_early_ends_the_threads_it_has_started() {
    let over = Drain::new();
    let ending = Ending::default();
    let ends = ending.0.clone();
    let probe = spawn("probe", &over, move || {
        while !ends.stop.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    });
    let ends = ending.0.clone();
    let ship = spawn("ship", &over, move || {
        while ends.until(PATIENT) == Until::Stopped {
            std::thread::yield_now();
        }
    });
    drop(ending);
    for worker in [probe, ship] {
        tokio::time::timeout(PATIENT, worker.unwrap().join()).await.unwrap().unwrap();
    }
}
