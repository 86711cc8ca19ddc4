//! Random choices that can be repeated, and the log of the faults they led to.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) struct Chance {
    rng: StdRng,
}

impl Chance {
    /// Of `CAUSEWAY_SEED`, or of a seed that is drawn; it is printed.
    pub(crate) fn seeded() -> (Self, u64) {
        let given = std::env::var("CAUSEWAY_SEED").ok().map(|seed| seed.parse().expect("CAUSEWAY_SEED is a number"));
        let seed = given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        eprintln!("CAUSEWAY_SEED={seed}");
        (Self { rng: StdRng::seed_from_u64(seed) }, seed)
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n)
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }
}

/// What was done to the system and when; printed when the test fails.
pub(crate) struct FaultLog {
    began: Instant,
    lines: Vec<String>,
}

impl FaultLog {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), lines: Vec::new() }
    }

    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("{:8.3} {what}", self.began.elapsed().as_secs_f64()));
    }
}

impl Drop for FaultLog {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("CAUSEWAY_FAULT_LOG").is_some() {
            eprintln!("--- faults:\n{}", self.lines.join("\n"));
        }
    }
}
