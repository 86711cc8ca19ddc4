//! What an environment states about a process: rank, job and pod.

use std::collections::HashMap;

/// Which variables state a rank: rank, rank on its node, number of ranks. The first row whose rank is set and a number
/// gives all three, since each counts something else: under `srun torchrun`, SLURM counts the launchers.
const RANKS: &[[&str; 3]] = &[
    ["RANK", "LOCAL_RANK", "WORLD_SIZE"],
    ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"],
];
/// The first that is set wins.
const JOB_ID: &[&str] = &["CAUSEWAY_JOB_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"];
/// Every variable that is read here: those that the probes keep from exec on.
pub const VARIABLES: &[&str] = &[
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NTASKS",
    // Stands for its two siblings too: the probes compare 16 bytes of `NAME=`, and all three begin with
    // `OMPI_COMM_WORLD_`.
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "MPI_LOCALRANKID",
    "PMI_SIZE",
    "CAUSEWAY_JOB_ID",
    "SLURM_JOB_ID",
    "TORCHELASTIC_RUN_ID",
    "POD_NAME",
    "POD_NAMESPACE",
    "HOSTNAME",
    "KUBERNETES_SERVICE_HOST",
];
/// A job name longer than this is cut: it becomes a word of every row.
const NAME_BYTES_MAX: usize = 128;

/// A rank, and what else the same source states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// In the job, from 0.
    pub rank: i32,
    /// On the node, from 0.
    pub local_rank: Option<i32>,
    /// How many ranks there are.
    pub world_size: Option<i32>,
}

/// What one environment states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// By the first row of `RANKS` whose rank is a number and not negative.
    pub ranks: Option<Ranks>,
    /// By the first variable of `JOB_ID` that is not empty, cut off after 128 bytes.
    pub job_id: Option<String>,
    /// Name of the Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes namespace of the pod.
    pub namespace: Option<String>,
}

impl Statement {
    /// Reads an environment: `NAME=VALUE`, each with a zero byte at its end. What is not text is left out, and of
    /// several variables of one name the first counts, as for getenv(3).
    pub fn of_environment(environment: &[u8]) -> Self {
        let mut variables = HashMap::new();
        for variable in environment.split(|byte| *byte == 0).filter_map(text_of) {
            if let Some((name, value)) = variable.split_once('=') {
                variables.entry(name).or_insert(value);
            }
        }
        Self::of_variables(&variables)
    }

    fn of_variables(environment: &HashMap<&str, &str>) -> Self {
        // Kubernetes names the container's host after the pod, unless it shares the node's network.
        let is_in_kubernetes = environment.contains_key("KUBERNETES_SERVICE_HOST");
        let host = first_of(environment, &["HOSTNAME"]).filter(|_| is_in_kubernetes);
        Self {
            ranks: ranks(environment),
            job_id: first_of(environment, JOB_ID),
            pod: first_of(environment, &["POD_NAME"]).or(host),
            namespace: first_of(environment, &["POD_NAMESPACE"]),
        }
    }

