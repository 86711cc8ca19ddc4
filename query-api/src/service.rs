//! The query service: one listener for every surface, with a graceful shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use lake::Lake;
use prometheus_client::registry::Registry;
use service_kit::admin::{self, Condition, Readiness};
use service_kit::clock::Clock;
use service_kit::listen::{ListenAddress, warn_if_reachable};
use service_kit::run::{Drain, Fatal};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::http::metrics::Metrics;
use crate::http::{App, HttpOptions, only_this_machine, router};
use query_engine::Limits;
use query_engine::{Engine, EngineError};

/// How long requests in flight may go on once the service drains.
const GRACE: Duration = Duration::from_secs(10);

/// Interval between two looks at whether the lake can be read.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the service is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of every surface.
    pub listen: ListenAddress,
    /// Bounds of the queries.
    pub limits: Limits,
    /// How the HTTP surfaces behave.
    pub http: HttpOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: ListenAddress::loopback(8080), limits: Limits::default(), http: HttpOptions::default() }
    }
}

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot listen on {address}: give another address in `query.listen`, or with `up --listen`")]
    Listen {
        address: ListenAddress,
        #[source]
        source: std::io::Error,
    },
    #[error("the listener failed")]
    Serve(#[source] std::io::Error),
}

impl Fatal for ServiceError {}

/// The port of every surface, open and not yet answered. It is opened before anything else is made, because an address
/// that is taken is the likeliest reason not to start.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the port.
    ///
    /// # Errors
    /// The host has no address, or the address is taken.
    pub async fn bind(address: &ListenAddress) -> Result<Self, ServiceError> {
        match Self::open(address).await {
            Ok(listener) => Ok(listener),
            Err(source) => Err(ServiceError::Listen { address: address.clone(), source }),
        }
    }

    async fn open(address: &ListenAddress) -> std::io::Result<Self> {
        let listener = address.bind().await?;
        let address = listener.local_addr()?;
        warn_if_reachable(address);
        Ok(Self { listener, address })
    }

    /// Where it listens: the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What the service works with.
#[derive(Debug)]
pub struct Parts {
    /// Where the tables are.
    pub lake: Lake,
    /// Metrics are added to it; `/metrics` serves it.
    pub registry: Registry,
    /// Gets a condition, unmet while the lake cannot be read; `/readyz` serves it.
    pub readiness: Readiness,
    /// The wall time of the answers.
    pub clock: Arc<dyn Clock>,
}

/// A query service that listens and is not yet served.
#[derive(Debug)]
pub struct QueryService {
    listener: Listener,
    router: Router,
    app: Arc<App>,
    engine: Arc<Engine>,
    reachable: Condition,
}

impl QueryService {
    /// The service behind `listener`.
    ///
    /// # Errors
    /// The engine cannot be made.
    pub async fn open(listener: Listener, parts: Parts, options: Options) -> Result<Self, ServiceError> {
        let Parts { lake, mut registry, readiness, clock } = parts;
        let metrics = Metrics::new(&mut registry);
        let reachable = readiness.condition("catalog and store", "not read yet");
        let engine = Arc::new(Engine::new(lake, options.limits)?);
        // `/readyz` is right from the first request on: the listener takes connections when it is served, which is
        // later.
        look(&engine, &reachable).await;
        let external_url = options.http.external_url.clone();
        let app = Arc::new(App::new(Arc::clone(&engine), metrics, clock, options.http));
        let mut router = router(Arc::clone(&app), admin::routes(Arc::new(registry), readiness));
        // There is no authentication: on loopback the only protection is that other hosts cannot connect, which DNS
        // rebinding gets round. A listener that is open to others cannot list the names it is reached by.
        if listener.address().ip().to_canonical().is_loopback() {
            router = only_this_machine(router, external_url.as_deref());
        }
        Ok(Self { listener, router, app, engine, reachable })
    }

    /// Where it listens: the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Serves until the token is cancelled, then gives requests in flight some seconds to end.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, drain: Drain) -> Result<(), ServiceError> {
        let asked = drain.clone();
        let shutdown = async move { asked.cancelled().await };
        // Handlers need the address of the peer, by which permits are shared out.
        let service = self.router.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(self.listener.listener, service).with_graceful_shutdown(shutdown);
        // A graceful shutdown alone waits for every response: a client that reads slowly would keep the process up
        // until SIGKILL.
        let grace_is_over = async {
            drain.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            outcome = served.into_future() => outcome.map_err(ServiceError::Serve),
            // These two never end: they run as long as the listener is served, and are dropped with it.
            () = self.app.keep_clean() => Ok(()),
            () = watch(&self.engine, &self.reachable) => Ok(()),
            () = grace_is_over => {
                tracing::warn!("requests were still in flight after {GRACE:?} and are cut off");
                Ok(())
            }
        }
    }
}

/// Reads the head of a table at intervals, so that `/readyz` shows whether questions can be answered.
async fn watch(engine: &Engine, reachable: &Condition) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        look(engine, reachable).await;
    }
}

async fn look(engine: &Engine, reachable: &Condition) {
    // The ledger stands for every table: its pointer is in the same catalog, and its metadata file in the same store.
    // The limit is the interval, so that looks do not overlap.
    match timeout(LOOK_EVERY, engine.check("ops", "ledger")).await {
        Ok(Ok(())) => reachable.met(),
        Ok(Err(error)) => reachable.unmet(error.to_string()),
        Err(_) => reachable.unmet(format!("no answer for {LOOK_EVERY:?}")),
    }
}
