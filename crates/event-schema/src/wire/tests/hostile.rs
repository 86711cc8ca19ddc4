//! Messages whose checksum is right and whose content lies: the decoder must answer with an error or with rows, never with a
//! panic, and never take more memory than a body may have.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::{RAW_BYTES_MAX, VERSION, decode};
use super::{encode, events, header};
use crate::kind::RecordKind;

const MUTATIONS: usize = 20_000;

/// A run of random input: a fixed one, or with `FUZZ_SECONDS` (`make fuzz`) a new one that lasts so long.
struct Fuzz {
    rng: StdRng,
    until: Option<Instant>,
    done: usize,
}

impl Fuzz {
    fn start(fixed_seed: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let seconds = number("FUZZ_SECONDS");
        let seed = number("FUZZ_SEED").unwrap_or_else(|| seconds.map_or(fixed_seed, |_| rand::random()));
        println!("seed {seed} (FUZZ_SEED sets another)");
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Self { rng: StdRng::seed_from_u64(seed), until, done: 0 }
    }

    fn goes_on(&mut self) -> bool {
        self.done += 1;
        let goes_on = self.until.map_or(self.done <= MUTATIONS, |until| Instant::now() < until);
        if !goes_on {
            println!("{} inputs", self.done - 1);
        }
        goes_on
    }
}

/// Puts a message together again after its raw body was changed, with a checksum that holds.
fn reassemble(message: &[u8], raw: &[u8]) -> Vec<u8> {
    let header_bytes = usize::from(u16::from_le_bytes([message[6], message[7]]));
    let mut out = message[..header_bytes].to_vec();
    out[16..20].copy_from_slice(&u32::try_from(raw.len()).unwrap().to_le_bytes());
    out.extend(zstd::bulk::compress(raw, 1).unwrap());
    seal(out)
}

fn seal(mut message: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&message[12..]);
    message[8..12].copy_from_slice(&checksum.to_le_bytes());
    message
}

fn raw_body(message: &[u8]) -> Vec<u8> {
    let header_bytes = usize::from(u16::from_le_bytes([message[6], message[7]]));
    zstd::bulk::decompress(&message[header_bytes..], 64 << 20).unwrap()
}

fn mutate(bytes: &mut [u8], rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes[at] = 0xff,
            _ => {
                let value: i64 = [i64::MAX, i64::MIN, -1, 1 << 40, 65_537][rng.random_range(0..5)];
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
        }
    }
}

#[test]
fn a_lying_body_is_an_error_or_rows_but_never_a_panic() {
    let mut fuzz = Fuzz::start(1);
    let message = encode(&header(RecordKind::Event), &events(30)).unwrap();
    let raw = raw_body(&message);
    let mut refused = 0;
    while fuzz.goes_on() {
        let mut lying = raw.clone();
        mutate(&mut lying, &mut fuzz.rng);
        refused += usize::from(decode(&reassemble(&message, &lying)).is_err());
    }
    assert!(refused > fuzz.done / 10, "only {refused} of {} refused: the mutations do not reach the checks", fuzz.done);
}

#[test]
fn a_lying_header_is_an_error_or_rows_but_never_a_panic() {
    let mut fuzz = Fuzz::start(2);
    let message = encode(&header(RecordKind::Event), &events(30)).unwrap();
    let header_bytes = usize::from(u16::from_le_bytes([message[6], message[7]]));
    while fuzz.goes_on() {
        let mut lying = message.to_vec();
        mutate(&mut lying[6..header_bytes], &mut fuzz.rng);
        let _ = decode(&seal(lying));
    }
}

#[test]
fn arbitrary_bytes_are_an_error() {
    let mut fuzz = Fuzz::start(3);
    while fuzz.goes_on() {
        let rng = &mut fuzz.rng;
        let mut bytes = vec![0; rng.random_range(0..400)];
        rng.fill(bytes.as_mut_slice());
        if bytes.len() > 6 && rng.random() {
            bytes[..4].copy_from_slice(b"CSWY");
            bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        }
        assert!(decode(&bytes).is_err());
    }
}

#[test]
fn a_bomb_is_refused_and_a_larger_one_before_it_unpacks() {
    let message = encode(&header(RecordKind::Event), &events(3)).unwrap();
    for (raw_bytes, cause) in [(RAW_BYTES_MAX, "bad_body"), (RAW_BYTES_MAX + 1, "bad_field")] {
        let refused = decode(&reassemble(&message, &vec![0; raw_bytes as usize])).unwrap_err();
        assert_eq!(refused.cause(), cause, "{refused}");
    }
}
