//! Signed requests of S3 that `object_store` does not make, with its credentials, addresses and HTTP client.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, Method, Request, StatusCode};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::Signer;

/// Namespace of the bodies of S3.
pub(crate) const XMLNS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// Lifetime of a signature that is made only to obtain the URL of an object. It is never sent.
const UNSENT: Duration = Duration::from_secs(1);
/// Characters of an error's body that are shown.
const SHOWN_CHARS: usize = 300;

/// Why there is no answer of S3.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the request cannot be signed")]
    Sign(#[source] object_store::Error),
    #[error("the request cannot be made")]
    Request(#[source] http::Error),
    #[error("S3 cannot be reached")]
    Unreachable(#[source] HttpError),
}

/// One request about an object.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a Path,
    /// The subresource, such as `tagging`; `None` for the object itself.
    pub(crate) query: Option<&'a str>,
    /// XML; empty for none.
    pub(crate) body: String,
}

/// What S3 answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The beginning of the body, for an error.
    pub(crate) fn message(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(SHOWN_CHARS).collect()
    }
}

/// Whether the same request may be answered otherwise later.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// The calls of S3 that `object_store` lacks.
#[derive(Debug)]
pub(crate) struct Calls {
    s3: AmazonS3,
    prefix: Path,
    region: String,
    http: HttpClient,
}

impl Calls {
    pub(crate) fn new(
        s3: AmazonS3,
        prefix: Path,
        region: String,
        options: &ClientOptions,
    ) -> object_store::Result<Self> {
        Ok(Self { s3, prefix, region, http: ReqwestConnector::default().connect(options)? })
    }

    /// Sends a signed request.
    pub(crate) async fn send(&self, Call { method, path, query, body }: Call<'_>) -> Result<Answer, CallError> {
        // These calls bypass `PrefixStore`, which would add the prefix.
        let path: Path = self.prefix.parts().chain(path.parts()).collect();
        // The URL as `object_store` builds it: endpoint, path or virtual-hosted style, percent-encoding. The new query
        // replaces its signature.
        let mut url = self.s3.signed_url(method.clone(), &path, UNSENT).await.map_err(CallError::Sign)?;
        url.set_query(query);
        // From the provider of `object_store`, which renews temporary credentials.
        let credential = self.s3.credentials().get_credential().await.map_err(CallError::Sign)?;
        let mut builder = Request::builder().method(method).uri(url.as_str());
        if !body.is_empty() {
            // S3 requires a checksum of the body of these calls ("Checking object integrity").
            let checksum = BASE64_STANDARD.encode(crc32c::crc32c(body.as_bytes()).to_be_bytes());
            builder = builder.header("content-type", "application/xml").header("x-amz-checksum-crc32c", checksum);
        }
        let mut request = builder.body(HttpRequestBody::from(body)).map_err(CallError::Request)?;
        // Last: the signature covers the query, the headers and the body (Signature Version 4).
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let answer = self.http.execute(request).await.map_err(CallError::Unreachable)?;
        let status = answer.status();
        let headers = answer.headers().clone();
        let body = answer.into_body().bytes().await.map_err(CallError::Unreachable)?.to_vec();
        Ok(Answer { status, headers, body })
    }
}
