//! Derives a container's id from a cgroup path, by the names that container runtimes give to cgroups.

/// The id of the container a cgroup path belongs to, in the form its runtime shows:
///
/// * 64 hexadecimal digits: docker, containerd, CRI-O, podman, ECS on EC2;
/// * `<32 hexadecimal digits>-<number>`: ECS on Fargate;
/// * the container's name: LXC (`lxc.payload.NAME`, `lxc/NAME`) and systemd-nspawn (`machine-NAME.scope`).
pub(super) fn container_id(path: &str) -> Option<String> {
    hexadecimal_id(path).or_else(|| named_id(path))
}

fn hexadecimal_id(path: &str) -> Option<String> {
    // From the right: of nested containers the innermost, in which the process runs.
    let mut words = path.rsplit(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| word.len() == 64 && is_hexadecimal(word)).map(str::to_owned)
}

fn named_id(path: &str) -> Option<String> {
    let mut above = "";
    let mut found = None;
    // The outermost container is the one that the host's runtime lists.
    for part in path.split('/') {
        let machine = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
        let name = match part.strip_prefix("lxc.payload.").or(machine) {
            Some(name) => Some(name),
            None if above == "lxc" || is_ecs_task(part) => Some(part),
            None => None,
        };
        found = found.or(name.filter(|name| !name.is_empty()));
        above = part;
    }
    found.map(unescaped)
}

/// `<32 hexadecimal digits>-<number>`.
fn is_ecs_task(part: &str) -> bool {
    part.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && is_hexadecimal(task)
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn is_hexadecimal(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// systemd writes `-` in a unit's name as `\x2d`.
fn unescaped(name: &str) -> String {
    name.replace("\\x2d", "-")
}

#[cfg(test)]
mod tests {
    //! Paths as each runtime makes them.

    use super::*;

    #[test]
    fn containers_are_recognised_in_the_cgroup_paths_of_every_runtime() {
        let id = "0123456789abcdef".repeat(4);
        let task = "0123456789abcdef".repeat(2);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods.slice/kubepods-pod1234.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/burstable/pod12-34/{id}"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/ecs/{task}/{id}"),
            format!("/lxc.payload.outer/docker/{id}"),
        ] {
            assert_eq!(container_id(&path).as_deref(), Some(id.as_str()), "{path}");
        }
    }

    #[test]
    fn containers_that_are_not_named_by_64_digits_are_recognised() {
        let task = format!("{}-1234567890", "0123456789abcdef".repeat(2));
        for (path, id) in [
            ("/lxc.payload.web1/".to_owned(), "web1"),
            ("/lxc.payload.web-2/system.slice/ssh.service".to_owned(), "web-2"),
            ("/lxc.payload.outer/lxc.payload.inner".to_owned(), "outer"),
            ("/lxc/web3".to_owned(), "web3"),
            (format!("/ecs/{task}/"), task.as_str()),
            (format!("/ecs/{task}"), task.as_str()),
            ("/machine.slice/machine-train\\x2da.scope/payload".to_owned(), "train-a"),
        ] {
            assert_eq!(container_id(&path).as_deref(), Some(id), "{path}");
        }
    }

    #[test]
    fn a_cgroup_of_no_container_has_no_id() {
        for path in [
            "/user.slice/user-1000.slice/session-2.scope",
            "/lxc.monitor.web1",
            "/lxc",
            "/",
            "/ecs/0123456789abcdef-12",
            "/system.slice/0123456789abcdef0123456789abcdef-x.service",
        ] {
            assert_eq!(container_id(path), None, "{path}");
        }
    }
}
