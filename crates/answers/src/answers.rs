//! What answers are made from.

use std::collections::BTreeSet;
use std::sync::Arc;

use query_engine::{Answer, AsOf, Engine, QueryError, Scope, UsedSnapshot};
use service_kit::clock::Clock;

use crate::completeness::{Completeness, Extent, Ledger, Question};

/// Answers from one lake. Each module adds the answer it is named after.
#[derive(Debug)]
pub struct Answers {
    pub(crate) engine: Arc<Engine>,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Answers {
    /// Answers from what the engine reads; `clock` gives the present time.
    pub fn new(engine: Arc<Engine>, clock: Arc<dyn Clock>) -> Self {
        Self { engine, ledger: Ledger::default(), clock }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// How complete the rows of a statement are; `None` where the ledger cannot be read within the time of the
    /// statement.
    pub async fn completeness_of(
        &self,
        answer: &Answer,
        scope: Scope,
        as_of: Option<AsOf>,
        now_ms: i64,
    ) -> Option<Completeness> {
        let question = Question::of_answer(answer, scope, as_of, now_ms);
        // The deadline of the statement bounds this read too: its rows are ready and must not wait longer for what
        // accompanies them.
        self.ledger.of(&self.engine, answer.snapshots(), &question, Some(answer.deadline())).await
    }

    /// How complete an answer from the events of a stretch of time, and of these nodes, would be; of all nodes when
    /// there are none.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn completeness(&self, extent: Extent, nodes: BTreeSet<String>) -> Result<Completeness, QueryError> {
        // Before the first commit there is no `silver.events`: the question is answered all the same, without a
        // snapshot id.
        let events = self.engine.snapshot("silver", "events").await?;
        let used: Vec<UsedSnapshot> = events.iter().map(|snapshot| UsedSnapshot::of(snapshot)).collect();
        self.ledger.find(&self.engine, &used, &Question::of_events(extent).about(nodes), None).await
    }
}
