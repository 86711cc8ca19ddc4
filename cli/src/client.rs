//! The HTTP client of the commands. A refusal is printed as the server words it. The error about a server that does not
//! answer names the ways to start or to choose one.

use std::net::IpAddr;
use std::time::Duration;

use answers::completeness::Completeness;
use clap::Args;
use query_api::wire::{COMPLETENESS_HEADER, CutAnswer, Place, Problem, REQUEST_ID_HEADER};
use reqwest::header::ACCEPT;
use reqwest::{RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use service_kit::config::SecretUri;
use service_kit::run::{Exit, Fatal};

use crate::output::OutputError;

/// Time limit of making a connection. An answer has none here: the server limits the time of a statement.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Silence after which TCP probes the connection, and the time between two probes. Without probes a host that has lost
/// its power would never be noticed while its answer is awaited (tcp(7), `TCP_KEEPIDLE` and `TCP_KEEPINTVL`).
const SILENT: Duration = Duration::from_secs(30);
/// Time limit of an answer from `/readyz`.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The server that is asked when none is named.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// Names the server where no flag does.
const SERVER_VARIABLE: &str = "CAUSEWAY_SERVER";

/// The flag of every command that asks a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Server to ask, as http://HOST:PORT or HOST:PORT [env: CAUSEWAY_SERVER] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("`{url}` is not the address of a server: write it as http://HOST:PORT or HOST:PORT")]
    Url { url: String },
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
    #[error(
        "no server answers at {server}: start one with `causeway up`, or name another with --server or CAUSEWAY_SERVER"
    )]
    Unreachable {
        server: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("the answer of {server} broke off")]
    BrokenOff {
        server: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{server} answered with something else than a Causeway server would (HTTP {status}): {text}")]
    Foreign { server: String, status: u16, text: String },
    #[error("{0}")]
    Refused(Problem),
    #[error("the answer broke off: {0}")]
    Failed(Problem),
}

impl ClientError {
    /// The error with its place counted from the beginning of a text in which the statement begins at `begins`.
    pub(crate) fn in_text_that_begins(mut self, begins: Place) -> Self {
        if let Self::Refused(problem) | Self::Failed(problem) = &mut self
            && let Some(at) = &mut problem.position
        {
            // Both places count from 1. Only the first line of the statement shares its line with text before it.
            if at.line == 1 {
                at.column += begins.column - 1;
            }
            at.line += begins.line - 1;
        }
        self
    }

    /// Whether the server may have begun to answer.
    fn may_have_a_reason(&self) -> bool {
        match self {
            Self::BrokenOff { .. } => true,
            // Where a connection was made, the request may have arrived, and the server may have recorded why it ended.
            Self::Unreachable { source, .. } => !source.is_connect(),
            _ => false,
        }
    }
}

impl Fatal for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Url { .. } => Exit::Usage,
            // The request is malformed by an argument of the command line. A statement that fails is no wrong usage:
            // exit 1.
            Self::Refused(problem) if problem.is_of_request() => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Why a command that asks a server has nothing to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Fatal for AskError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Output(_) => Exit::Failed,
        }
    }
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Document<T> {
    /// As it was sent, with fields that only a newer server has.
    pub(crate) json: Value,
    /// As it is read.
    pub(crate) answer: T,
}

/// The completeness in the headers of a response that is no JSON document.
pub(crate) fn completeness_of(response: &Response) -> Option<Completeness> {
    let header = response.headers().get(COMPLETENESS_HEADER).and_then(|value| value.to_str().ok());
    // A header that is absent or cannot be read counts as unknown, and an unknown completeness as incomplete.
    header.and_then(|text| serde_json::from_str(text).ok())
}

/// A connection to one server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: Url,
    /// As it is printed.
    shown: String,
    http: reqwest::Client,
}

impl ServerArgs {
    /// The server of the flag after the command, of the flag before it, of the environment, or the default, in this
    /// order. Nothing is sent yet.
    pub(crate) fn client(&self, before_command: Option<&str>) -> Result<Client, ClientError> {
        // Not clap's `env`: that fills the flag after the command, which would then override the flag before the
        // command.
        let variable = std::env::var(SERVER_VARIABLE).ok();
        let given = self.server.as_deref().or(before_command).or(variable.as_deref());
        Client::new(given.unwrap_or(DEFAULT_SERVER))
    }
}

