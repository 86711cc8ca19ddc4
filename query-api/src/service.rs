//! The query service: one listener for every surface, drained when asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lake::Lake;
use prometheus_client::registry::Registry;
use service_kit::admin::{self, Condition, Readiness};
use service_kit::clock::Clock;
use service_kit::run::{Drain, Fatal};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::engine::limits::Limits;
use crate::engine::{Engine, EngineError};
use crate::http::metrics::Metrics;
use crate::http::{App, HttpOptions, only_this_machine, router};

/// How long requests in flight may go on after the service was told to end.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is looked whether the lake can be read.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the service is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    pub limits: Limits,
    pub http: HttpOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            limits: Limits::default(),
            http: HttpOptions::default(),
        }
    }
}

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot listen on {address}: give another address in `query.listen`, or with `up --listen`")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the listener failed")]
    Serve(#[source] std::io::Error),
}

impl Fatal for ServiceError {}

/// A query service that listens and is not yet served.
#[derive(Debug)]
pub struct QueryService {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    app: Arc<App>,
    engine: Arc<Engine>,
    reachable: Condition,
}

impl QueryService {
    /// Opens the listener. Metrics are added to `registry`, which `/metrics` serves.
    ///
    /// # Errors
    /// The address is taken, or the engine cannot be made.
    pub async fn bind(
        lake: Lake,
        options: Options,
        mut registry: Registry,
        readiness: Readiness,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let metrics = Metrics::new(&mut registry);
        let reachable = readiness.condition("catalog and store", "not read yet");
        let engine = Arc::new(Engine::new(lake, options.limits)?);
        let listen = |source| ServiceError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        look(&engine, &reachable).await;
        let external_url = options.http.external_url.clone();
        let app = Arc::new(App::new(Arc::clone(&engine), metrics, clock, options.http));
        let mut router = router(Arc::clone(&app), admin::routes(Arc::new(registry), readiness));
        if address.ip().to_canonical().is_loopback() {
            router = only_this_machine(router, external_url.as_deref());
        }
        Ok(Self { listener, address, router, app, engine, reachable })
    }

    /// Where it listens: the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled, then gives requests in flight some seconds to end.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, drain: Drain) -> Result<(), ServiceError> {
        let asked = drain.clone();
        let shutdown = async move { asked.cancelled().await };
        let service = self.router.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(self.listener, service).with_graceful_shutdown(shutdown);
        let patience = async {
            drain.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            outcome = served.into_future() => outcome.map_err(ServiceError::Serve),
            () = self.app.keep_clean() => Ok(()),
            () = watch(&self.engine, &self.reachable) => Ok(()),
            () = patience => {
                tracing::warn!("requests were still in flight after {GRACE:?} and are cut off");
                Ok(())
            }
        }
    }
}

/// Reads the head of a table now and then, so that `/readyz` tells whether questions can be answered.
async fn watch(engine: &Engine, reachable: &Condition) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        look(engine, reachable).await;
    }
}

async fn look(engine: &Engine, reachable: &Condition) {
    match timeout(LOOK_EVERY, engine.check("ops", "ledger")).await {
        Ok(Ok(())) => reachable.met(),
        Ok(Err(error)) => reachable.unmet(error.to_string()),
        Err(_) => reachable.unmet(format!("no answer for {LOOK_EVERY:?}")),
    }
}
