//! The agent as a program of its own: admin port, readiness, and the agent until it is drained.

use std::sync::Arc;

use service_kit::admin::{Admin, AdminError, Readiness};
use service_kit::program::{StartError, VERSION};
use service_kit::run::{Drain, Exit, Fatal};
use service_kit::telemetry;

use crate::agent::{Agent, AgentError};
use crate::config::{ADMIN_PORT, AgentSettings};
use crate::metrics::Metrics;

/// Why the program ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl Fatal for ServiceError {
    fn exit(&self) -> Exit {
        match self {
            Self::Start(error) => error.exit(),
            Self::Admin(error) => error.exit(),
            Self::Agent(error) => error.exit(),
        }
    }
}

/// Runs an agent until `drain` is cancelled.
///
/// # Errors
/// The admin port cannot be opened, or the agent cannot start or failed.
pub async fn serve(settings: &AgentSettings, drain: Drain) -> Result<(), ServiceError> {
    let mut registry = telemetry::registry("agent", VERSION);
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::new();
    let ready = readiness.condition("probes", "the probes are not loaded yet");
    let admin = Admin::bind(settings.admin.listen(ADMIN_PORT), Arc::new(registry), readiness).await?;
    tracing::info!(address = %admin.address(), "admin port open");
    // Metrics can be read until the very end, also while the agent drains.
    let closed = Drain::new();
    let _close = closed.clone().drop_guard();
    // Before the agent is opened: `/readyz` shows why it is not ready while the probes are being loaded.
    tokio::spawn(admin.serve(closed));
    let agent = Agent::open(&settings.options(), &metrics)?;
    ready.met();
    agent.run(drain).await?;
    Ok(())
}
