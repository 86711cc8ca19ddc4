//! What a request for rows may look like: a JSON document, or the statement as text with its options in the URL.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query as UrlQuery;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::wire::{Problem, SqlRequest};

/// A request in a URL, where a list is separated by commas.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UrlOptions {
    /// The statement.
    sql: Option<String>,
    /// Most rows wanted.
    limit: Option<usize>,
    /// Read every table as of this time: RFC 3339, or a duration back from now.
    at: Option<String>,
    /// Read the table that has this snapshot at it, and the others as they were then.
    snapshot: Option<i64>,
    /// Only rows from then on: RFC 3339, or a duration back from now.
    since: Option<String>,
    /// Only rows of these nodes: names, separated by commas.
    nodes: Option<String>,
    /// Longest time of the statement, milliseconds.
    timeout_ms: Option<u64>,
}

impl UrlOptions {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        Ok(UrlQuery::try_from_uri(uri)?.0)
    }

    fn with_sql(self, sql: String) -> SqlRequest {
        let Self { limit, at, snapshot, since, nodes, timeout_ms, .. } = self;
        let nodes = nodes.unwrap_or_default();
        let nodes = nodes.split(',').map(str::trim).filter(|node| !node.is_empty()).map(str::to_owned).collect();
        SqlRequest { sql, limit, at, snapshot, since, nodes, timeout_ms }
    }
}

/// `GET …?sql=…`
///
/// # Errors
/// The URL has no statement, or an option that is malformed or unknown.
pub(super) fn of_url(uri: &Uri) -> Result<SqlRequest, Problem> {
    let mut options = UrlOptions::of(uri)?;
    let sql = options.sql.take().filter(|sql| !sql.trim().is_empty());
    let sql = sql.ok_or_else(|| Problem::bad_request("no statement: give it as ?sql=…, or send it with POST"))?;
    Ok(options.with_sql(sql))
}

/// A `POST`. `curl -d` labels any body as a form, so a form may be a statement or JSON as well.
///
/// # Errors
/// The body is neither JSON nor text, or malformed.
pub(super) fn of_body(headers: &HeaderMap, uri: &Uri, body: &Bytes) -> Result<SqlRequest, Problem> {
    let content_type = match headers.get(CONTENT_TYPE) {
        Some(value) => value.to_str().map_err(|_| Problem::unsupported_media_type("unreadable"))?,
        None => "",
    };
    // Behind the semicolon are parameters such as `charset`; media types have no case (RFC 9110 section 8.3.1).
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A byte order mark, as some editors write: a parser of JSON may ignore it (RFC 8259 section 8.1), SQL has none.
    let body = body.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| body.clone(), |rest| body.slice_ref(rest));
    // No statement of SQL begins with a brace.
    let begins_as_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let is_form = media == "application/x-www-form-urlencoded";
    match media.as_str() {
        "application/json" => of_json(uri, &body),
        media if media.ends_with("+json") => of_json(uri, &body),
        "" | "text/plain" | "application/sql" | "text/sql" | "application/x-www-form-urlencoded" if begins_as_json => {
            of_json(uri, &body)
        }
        _ if is_form && body.starts_with(b"sql=") => of_form(uri, &body),
        "" | "text/plain" | "application/sql" | "text/sql" | "application/x-www-form-urlencoded" => of_text(uri, &body),
        other => Err(Problem::unsupported_media_type(other)),
    }
}

fn of_json(uri: &Uri, body: &[u8]) -> Result<SqlRequest, Problem> {
    no_options(uri, "the JSON document")?;
    Ok(Json::from_bytes(body)?.0)
}

fn of_text(uri: &Uri, body: &[u8]) -> Result<SqlRequest, Problem> {
    let sql = std::str::from_utf8(body).map_err(|_| Problem::bad_request("the statement is not UTF-8"))?;
    let options = UrlOptions::of(uri)?;
    if options.sql.is_some() {
        return Err(Problem::bad_request("give the statement in the body or in the URL, not in both"));
    }
    if sql.trim().is_empty() {
        return Err(Problem::bad_request("no statement: the body is empty"));
    }
    Ok(options.with_sql(sql.to_owned()))
}

