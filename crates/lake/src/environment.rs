//! What the lake takes from its surroundings besides I/O. Every other module may use this one; it uses none of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Clock, randomness, ids and time limits; replaced in runs that must be repeatable.
#[derive(Debug, Clone, Copy)]
pub struct Environment {
    /// Unix time in milliseconds.
    pub unix_ms: fn() -> i64,
    /// A random duration from zero to the given one.
    pub jitter: fn(Duration) -> Duration,
    /// An id never given before, rising with time, for object names.
    pub new_id: fn() -> Uuid,
    /// How long one commit may try before it gives up.
    pub commit_limit: Duration,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            unix_ms: system_unix_ms,
            jitter: random_below,
            new_id: Uuid::now_v7,
            commit_limit: Duration::from_secs(30),
        }
    }
}

fn system_unix_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock that is set to a time before 1970 reads as 0.
    since_epoch.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn random_below(limit: Duration) -> Duration {
    // The low 16 bits of a UUID of version 4 are random (RFC 9562, section 5.4). They fit, so that 0 is not taken.
    let random = u32::try_from(Uuid::new_v4().as_u128() & 0xffff).unwrap_or(0);
    limit * random / 0xffff
}
