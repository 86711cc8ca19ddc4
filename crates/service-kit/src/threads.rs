//! Threads with a lower priority than the rest of the process and the jobs of the host: queries and compaction use the
//! CPU time that these leave.

use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

/// The nice value of these threads. At 5 a thread has weight 335 against 1024 at 0 (`sched_prio_to_weight` of the Linux
/// kernel), about a third of the CPU time of a thread at 0 on the same CPU: other work of a busy host comes first, and
/// they still make progress.
const NICE: i64 = 5;
/// The same on the scale of the crate, from 0 (nice 19) to 99 (nice -20).
const PRIORITY: u8 = 35;

/// A runtime of threads with a lower priority.
#[derive(Debug)]
pub struct Threads {
    runtime: Option<tokio::runtime::Runtime>,
    handle: tokio::runtime::Handle,
}

impl Threads {
    /// Starts `count` threads, at least two, whose names begin with `name`.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(name: &'static str, count: usize, stack_bytes: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // At least two: work that computes between two yields occupies its thread, and the other one serves the
            // rest.
            .worker_threads(count.max(2))
            .thread_name(name)
            .thread_stack_size(stack_bytes)
            // Called on every thread of the runtime, those of `spawn_blocking` included.
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where work is spawned.
    pub fn handle(&self) -> &tokio::runtime::Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which panics on a thread of another runtime (Tokio). Work that was
        // cancelled ends by itself.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Raises the nice value of this thread. A process that was started with a greater one retains it.
fn lower_priority() {
    if own_nice().is_some_and(|nice| nice >= NICE) {
        return;
    }
    // setpriority(2): in Linux the nice value belongs to a thread, so that the rest of the process keeps its own.
    // Raising it needs no privilege. The work also runs without it, hence only a warning.
    let lowered = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    if let Err(error) = lowered.map_err(|error| error.to_string()).and_then(set) {
        tracing::warn!(%error, "a thread keeps the priority of the process");
    }
}

fn set(priority: ThreadPriority) -> Result<(), String> {
    set_current_thread_priority(priority).map_err(|error| error.to_string())
}

/// The nice value of this thread: the 19th field of its status, which stand behind its name in parentheses.
fn own_nice() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    // proc(5): the name of a thread may itself contain spaces and parentheses, so the fields are counted from the
    // last one.
    let behind_name = status.rsplit_once(')')?.1;
    // Field 3 comes first behind the name, so that field 19 is at index 16.
    behind_name.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_at_a_lower_priority_also_where_it_blocks_and_nothing_else_does() {
        let before = own_nice().unwrap();
        let threads = Threads::start("work", 2, 2 << 20).unwrap();
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