/// Whether a server is on this machine.
fn is_here(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

impl Client {
    pub(crate) fn new(server: &str) -> Result<Self, ClientError> {
        // `Url::parse` takes the host of `host:port` for a scheme. A word without a port is more likely a typing error
        // than a host.
        let is_bare =
            server.rsplit_once(':').is_some_and(|(host, port)| !host.contains('/') && port.parse::<u16>().is_ok());
        let scheme = if is_bare { "http://" } else { "" };
        // `Url::join` replaces what follows the last slash (RFC 3986, section 5.2.3): a base with a path must end with
        // one.
        let parsed = Url::parse(&format!("{scheme}{}/", server.trim_end_matches('/'))).ok();
        let known = parsed.filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"));
        let Some(base) = known else { return Err(ClientError::Url { url: server.to_owned() }) };
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .tcp_keepalive(SILENT)
            .tcp_keepalive_interval(SILENT)
            .user_agent("causeway");
        if is_here(&base) {
            // reqwest follows `http_proxy` of the environment, but loopback of a proxy is another host.
            http = http.no_proxy();
        }
        // The address is printed in errors and at the prompt: a password in it is masked.
        let shown = SecretUri::from(base.to_string()).to_string();
        Ok(Self { base, shown, http: http.build().map_err(ClientError::Setup)? })
    }

    /// The server as the user named it, with a password masked.
    pub(crate) fn server(&self) -> &str {
        self.shown.trim_end_matches('/')
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path.trim_start_matches('/')).map_err(|_| ClientError::Url { url: path.to_owned() })
    }

    /// A JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let response =
            self.send(self.http.get(self.url(path)?).query(query).header(ACCEPT, "application/json")).await?;
        let status = response.status().as_u16();
        let text = self.body(response).await?;
        // A success that is no JSON comes from another program at this address, such as the login page of a gateway.
        serde_json::from_str(&text).map_err(|_| self.foreign(status, &text))
    }

    /// A JSON document, and the answer as it is read from it.
    pub(crate) async fn document<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Document<T>, ClientError> {
        let json: Value = self.get(path, query).await?;
        match T::deserialize(&json) {
            Ok(answer) => Ok(Document { json, answer }),
            Err(_) => Err(self.foreign(200, &json.to_string())),
        }
    }

    /// A plain text, and its completeness.
    pub(crate) async fn get_text(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<(String, Option<Completeness>), ClientError> {
        let response = self.send(self.http.get(self.url(path)?).query(query).header(ACCEPT, "text/plain")).await?;
        let completeness = completeness_of(&response);
        Ok((self.body(response).await?, completeness))
    }

    /// Whether the server is ready, and if not why.
    pub(crate) async fn readiness(&self) -> Result<(bool, String), ClientError> {
        // Not `Self::send`: status 503 is the answer of a server that is not ready, and its body the reason.
        let sent = self.http.get(self.url("readyz")?).timeout(READY_WITHIN).send().await;
        let response = sent.map_err(|source| self.unreachable(source))?;
        let is_ready = response.status().is_success();
        Ok((is_ready, self.body(response).await?.trim().to_owned()))
    }

    /// Posts a document under the name `id`; the answer comes in the form of `accept`.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        accept: &str,
        id: &str,
    ) -> Result<Response, ClientError> {
        let request = self.http.post(self.url(path)?).json(body);
        self.send(request.header(ACCEPT, accept).header(REQUEST_ID_HEADER, id)).await
    }

    /// The reason why the answer to a request broke off, where the server has recorded one. A streamed answer has sent
    /// its status before it fails, so that only the end of the connection shows the failure.
    pub(crate) async fn explained(&self, error: ClientError, id: &str) -> ClientError {
        if !error.may_have_a_reason() {
            return error;
        }
        match self.get::<CutAnswer>(&format!("api/v1/queries/{id}"), &[]).await {
            // The recorded problem comes with its own status. 404: nothing is recorded under this id. Where this
            // request fails too, the first error is the one to report.
            Err(ClientError::Refused(problem)) if problem.status != 404 => ClientError::Failed(problem),
            _ => error,
        }
    }

    /// The whole body as text.
    pub(crate) async fn body(&self, response: Response) -> Result<String, ClientError> {
        response.text().await.map_err(|source| self.broken_off(source))
    }

    pub(crate) fn broken_off(&self, source: reqwest::Error) -> ClientError {
        ClientError::BrokenOff { server: self.server().to_owned(), source }
    }

    fn unreachable(&self, source: reqwest::Error) -> ClientError {
        ClientError::Unreachable { server: self.server().to_owned(), source }
    }

    pub(crate) fn foreign(&self, status: u16, text: &str) -> ClientError {
        // The body may be a page of a proxy: its beginning identifies it.
        let text = text.chars().take(200).collect::<String>().trim().to_owned();
        ClientError::Foreign { server: self.server().to_owned(), status, text }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = self.body(response).await?;
        // Every refusal of the server is a problem document (RFC 9457).
        match serde_json::from_str(&text) {
            Ok(problem) => Err(ClientError::Refused(problem)),
            Err(_) => Err(self.foreign(status.as_u16(), &text)),
        }
    }
}