fn of_form(uri: &Uri, body: &[u8]) -> Result<SqlRequest, Problem> {
    no_options(uri, "the form")?;
    // A form is written like the query of a URL, and is read by the same decoder. A file that is sent ends with a line
    // break.
    let form = std::str::from_utf8(body).ok().and_then(|form| format!("/?{}", form.trim_end()).parse().ok());
    let form: Uri = form.ok_or_else(|| Problem::bad_request("the form is not percent-encoded"))?;
    of_url(&form)
}

/// Options in two places would contradict one another.
fn no_options(uri: &Uri, place: &str) -> Result<(), Problem> {
    match uri.query().filter(|query| !query.is_empty()) {
        None => Ok(()),
        Some(_) => Err(Problem::bad_request(format!("put options into {place} and not into the URL"))),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(content_type: &'static str, url: &'static str, body: &'static [u8]) -> Result<SqlRequest, Problem> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        of_body(&headers, &Uri::from_static(url), &Bytes::from_static(body))
    }

    fn plain(sql: &str) -> SqlRequest {
        UrlOptions::default().with_sql(sql.to_owned())
    }

    #[test]
    fn a_statement_is_taken_however_it_is_sent() {
        let url = "/api/v1/sql";
        let form = "application/x-www-form-urlencoded";
        for (content_type, body) in [
            ("application/json", &b"{\"sql\":\"SELECT 1\"}"[..]),
            ("application/json; charset=utf-8", b"\xef\xbb\xbf {\"sql\":\"SELECT 1\"}"),
            ("application/vnd.api+json", b"{\"sql\":\"SELECT 1\"}"),
            (form, b"{\"sql\":\"SELECT 1\"}"),
            (form, b"SELECT 1"),
            (form, b"sql=SELECT+1"),
            (form, b"sql=SELECT%201&nodes=\n"),
            ("text/plain", b"SELECT 1"),
            ("Text/Plain; charset=utf-8", b"\xef\xbb\xbfSELECT 1"),
            ("application/sql", b"SELECT 1"),
            ("", b"SELECT 1"),
            ("", b"\n{\"sql\":\"SELECT 1\"}"),
        ] {
            assert_eq!(read(content_type, url, body).unwrap(), plain("SELECT 1"), "{content_type}");
        }
        let asked = read("text/plain", "/api/v1/sql?limit=5&nodes=a,b%3A1&since=5m", b"SELECT 1").unwrap();
        assert_eq!((asked.limit, asked.since.as_deref(), asked.nodes.len()), (Some(5), Some("5m"), 2));
        let url = Uri::from_static("/api/v1/sql?sql=SELECT+1&limit=7");
        assert_eq!(of_url(&url).unwrap(), SqlRequest { limit: Some(7), ..plain("SELECT 1") });
    }

    #[test]
    fn what_is_malformed_or_said_twice_is_refused() {
        for (content_type, url, body, status) in [
            ("image/png", "/", &b"SELECT 1"[..], 415),
            ("application/xml", "/", b"<sql/>", 415),
            ("text/plain", "/", b"SELECT '\xff'", 400),
            ("text/plain", "/", b" \n", 400),
            ("", "/", b"", 400),
            ("text/plain", "/?sql=SELECT+2", b"SELECT 1", 400),
            ("text/plain", "/?limit=many", b"SELECT 1", 400),
            ("text/plain", "/?lmit=1", b"SELECT 1", 400),
            ("application/json", "/?limit=5", b"{\"sql\":\"SELECT 1\"}", 400),
            ("application/json", "/", b"SELECT 1", 400),
            ("application/json", "/", b"{\"sql\":\"SELECT 1\",\"sql\":\"SELECT 2\"}", 422),
            ("application/json", "/", b"\xff\xfe{\0", 400),
            ("application/x-www-form-urlencoded", "/", b"sql=SELECT 1 x", 400),
        ] {
            let found = read(content_type, url, body).map_err(|problem| problem.status);
            assert_eq!(found.unwrap_err(), status, "{content_type} {url}");
        }
        for url in ["/api/v1/sql", "/api/v1/sql?sql=", "/api/v1/sql?q=SELECT+1"] {
            assert!(of_url(&Uri::from_static(url)).is_err(), "{url}");
        }
    }
}
