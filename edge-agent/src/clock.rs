//! Boot time and wall time read together, with a bound of the error: the beacon that travels with each batch.

use event_schema::clock::Beacon;
use nix::time::{ClockId, clock_gettime};

/// Readings of which the tightest is taken: one that was interrupted is wide.
const READINGS: usize = 5;

/// Why the clocks could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the {clock} clock")]
pub struct ClockError {
    clock: &'static str,
    #[source]
    source: nix::Error,
}

/// `CLOCK_BOOTTIME`, nanoseconds.
pub fn boot_ns() -> Result<i64, ClockError> {
    read(ClockId::CLOCK_BOOTTIME, "boot time")
}

/// `CLOCK_REALTIME`, unix nanoseconds.
pub fn wall_ns() -> Result<i64, ClockError> {
    read(ClockId::CLOCK_REALTIME, "real time")
}

/// Reads wall time between two readings of boot time: it belongs to their middle, to within half their distance.
pub fn beacon() -> Result<Beacon, ClockError> {
    let mut best: Option<Beacon> = None;
    for _ in 0..READINGS {
        // Cristian's algorithm: the clock in the middle was read at some instant between the two outer readings.
        let before = boot_ns()?;
        let wall_ns = wall_ns()?;
        let after = boot_ns()?;
        // Rounded up, so that the bound also holds for an odd distance.
        let error_ns = (after - before + 1) / 2;
        if best.is_none_or(|best| error_ns < best.error_ns) {
            best = Some(Beacon { boot_ns: before + error_ns, wall_ns, error_ns });
        }
    }
    // `READINGS` is not 0: there is always a best one.
    Ok(best.unwrap_or_default())
}

fn read(id: ClockId, clock: &'static str) -> Result<i64, ClockError> {
    let now = clock_gettime(id).map_err(|source| ClockError { clock, source })?;
    Ok(now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

#[cfg(test)]
mod tests;
