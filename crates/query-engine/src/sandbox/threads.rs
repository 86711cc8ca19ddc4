//! The threads that plans run on. They have a lower priority than ingest, the agent and the jobs of the host: a heavy query takes
//! the time that is left over.

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// Planners recurse; the text limits keep them well inside this.
const STACK_BYTES: usize = 32 << 20;
/// The nice value of these threads. At 5 a thread gets about a third of the CPU time of one at 0 that wants the same CPU:
/// a busy host is not disturbed, and its questions are answered all the same.
const NICE: i64 = 5;
/// The same on the scale of the crate, from 0 (nice 19) to 99 (nice -20).
const PRIORITY: u8 = 35;

/// A runtime of its own for queries.
pub(crate) struct Threads {
    runtime: Option<tokio::runtime::Runtime>,
    handle: tokio::runtime::Handle,
}

impl Threads {
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count.max(2))
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime must not be waited for on the threads of another.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A process that was started nicer stays so.
fn lower_priority() {
    if own_nice().is_some_and(|nice| nice >= NICE) {
        return;
    }
    let lowered = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    if let Err(error) = lowered.map_err(|error| error.to_string()).and_then(set) {
        tracing::warn!(%error, "a query thread keeps the priority of the process");
    }
}

fn set(priority: ThreadPriority) -> Result<(), String> {
    set_current_thread_priority(priority).map_err(|error| error.to_string())
}

/// The nice value of this thread: the 19th field of its status, which stand behind its name in parentheses.
fn own_nice() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let behind_name = status.rsplit_once(')')?.1;
    behind_name.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_run_at_a_lower_priority_also_where_they_block_and_nothing_else_does() {
        let before = own_nice().unwrap();
        let threads = Threads::start(2).unwrap();
        let work = async { (own_nice(), tokio::task::spawn_blocking(own_nice).await.unwrap()) };
        let asked = std::thread::scope(|scope| {
            let ask = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(threads.handle().spawn(work)).unwrap()
            };
            scope.spawn(ask).join().unwrap()
        });
        assert_eq!(asked, (Some(NICE.max(before)), Some(NICE.max(before))));
        assert_eq!(own_nice(), Some(before));
    }
}
