use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const FOOTER: &[u8] = b"a footer, as long as it says";

/// Bytes that end as a Parquet file does.
pub(super) fn file(body: usize) -> Vec<u8> {
    let mut file: Vec<u8> = (0..body).map(|at| (at * 31 % 251) as u8).collect();
    file.extend_from_slice(FOOTER);
    file.extend_from_slice(&(FOOTER.len() as u32).to_le_bytes());
    file.extend_from_slice(b"PAR1");
    file
}

fn read(bytes: &[u8], expected: u32) -> Result<Checksums, Damage> {
    match Checksums::read(bytes, bytes.len() as u64, expected)? {
        Tail::Checksums(checksums) => Ok(checksums),
        Tail::Longer(more) => panic!("{more} bytes of {} are wanted", bytes.len()),
    }
}

/// Whether reading all of a file shows no damage.
pub(super) fn is_sound(bytes: &[u8], expected: u32) -> bool {
    read(bytes, expected).is_ok_and(|checksums| checksums.first_damaged(0, bytes).is_none())
}

#[test]
fn a_sealed_file_is_sound_and_keeps_what_was_in_front_of_its_footer_and_the_footer() {
    for body in [0, 1, 16_383, 16_384, 16_385, 100_000] {
        let plain = file(body);
        let (sealed, checksum) = seal(plain.clone()).unwrap();
        assert_eq!(sealed[..body], plain[..body]);
        assert!(sealed.ends_with(&plain[body..]));
        assert!(is_sound(&sealed, checksum), "{body}");
        assert!(!is_sound(&sealed, checksum ^ 1), "another file of the same size has another checksum");
        assert!(!is_sound(&plain, checksum), "a file without its table is not what was written");
    }
}

#[test]
fn no_flipped_bit_and_no_lost_or_added_byte_passes() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (sealed, checksum) = seal(file(50_000)).unwrap();
    // All bits of the table and the footer, and many of the blocks.
    let bits = (50_000 * 8..sealed.len() * 8).chain((0..5_000).map(|_| random.random_range(0..50_000 * 8)));
    for bit in bits.collect::<Vec<_>>() {
        let mut flipped = sealed.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_sound(&flipped, checksum), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(read(&sealed[..length], checksum).is_err(), "cut to {length} bytes");
    }
    assert!(!is_sound(&[&sealed[..], b"x"].concat(), checksum));
    assert!(!is_sound(&[b"x", &sealed[..]].concat(), checksum));
}

#[test]
fn as_much_of_the_end_is_asked_for_as_is_needed() {
    let (sealed, checksum) = seal(file(400_000)).unwrap();
    let size = sealed.len() as u64;
    let mut tail = 8;
    let mut turns = 0;
    let checksums = loop {
        turns += 1;
        match Checksums::read(&sealed[sealed.len() - tail..], size, checksum).unwrap() {
            Tail::Checksums(checksums) => break checksums,
            Tail::Longer(more) => {
                assert!(more as usize > tail && more <= size);
                tail = more as usize;
            }
        }
    };
    assert_eq!(turns, 3);
    assert_eq!(checksums, read(&sealed, checksum).unwrap());
}

#[test]
fn a_range_is_widened_to_whole_units() {
    let (sealed, checksum) = seal(file(20_000)).unwrap();
    let (checksums, size) = (read(&sealed, checksum).unwrap(), sealed.len() as u64);
    let footer = checksums.footer();
    for (wanted, widened) in [
        (0..1, 0..16_384),
        (16_383..16_385, 0..20_000),
        (16_384..16_384, 16_384..16_384),
        (19_999..20_000, 16_384..20_000),
        (19_999..20_001, 16_384..footer.start),
        (20_001..20_002, 20_000..footer.start),
        (size - 8..size, footer.clone()),
        (footer.start - 1..footer.start + 1, 20_000..size),
    ] {
        assert_eq!(checksums.widen(&wanted), widened, "{wanted:?}");
    }
}

#[test]
fn names_of_ours_hold_a_checksum_and_others_none() {
    let id = Uuid::now_v7();
    let stamped = stamp(id, 0x0102_03ff);
    assert_eq!(stamped.get_version_num(), 8);
    assert_eq!(stamped.as_bytes()[..6], id.as_bytes()[..6], "names still rise with time");
    for (name, guard) in [
        (format!("silver/events/data/ab/ts_day=2026-01-01/{stamped}.parquet"), Some(Guard::Blocks(0x0102_03ff))),
        (format!("silver/events/metadata/{stamped}-m.avro"), Some(Guard::Whole(0x0102_03ff))),
        (format!("metadata/snap-8812-{stamped}.avro"), Some(Guard::Whole(0x0102_03ff))),
        (format!("file:///w/t/metadata/00012-{stamped}.metadata.json"), Some(Guard::Whole(0x0102_03ff))),
        (format!("w/t/metadata/00012-{stamped}.gz.metadata.json"), Some(Guard::Whole(0x0102_03ff))),
        (format!("data/{id}.parquet"), None),
        (format!("data/00000-0-{}-00001.parquet", Uuid::new_v4()), None),
        (format!("metadata/00012-{}.gz.metadata.json", Uuid::new_v4()), None),
        (format!("{stamped}"), None),
        (format!("{stamped}.parquet.crc"), None),
        ("part-0.parquet".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(Guard::of(&name), guard, "{name}");
    }
}

#[test]
fn the_name_of_an_object_says_when_it_was_written() {
    let second = uuid::Timestamp::from_unix(uuid::NoContext, 1_767_225_600, 0);
    let id = stamp(Uuid::new_v7(second), 0xffff_ffff);
    assert_eq!(named_unix_ms(&format!("silver/t/data/ts_day=2026-01-01/{id}.parquet")), Some(1_767_225_600_000));
    assert_eq!(named_unix_ms(&format!("silver/t/data/{}.parquet", Uuid::nil())), None);
    assert_eq!(named_unix_ms("silver/t/data/part-0.parquet"), None);
}
