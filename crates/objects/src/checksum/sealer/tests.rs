use super::super::tests::{file, is_sound};
use super::*;
use crate::checksum::Guard;

/// A file of `body` bytes in front of its footer, given in pieces, with the last `kept` of them in the tail.
fn sealed(id: Uuid, body: usize, piece: usize, kept: usize) -> (Uuid, Vec<u8>) {
    let plain = file(body);
    let mut sealer = Sealer::new(id);
    let name = sealer.name();
    let pushed = body.saturating_sub(kept);
    plain[..pushed].chunks(piece).for_each(|bytes| sealer.push(bytes));
    let end = sealer.finish(plain[pushed..].to_vec()).unwrap();
    (name, [&plain[..pushed], &end].concat())
}

#[test]
fn a_file_sealed_in_pieces_has_the_checksum_that_its_name_had_before() {
    for body in [0, 1, 16_379, 16_380, 16_381, 16_383, 16_384, 16_385, 100_000] {
        for (piece, kept) in [(1_000, 0), (16_384, 0), (100_000, 7)] {
            let id = Uuid::now_v7();
            let (name, bytes) = sealed(id, body, piece, kept);
            let Some(Guard::Blocks(expected)) = Guard::of(&format!("data/{name}.parquet")) else { panic!("{name}") };
            assert!(is_sound(&bytes, expected), "{body} bytes in pieces of {piece}");
            assert_eq!(bytes[..body], file(body)[..body]);
            assert!(bytes.ends_with(&file(body)[body..]));
        }
    }
}

#[test]
fn another_file_of_the_same_size_does_not_pass_under_the_name() {
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    let [(_, one), (other, _)] = ids.map(|id| sealed(id, 50_000, 16_000, 0));
    let Some(Guard::Blocks(expected)) = Guard::of(&format!("{other}.parquet")) else { panic!("{other}") };
    assert!(!is_sound(&one, expected));
}

#[test]
fn each_damaged_byte_of_a_file_sealed_in_pieces_is_found() {
    let (name, bytes) = sealed(Uuid::now_v7(), 40_000, 9_000, 100);
    let Some(Guard::Blocks(expected)) = Guard::of(&format!("{name}.parquet")) else { panic!("{name}") };
    for at in (0..bytes.len()).step_by(if cfg!(debug_assertions) { 37 } else { 1 }) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(!is_sound(&damaged, expected), "byte {at}");
    }
}

#[test]
fn a_tail_without_its_footer_is_refused() {
    let plain = file(1_000);
    let short = plain[plain.len() - 10..].to_vec();
    assert!(Sealer::new(Uuid::now_v7()).finish(short).is_err());
    assert!(Sealer::new(Uuid::now_v7()).finish(b"PAR1".to_vec()).is_err());
}
