//! Hides the messages that are worked on from other receivers, for as long as the work goes on.

use std::time::Duration;

use service_kit::run::in_a_line;
use tokio::task::AbortHandle;

use crate::queue::Queue;

/// Extends the visibility timeout of messages until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat(AbortHandle);

impl Heartbeat {
    /// `visibility` is what a receipt and each extension hide a message for.
    pub(crate) fn start(queue: Queue, handles: Vec<String>, visibility: Duration) -> Self {
        // Three times in the time: one that fails, and the one after it, may be lost.
        let every = visibility / 3;
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                keep(&queue, &handles).await;
            }
        });
        Self(task.abort_handle())
    }
}

async fn keep(queue: &Queue, handles: &[String]) {
    if let Err(error) = queue.keep(handles).await {
        // Another process may receive the messages then, and send the same rows: they land once.
        tracing::warn!(reason = in_a_line(&error), "messages that are worked on may be received again");
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}
