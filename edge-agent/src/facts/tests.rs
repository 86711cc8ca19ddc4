//! Every record fits the catalogue, and says what is known.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;

use super::*;
use crate::cgroups::Cgroups;
use crate::process::Statement;

const ENVIRONMENT: &[u8] =
    b"RANK=3\0LOCAL_RANK=1\0WORLD_SIZE=8\0CAUSEWAY_JOB_ID=llm-7\0POD_NAME=trainer-0\0POD_NAMESPACE=ml";

/// One value of a row, as text; `None` for null.
fn value(batch: &RecordBatch, row: usize, name: &str) -> Option<String> {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no field {name}"));
    column.is_valid(row).then(|| array_value_to_string(column, row).unwrap())
}

fn values<const N: usize>(batch: &RecordBatch, row: usize, names: [&str; N]) -> [Option<String>; N] {
    names.map(|name| value(batch, row, name))
}

#[test]
fn the_session_tells_the_node_it_runs_on() {
    let session = Session::read(1_700_000_000_000_000_000, "causeway-agent 0", "method uprobe.multi".to_owned());
    assert!(session.cpu_cores > 0 && session.mem_total_mb.unwrap() > 100);
    assert!(session.kernel.is_some() && session.os_release.is_some());
    let cut = session.record(5, None).unwrap();
    assert_eq!((cut.kind, cut.batch.num_rows(), cut.losses.emitted), (RecordKind::Session, 1, 1));
    let reported = values(&cut.batch, 0, ["boot_ns", "started_ns", "stopped_ns", "kernel", "agent_version", "flags"]);
    let text = |text: &str| Some(text.to_owned());
    let (version, flags) = (text("causeway-agent 0"), text("method uprobe.multi"));
    assert_eq!(reported, [text("5"), text("1700000000000000000"), None, session.kernel.clone(), version, flags]);
    let ended = session.record(6, Some(7)).unwrap();
    assert_eq!(values(&ended.batch, 0, ["boot_ns", "stopped_ns"]), [text("6"), text("7")]);
}

#[test]
fn processes_and_cgroups_are_told_together_with_what_is_known_of_each() {
    let known = Process {
        pid: 77,
        name: "python".to_owned(),
        at_exec: Statement::of_environment(ENVIRONMENT),
        cgroup_path: Some("/kubepods/x".to_owned()),
        container_id: Some("c1".to_owned()),
        ..Process::default()
    };
    let mut facts = Facts::default();
    facts.add_process(&known, Some(9), 5, None).unwrap();
    facts.add_process(&Process { pid: 78, ..Process::default() }, Some(10), 6, Some("no room")).unwrap();
    facts.add_cgroup(&Cgroups::default().meet(9, &known).unwrap(), 5).unwrap();
    assert_eq!(facts.len(), 3);
    let [processes, cgroups] = &facts.cut().unwrap()[..] else { panic!("one message of each kind") };
    assert!(facts.is_empty() && facts.cut().unwrap().is_empty());
    assert_eq!((processes.kind, processes.batch.num_rows(), processes.losses.emitted), (RecordKind::Process, 2, 2));
    assert_eq!((cgroups.kind, cgroups.batch.num_rows()), (RecordKind::Cgroup, 1));
    let text = |text: &str| Some(text.to_owned());
    let names = ["name", "rank", "local_rank", "world_size", "job_id", "container_id"];
    let reported = [text("python"), text("3"), text("1"), text("8"), text("llm-7"), text("c1")];
    assert_eq!(values(&processes.batch, 0, names), reported);
    assert_eq!(values(&processes.batch, 1, names), [text(""), None, None, None, None, None]);
    let names = ["pod", "namespace", "rank_source", "untraced"];
    assert_eq!(values(&processes.batch, 0, names), [text("trainer-0"), text("ml"), text("environment at exec"), None]);
    assert_eq!(values(&processes.batch, 1, names), [None, None, None, text("no room")]);
    let long = |name| processes.batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((long("boot_ns"), long("cgroup_id")), (vec![5, 6], vec![9, 10]));
    let pids = processes.batch.column_by_name("pid").unwrap().as_primitive::<Int32Type>();
    assert_eq!(pids.values(), &[77, 78]);
    let names = ["boot_ns", "cgroup_id", "container_id", "cgroup_path", "pod", "namespace"];
    let reported = [text("5"), text("9"), text("c1"), text("/kubepods/x"), text("trainer-0"), text("ml")];
    assert_eq!(values(&cgroups.batch, 0, names), reported);
}
