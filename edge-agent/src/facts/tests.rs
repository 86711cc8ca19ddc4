//! Every record fits the catalogue, and says what is known.

use super::*;

#[test]
fn the_session_tells_the_node_it_runs_on() {
    let session = Session::read(1_700_000_000_000_000_000, "causeway-agent 0", "method uprobe.multi".to_owned());
    assert!(session.cpu_cores > 0 && session.mem_total_mb.unwrap() > 100);
    assert!(session.kernel.is_some() && session.os_release.is_some());
    let cut = session.record(5, None).unwrap();
    assert_eq!((cut.kind, cut.batch.num_rows(), cut.losses.emitted), (RecordKind::Session, 1, 1));
    session.record(6, Some(7)).unwrap();
}

#[test]
fn a_process_and_its_cgroup_fit_the_catalogue_with_and_without_facts() {
    let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
    for process in [own, Process::default()] {
        assert_eq!(super::process(&process, 1, 5).unwrap().kind, RecordKind::Process);
        assert_eq!(cgroup(&process, 1, 5).unwrap().kind, RecordKind::Cgroup);
    }
}
