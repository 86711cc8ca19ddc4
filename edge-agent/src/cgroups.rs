//! What is known of cgroups, from all processes that were met in each.

use std::collections::HashMap;

use crate::process::{Process, Statement};

/// Cgroups kept at one time.
const CGROUPS_MAX: usize = 65_536;

/// One cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Inode in the v2 hierarchy, as events carry it; with v1 the same for many cgroups.
    pub id: i64,
    /// By `/proc/PID/cgroup`; absent when no process was seen alive in it.
    pub path: Option<String>,
    /// As its runtime shows it; absent outside of containers.
    pub container_id: Option<String>,
    /// By the environment of a process in the container.
    pub pod: Option<String>,
    /// By the environment of a process in the container.
    pub namespace: Option<String>,
}

/// The cgroups that processes were met in. With cgroup v1 many cgroups have the same id: the path distinguishes them.
#[derive(Debug, Default)]
pub struct Cgroups {
    known: HashMap<(i64, Option<String>), Cgroup>,
}

impl Cgroups {
    /// Takes what a process shows of its cgroup. Returns the cgroup when that adds something.
    pub fn meet(&mut self, id: i64, process: &Process) -> Option<Cgroup> {
        if self.known.len() >= CGROUPS_MAX {
            // No eviction by age: a cgroup that is met again is only reported again.
            self.known.clear();
        }
        let path = process.cgroup_path.clone();
        // A cgroup outside of containers may be that of the whole host: what holds of one process need not hold of the
        // others.
        let in_container = Some(process).filter(|process| process.container_id.is_some());
        let met = Cgroup {
            id,
            path: path.clone(),
            container_id: process.container_id.clone(),
            pod: in_container.and_then(Process::pod).map(str::to_owned),
            namespace: in_container.and_then(Process::namespace).map(str::to_owned),
        };
        let Some(known) = self.known.get_mut(&(id, path.clone())) else {
            self.known.insert((id, path), met.clone());
            return Some(met);
        };
        let before = known.clone();
        // The first statement stands; later processes only fill what is still absent.
        known.container_id = known.container_id.take().or(met.container_id);
        known.pod = known.pod.take().or(met.pod);
        known.namespace = known.namespace.take().or(met.namespace);
        (*known != before).then(|| known.clone())
    }

    /// Pod and namespace that other processes of the same container state. Empty for a process in no container: its
    /// cgroup may be that of the whole host.
    pub fn of_container(&self, id: i64, process: &Process) -> Statement {
        let cgroup = self.known.get(&(id, process.cgroup_path.clone()));
        match cgroup.filter(|cgroup| cgroup.container_id.is_some()) {
            Some(Cgroup { pod, namespace, .. }) => {
                Statement { pod: pod.clone(), namespace: namespace.clone(), ..Statement::default() }
            }
            None => Statement::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Facts of a cgroup grow with its processes.

    use super::*;

    fn process(path: &str, container_id: Option<&str>, environment: &str) -> Process {
        Process {
            cgroup_path: Some(path.to_owned()),
            container_id: container_id.map(str::to_owned),
            at_exec: Statement::of_environment(environment.as_bytes()),
            ..Process::default()
        }
    }

    #[test]
    fn a_later_process_completes_what_the_first_did_not_say() {
        let mut cgroups = Cgroups::default();
        let first = process("/pod/c1", Some("c1"), "");
        assert_eq!(cgroups.meet(7, &first).unwrap().pod, None);
        assert_eq!(cgroups.meet(7, &first), None, "nothing new");
        let second = process("/pod/c1", Some("c1"), "POD_NAME=trainer-0");
        assert_eq!(cgroups.meet(7, &second).unwrap().pod.as_deref(), Some("trainer-0"));
        let third = process("/pod/c1", Some("c1"), "POD_NAMESPACE=ml\0POD_NAME=other");
        let completed = cgroups.meet(7, &third).unwrap();
        assert_eq!((completed.pod.as_deref(), completed.namespace.as_deref()), (Some("trainer-0"), Some("ml")));
        assert_eq!(cgroups.of_container(7, &first).pod.as_deref(), Some("trainer-0"));
    }

    #[test]
    fn cgroups_of_one_id_and_of_no_container_share_nothing() {
        let mut cgroups = Cgroups::default();
        let (a, b) = (process("/a", None, "POD_NAME=a"), process("/b", None, "POD_NAME=b"));
        assert_eq!([cgroups.meet(1, &a), cgroups.meet(1, &b)].map(|cgroup| cgroup.unwrap().pod), [None, None]);
        assert_eq!(cgroups.meet(1, &a), None);
        assert_eq!(cgroups.of_container(1, &process("/a", None, "")), Statement::default());
    }
}
