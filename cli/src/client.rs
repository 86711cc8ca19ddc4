//! Talks to the server. What the server refuses is printed in its own words; a server that is not there, with what to do.

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

/// How long a connection may take to be made. Answers take as long as the server lets them.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a machine that went away without a word can go unnoticed.
const SILENT: Duration = Duration::from_secs(30);
/// How long a server may take to answer `/readyz`.
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
            Self::Unreachable { source, .. } => !source.is_connect(),
            _ => false,
        }
    }
}

impl Fatal for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Url { .. } => Exit::Usage,
            // What the server cannot make sense of was written on our command line.
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
    /// The server to talk to: that of the command, that named before the command, or that of the environment. Nothing is sent
    /// yet.
    pub(crate) fn client(&self, before_command: Option<&str>) -> Result<Client, ClientError> {
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
        // A host and a port need no scheme; a word alone is more likely a slip.
        let is_bare =
            server.rsplit_once(':').is_some_and(|(host, port)| !host.contains('/') && port.parse::<u16>().is_ok());
        let scheme = if is_bare { "http://" } else { "" };
        let parsed = Url::parse(&format!("{scheme}{}/", server.trim_end_matches('/'))).ok();
        let known = parsed.filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"));
        let Some(base) = known else { return Err(ClientError::Url { url: server.to_owned() }) };
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .tcp_keepalive(SILENT)
            .tcp_keepalive_interval(SILENT)
            .user_agent("causeway");
        if is_here(&base) {
            // A proxy cannot reach our own machine.
            http = http.no_proxy();
        }
        let shown = SecretUri::from(base.to_string()).to_string();
        Ok(Self { base, shown, http: http.build().map_err(ClientError::Setup)? })
    }

    /// The server as the user named it, less a password.
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
        serde_json::from_str(&text).map_err(|_| self.foreign(status, &text))
    }

    /// A JSON document, with the answer in it.
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

    /// The reason why the answer to a request broke off, where the server knows one. A connection that ends says nothing.
    pub(crate) async fn explained(&self, error: ClientError, id: &str) -> ClientError {
        if !error.may_have_a_reason() {
            return error;
        }
        match self.get::<CutAnswer>(&format!("api/v1/queries/{id}"), &[]).await {
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
        match serde_json::from_str(&text) {
            Ok(problem) => Err(ClientError::Refused(problem)),
            Err(_) => Err(self.foreign(status.as_u16(), &text)),
        }
    }
}
