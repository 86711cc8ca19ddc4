use super::*;

fn cut_of(pieces: &[(i64, u64)], most: u64) -> Slices {
    cut(&ten_ns_each(pieces), &Window { from_ns: 1_000, to_ns: 1_099, job: None }, most)
}

fn ten_ns_each(pieces: &[(i64, u64)]) -> Vec<Piece> {
    let piece = |&(number, events): &(i64, u64)| {
        let from_ns = 1_000 + 10 * number;
        Piece { from_ns, to_ns: from_ns + 9, events }
    };
    pieces.iter().map(piece).collect()
}

#[test]
fn a_piece_with_more_than_a_slice_may_have_is_counted_again() {
    let dense = SLICE_EVENTS + 1;
    assert_eq!(
        too_dense(&ten_ns_each(&[(0, dense), (1, 5), (2, dense), (3, 7)]), u64::MAX),
        Some(2),
        "the newest first"
    );
    assert_eq!(too_dense(&ten_ns_each(&[(0, dense), (1, 5)]), u64::MAX), Some(0));
    assert_eq!(too_dense(&ten_ns_each(&[(0, dense), (1, 5)]), 6), Some(0), "the one that the limit cuts");
    assert_eq!(
        too_dense(&ten_ns_each(&[(0, dense), (1, 5), (2, 7)]), 12),
        None,
        "what is beyond the limit is not counted"
    );
    assert_eq!(too_dense(&ten_ns_each(&[(0, 50), (1, 5)]), 20), Some(0), "a limit below a slice");
    let instant = Piece { from_ns: 5, to_ns: 5, events: dense };
    assert_eq!(too_dense(&[instant], u64::MAX), None, "one moment cannot be divided");
}

#[test]
fn a_window_that_fits_is_one_slice_from_end_to_end() {
    let found = cut_of(&[(2, 5), (7, 5)], 100);
    assert_eq!((found.slices, found.events, found.unread), (vec![1_000..=1_099], 10, 0));
    assert_eq!(cut_of(&[], 100), Slices::default());
}

#[test]
fn slices_follow_one_another_and_hold_no_more_than_the_detector_does() {
    let many = SLICE_EVENTS / 2 + 1;
    let found = cut_of(&[(0, many), (1, many), (5, 3), (9, SLICE_EVENTS * 3)], u64::MAX);
    assert_eq!(found.slices, [1_000..=1_009, 1_010..=1_089, 1_090..=1_099]);
    assert_eq!((found.events, found.unread), (2 * many + 3 + 3 * SLICE_EVENTS, 0));
}

#[test]
fn what_is_too_much_is_left_out_from_the_beginning_and_counted() {
    let found = cut_of(&[(0, 50), (3, 40), (8, 30), (9, 20)], 60);
    assert_eq!((found.slices, found.events, found.unread), (vec![1_080..=1_099], 50, 90));
    let dense = cut_of(&[(0, 50), (3, 400)], 60);
    assert_eq!((dense.slices, dense.events, dense.unread), (vec![1_030..=1_099], 400, 50), "one piece at least");
}

#[test]
fn pieces_cover_any_window() {
    let window = |from_ns, to_ns| Window { from_ns, to_ns, job: None };
    assert_eq!(piece_ns(&window(0, 0)), 1);
    let five_minutes = window(0, 300_000_000_000);
    assert!(300_000_000_000 / piece_ns(&five_minutes) < PIECES as i64);
    assert!(piece_ns(&window(i64::MIN, i64::MAX)) > 0);
}
