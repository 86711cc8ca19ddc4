//! The session that a Trino client sends with every statement, in headers. What a header asks for is done, or the
//! request is refused: a session of which a part is ignored gives answers to other questions.

use std::time::Duration;

use axum::http::HeaderMap;

use query_engine::QueryError;
use query_engine::Zone;

const CATALOG: &str = "x-trino-catalog";
const SCHEMA: &str = "x-trino-schema";
const TIME_ZONE: &str = "x-trino-time-zone";
const PROPERTIES: &str = "x-trino-session";

/// What holds for one statement of a client.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Session {
    /// Catalog of names without one, in lower case.
    pub catalog: Option<String>,
    /// Schema of names without one, in lower case.
    pub schema: Option<String>,
    /// The zone of times that carry none.
    pub zone: Zone,
    /// Longest time the statement may run.
    pub timeout: Option<Duration>,
}

/// Why the headers of a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("header {name} is not printable ASCII")]
    NotText { name: &'static str },
    #[error("header X-Trino-Session: `{entry}` is not `property=value`")]
    NotAProperty { entry: String },
    #[error("header X-Trino-Session: the value of `{property}` is not percent-encoded UTF-8")]
    NotEncoded { property: String },
    /// The statement fails, as it does at a Trino server.
    #[error(transparent)]
    Statement(#[from] QueryError),
}

impl Session {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// A header is malformed, or asks for what this server lacks.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, SessionError> {
        let catalog = text(headers, CATALOG)?.map(str::to_lowercase);
        let schema = text(headers, SCHEMA)?.map(str::to_lowercase);
        let zone_name = text(headers, TIME_ZONE)?;
        let properties = properties(headers)?;
        let zone = zone_name.map(zone).transpose()?.unwrap_or_default();
        let mut session = Self { catalog, schema, zone, timeout: None };
        // Whatever is malformed refuses the request, before what is unknown fails the statement.
        for (name, value) in properties {
            session.set(&name, &value)?;
        }
        Ok(session)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), SessionError> {
        match name {
            "query_max_run_time" | "query_max_execution_time" => {
                let limit = duration(value).ok_or_else(|| QueryError::SessionProperty {
                    message: format!("{name}: `{value}` is not a duration such as 30s, 1.5m or 2h"),
                })?;
                // Both properties bound the run: the shorter one holds.
                self.timeout = Some(self.timeout.map_or(limit, |other| other.min(limit)));
            }
            "time_zone_id" => self.zone = zone(value)?,
            _ => {
                let message = format!(
                    "session property '{name}' does not exist: this server has query_max_run_time, \
                     query_max_execution_time and time_zone_id"
                );
                return Err(QueryError::SessionProperty { message }.into());
            }
        }
        Ok(())
    }
}

fn properties(headers: &HeaderMap) -> Result<Vec<(String, String)>, SessionError> {
    let mut properties = Vec::new();
    for header in headers.get_all(PROPERTIES) {
        let header = header.to_str().map_err(|_| SessionError::NotText { name: PROPERTIES })?;
        for entry in header.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            properties.push(property(entry)?);
        }
    }
    Ok(properties)
}

/// The text of a header; `None` when it is absent or empty.
fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, SessionError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let value = value.to_str().map_err(|_| SessionError::NotText { name })?;
    Ok(Some(value.trim()).filter(|text| !text.is_empty()))
}

fn zone(name: &str) -> Result<Zone, SessionError> {
    if let Some(zone) = Zone::parse(name) {
        return Ok(zone);
    }
    let message =
        format!("time zone `{name}` is not known: give a name such as Europe/Berlin, or an offset such as +02:00");
    Err(QueryError::SessionProperty { message }.into())
}

/// `name=value`; clients percent-encode values.
fn property(entry: &str) -> Result<(String, String), SessionError> {
    let Some((name, value)) = entry.split_once('=') else {
        return Err(SessionError::NotAProperty { entry: entry.to_owned() });
    };
    let name = name.trim();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
        return Err(SessionError::NotAProperty { entry: entry.to_owned() });
    }
    let value = decoded(value.trim()).ok_or_else(|| SessionError::NotEncoded { property: name.to_owned() })?;
    Ok((name.to_owned(), value))
}

/// Decodes percent-encoding, with a plus for a space; `None` when the text is not encoded that way.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            // Java's `URLEncoder`, which Trino's clients use, writes a space as a plus.
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A duration as Trino writes it: `90s`, `1.50m`, `2h`. Longer than zero.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    // The unit is the first letter on: a sign stays with the number, and an exponent (`1e3s`) gives no unit.
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (count, unit) = text.split_at(unit);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let count: f64 = count.trim().parse().ok()?;
    // Refuses what is negative, too large or no number.
    Duration::try_from_secs_f64(count * seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn session(headers: &[(&'static str, &str)]) -> Result<Session, SessionError> {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        Session::of(&headers.iter().map(header).collect())
    }

    #[test]
    fn names_are_folded_and_properties_are_read_from_every_header() {
        let read = session(&[
            (CATALOG, "Causeway"),
            (SCHEMA, " PUBLIC "),
            (TIME_ZONE, "America/New_York"),
            (PROPERTIES, "query_max_run_time=1.50m, query_max_execution_time=2h"),
        ]);
        let read = read.unwrap();
        assert_eq!((read.catalog.as_deref(), read.schema.as_deref()), (Some("causeway"), Some("public")));
        assert_eq!(read.zone, Zone::parse("America/New_York").unwrap());
        assert_eq!(read.timeout, Some(Duration::from_secs(90)));
        assert_eq!(session(&[]).unwrap(), Session::default());
        assert_eq!(session(&[(SCHEMA, ""), (PROPERTIES, "")]).unwrap(), Session::default());
        let encoded = session(&[(PROPERTIES, "time_zone_id=Europe%2FBerlin")]).unwrap();
        assert_eq!(encoded.zone, Zone::parse("Europe/Berlin").unwrap());
    }

    #[test]
    fn what_is_malformed_or_unknown_is_refused_by_name() {
        for (headers, part) in [
            ([(PROPERTIES, "query_max_run_time")], "`query_max_run_time` is not `property=value`"),
            ([(PROPERTIES, "=1s")], "`=1s` is not"),
            ([(PROPERTIES, "a b=1")], "`a b=1` is not"),
            ([(PROPERTIES, "time_zone_id=%zz")], "the value of `time_zone_id`"),
            ([(PROPERTIES, "time_zone_id=%ff")], "the value of `time_zone_id`"),
            ([(PROPERTIES, "query_max_run_time=soon")], "`soon` is not a duration"),
            ([(PROPERTIES, "query_max_run_time=-1s")], "`-1s` is not a duration"),
            ([(PROPERTIES, "query_max_run_time=0s")], "`0s` is not a duration"),
            ([(PROPERTIES, "query_max_run_time=1e300d")], "`1e300d` is not a duration"),
            (
                [(PROPERTIES, "join_distribution_type=AUTOMATIC")],
                "session property 'join_distribution_type' does not exist",
            ),
            ([(TIME_ZONE, "Nowhere/Land")], "time zone `Nowhere/Land` is not known"),
            ([(SCHEMA, "sch\u{e9}ma")], "header x-trino-schema is not printable ASCII"),
        ] {
            let error = session(&headers).unwrap_err().to_string();
            assert!(error.contains(part), "{headers:?}: {error}");
        }
    }
}