    /// True when it states nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A variable as text. A long one may have been cut off inside its last character.
fn text_of(variable: &[u8]) -> Option<&str> {
    match str::from_utf8(variable) {
        Ok(text) => Some(text),
        // `None`: the text ends inside a character, as after a cut at `CW_VARIABLE_BYTES`. What precedes is valid.
        Err(error) if error.error_len().is_none() => str::from_utf8(&variable[..error.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

fn ranks(environment: &HashMap<&str, &str>) -> Option<Ranks> {
    RANKS.iter().find_map(|[rank, local_rank, world_size]| {
        Some(Ranks {
            rank: number(environment, rank)?,
            local_rank: number(environment, local_rank),
            world_size: number(environment, world_size),
        })
    })
}

/// The value of a variable, if that is a number and not negative.
fn number(environment: &HashMap<&str, &str>, name: &str) -> Option<i32> {
    environment.get(name)?.parse().ok().filter(|value| *value >= 0)
}

/// The value of the first of some variables that is set and not empty.
fn first_of(environment: &HashMap<&str, &str>, names: &[&str]) -> Option<String> {
    let mut values = names.iter().filter_map(|name| environment.get(name).copied());
    values.find(|value| !value.is_empty()).map(cut)
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(NAME_BYTES_MAX);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    //! Which variable wins, and that the probes keep every one that is read.

    use super::*;

    fn ranks_of(variables: &[(&str, &str)]) -> [Option<i32>; 3] {
        let ranks = of(variables).ranks;
        [ranks.map(|r| r.rank), ranks.and_then(|r| r.local_rank), ranks.and_then(|r| r.world_size)]
    }

    fn of(variables: &[(&str, &str)]) -> Statement {
        let text: String = variables.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
        Statement::of_environment(text.as_bytes())
    }

    #[test]
    fn one_launcher_gives_all_that_is_known_of_a_rank() {
        let slurm = [("SLURM_PROCID", "1"), ("SLURM_LOCALID", "0"), ("SLURM_NTASKS", "2")];
        assert_eq!(ranks_of(&slurm), [Some(1), Some(0), Some(2)]);
        let torch = [("RANK", "11"), ("LOCAL_RANK", "3"), ("WORLD_SIZE", "16")];
        assert_eq!(ranks_of(&[slurm, torch].concat()), [Some(11), Some(3), Some(16)], "a worker of srun torchrun");
        assert_eq!(ranks_of(&[&slurm[..], &[("RANK", "11")]].concat()), [Some(11), None, None], "not of 2");
        assert_eq!(ranks_of(&[&slurm[..], &[("WORLD_SIZE", "16")]].concat()), [Some(1), Some(0), Some(2)]);
        let not_a_number = [&slurm[..], &[("RANK", "not a number"), ("LOCAL_RANK", "3")]].concat();
        assert_eq!(ranks_of(&not_a_number), [Some(1), Some(0), Some(2)]);
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "5"), ("PMI_RANK", "6"), ("PMI_SIZE", "8")];
        assert_eq!(ranks_of(&open_mpi), [Some(5), None, None]);
        assert_eq!(ranks_of(&open_mpi[1..]), [Some(6), None, Some(8)]);
        assert_eq!(ranks_of(&[("RANK", "-1"), ("WORLD_SIZE", "8")]), [None; 3]);
    }

    #[test]
    fn a_job_is_named_by_the_first_variable_that_is_set() {
        let slurm = [("TORCHELASTIC_RUN_ID", "run"), ("SLURM_JOB_ID", "123")];
        assert_eq!(of(&slurm).job_id.as_deref(), Some("123"));
        assert_eq!(of(&slurm[..1]).job_id.as_deref(), Some("run"));
        let named = [&slurm[..], &[("CAUSEWAY_JOB_ID", "llm-7")]].concat();
        assert_eq!(of(&named).job_id.as_deref(), Some("llm-7"));
    }

    #[test]
    fn a_long_job_name_is_cut_at_a_character() {
        assert_eq!(of(&[("CAUSEWAY_JOB_ID", &"ä".repeat(100))]).job_id.unwrap(), "ä".repeat(64));
    }

    #[test]
    fn a_value_that_was_cut_inside_a_character_is_read_up_to_it() {
        assert_eq!(Statement::of_environment(b"CAUSEWAY_JOB_ID=caf\xc3\0RANK=1").job_id.as_deref(), Some("caf"));
        assert_eq!(Statement::of_environment(b"CAUSEWAY_JOB_ID=caf\xc3x\0RANK=1").job_id, None, "it is not text");
    }

    #[test]
    fn of_variables_of_one_name_the_first_counts() {
        assert_eq!(ranks_of(&[("RANK", "1"), ("RANK", "2")])[0], Some(1));
    }

    #[test]
    fn the_host_name_is_the_pod_only_in_kubernetes() {
        assert_eq!(of(&[("HOSTNAME", "trainer-0")]).pod, None);
        let of_pod = of(&[("HOSTNAME", "trainer-0"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
        assert_eq!(of_pod.pod.as_deref(), Some("trainer-0"));
    }

    #[test]
    fn the_probes_keep_every_variable_that_is_read_here() {
        let read = RANKS.iter().flatten().chain(JOB_ID).chain(&["POD_NAME", "POD_NAMESPACE", "HOSTNAME"]);
        // The probes compare the first 16 bytes of `NAME=`.
        let begin = |name: &str| format!("{name}=").chars().take(16).collect::<String>();
        for name in read {
            assert!(VARIABLES.iter().any(|kept| begin(kept) == begin(name)), "{name}");
        }
        assert!(VARIABLES.len() <= bpf::VARIABLES_MAX);
    }
}
