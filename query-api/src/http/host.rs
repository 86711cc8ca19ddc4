//! The name a server is addressed by. Clients come back to it, and a server that listens on loopback alone refuses
//! every other: a page of the Web can have a name of its own resolve to 127.0.0.1 (DNS rebinding), and a browser would
//! give it the answers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::wire::Problem;

/// Where clients reach this server, without a slash at the end: as configured, else as they, or the proxy before it,
/// addressed it.
pub(super) fn base_url(external_url: Option<&str>, headers: &HeaderMap) -> String {
    if let Some(url) = external_url {
        return url.trim_end_matches('/').to_owned();
    }
    // The value becomes a part of `nextUri`: it must not bring in another scheme, such as `javascript:`.
    let scheme = match forwarded(headers, "x-forwarded-proto").map(str::to_ascii_lowercase).as_deref() {
        Some("https") => "https",
        _ => "http",
    };
    let given = forwarded(headers, "x-forwarded-host").and_then(authority);
    let own = headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(authority);
    let port = forwarded(headers, "x-forwarded-port").and_then(|port| port.parse::<u16>().ok());
    match (given, port) {
        // A default port is left out of a URL (RFC 3986 section 6.2.3).
        (Some(given), Some(port)) if given.port().is_none() && !is_usual(scheme, port) => {
            format!("{scheme}://{given}:{port}")
        }
        (Some(given), _) => format!("{scheme}://{given}"),
        (None, _) => own.map_or_else(|| format!("{scheme}://localhost"), |own| format!("{scheme}://{own}")),
    }
}

/// The value of a header of a proxy. Each proxy adds its own behind a comma; the first is the one that the client used.
fn forwarded<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim).filter(|text| !text.is_empty())
}

fn is_usual(scheme: &str, port: u16) -> bool {
    matches!((scheme, port), ("http", 80) | ("https", 443))
}

/// A host with or without a port, and nothing else.
fn authority(text: &str) -> Option<Authority> {
    // Userinfo is refused: in `localhost@evil.example` the host is the part behind the `@` (RFC 3986 section 3.2.1).
    text.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

/// The host of the configured URL, to which a server on loopback answers as well.
pub(super) fn external_host(external_url: Option<&str>) -> Option<Arc<str>> {
    let uri: Uri = external_url?.parse().ok()?;
    uri.host().map(|host| host.to_ascii_lowercase().into())
}

/// Refuses requests that are addressed to another host than this machine.
pub(super) async fn only_this_machine(
    State(external): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    // All of them: HTTP/2 has `:authority` instead of `Host`, and of two headers a proxy and this server could go by
    // different ones. A value that is not ASCII becomes the empty host, which is refused.
    let named = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default().to_owned());
    let addressed = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let stranger = named.chain(addressed).find(|host| !is_this_machine(host, external.as_deref()));
    match stranger {
        None => next.run(request).await,
        Some(host) => Problem::other_host(&host).into_response(),
    }
}

fn is_this_machine(host: &str, external: Option<&str>) -> bool {
    let Some(authority) = authority(host) else { return false };
    // `localhost.` with the dot of the DNS root is the same name.
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let ip: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    // Names below `localhost` are loopback as well (RFC 6761 section 6.3), and so is `::ffff:127.0.0.1`.
    name == "localhost"
        || name.ends_with(".localhost")
        || ip.is_some_and(|ip| ip.to_canonical().is_loopback())
        || external == Some(name.as_str())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn base(external: Option<&str>, headers: &[(&'static str, &'static str)]) -> String {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        base_url(external, &headers.iter().map(header).collect())
    }

    #[test]
    fn clients_come_back_the_way_they_came() {
        let host = ("host", "10.1.2.3:8080");
        let https = ("x-forwarded-proto", "https");
        for (headers, expected) in [
            (vec![host], "http://10.1.2.3:8080"),
            (vec![], "http://localhost"),
            (vec![host, https], "https://10.1.2.3:8080"),
            (vec![host, ("x-forwarded-proto", "HTTPS, http")], "https://10.1.2.3:8080"),
            (vec![host, ("x-forwarded-proto", "javascript")], "http://10.1.2.3:8080"),
            (vec![host, https, ("x-forwarded-host", "cw.example.org, inner")], "https://cw.example.org"),
            (
                vec![host, https, ("x-forwarded-host", "cw.example.org"), ("x-forwarded-port", "8443")],
                "https://cw.example.org:8443",
            ),
            (
                vec![host, https, ("x-forwarded-host", "cw.example.org"), ("x-forwarded-port", "443")],
                "https://cw.example.org",
            ),
            (vec![host, ("x-forwarded-host", "user@evil.example")], "http://10.1.2.3:8080"),
            (vec![host, ("x-forwarded-host", "evil.example/path")], "http://10.1.2.3:8080"),
            (vec![("host", "[::1]:8080")], "http://[::1]:8080"),
        ] {
            assert_eq!(base(None, &headers), expected, "{headers:?}");
        }
        assert_eq!(base(Some("https://cw.example.org/causeway/"), &[host]), "https://cw.example.org/causeway");
    }

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        let external = external_host(Some("https://CW.example.org:8443/x"));
        let is_ours = |host: &str| is_this_machine(host, external.as_deref());
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "a.localhost",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "cw.example.org:9",
        ] {
            assert!(is_ours(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.example:8080",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "0.0.0.0",
            "[fe80::1]",
            "",
            "localhost@evil.example",
            "notlocalhost",
        ] {
            assert!(!is_ours(host), "{host}");
        }
    }
}
