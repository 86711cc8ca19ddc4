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
