//! The admin port: `/metrics`, `/healthz`, `/readyz`. On loopback unless configured otherwise, because it has no
//! authentication.

use std::future::IntoFuture;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::run::Drain;

mod readiness;
#[cfg(test)]
mod tests;

pub use readiness::{Condition, Readiness};

/// The `[admin]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; absent: the service's own, so that one file serves all services of a host. 0 takes a free one.
    pub port: Option<u16>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: None }
    }
}

impl AdminConfig {
    /// Where to listen, given the port the service has by default.
    pub fn listen(&self, default_port: u16) -> SocketAddr {
        SocketAddr::new(self.host, self.port.unwrap_or(default_port))
    }
}

/// Why the admin port could not be opened or failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("the admin port cannot listen on {address}: set `admin.host` and `admin.port`")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the admin port failed")]
    Serve(#[source] io::Error),
}

impl crate::run::Fatal for AdminError {}

/// An open admin port, not yet served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    router: Router,
    address: SocketAddr,
}

impl Admin {
    /// Opens the port.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, registry: Arc<Registry>, readiness: Readiness) -> Result<Self, AdminError> {
        let listener = TcpListener::bind(address).await.map_err(|source| AdminError::Bind { address, source })?;
        // With port 0 the kernel chooses one.
        let address = listener.local_addr().map_err(|source| AdminError::Bind { address, source })?;
        Ok(Self { listener, router: routes(registry, readiness), address })
    }

    /// Where it listens: the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled. It gets a token of its own, so that the port stays open while a program
    /// drains.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, drain: Drain) -> Result<(), AdminError> {
        let server = axum::serve(self.listener, self.router);
        tokio::select! {
            outcome = server.into_future() => outcome.map_err(AdminError::Serve),
            // Requests under way are cut off: a scrape is repeated by itself, and the process ends.
            () = drain.cancelled() => Ok(()),
        }
    }
}

/// The routes of the admin port, for a service that has a listener of its own.
pub fn routes(registry: Arc<Registry>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry)
        // Liveness does not depend on readiness: a restart would not bring back a catalog that is away (ADR 12).
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(move || async move { ready(&readiness) }))
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            // The media type of OpenMetrics 1.0, by which Prometheus chooses its parser.
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics could not be written: {error}\n")).into_response()
        }
    }
}

fn ready(readiness: &Readiness) -> Response {
    let reasons = readiness.unmet();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    // A readiness probe of Kubernetes takes every status from 200 to 399 for success, and ignores the body: that is for
    // people.
    let lines: String = reasons.iter().map(|(name, reason)| format!("{name}: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}
