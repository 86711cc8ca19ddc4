use super::*;

#[test]
fn columns_are_aligned_and_numbers_stand_to_the_right() {
    let mut table = TextTable::new(["node", "cnt", "note"]).numbers([1]);
    table.row(["gpu-node-01", "99", "µs"]);
    table.row(["n", "100", "a\nb"]);
    assert_eq!(
        table.render(),
        "node        | cnt | note\n------------+-----+-----\ngpu-node-01 |  99 | µs\nn           | 100 | a\\nb\n"
    );
}

#[test]
fn sizes_are_short() {
    assert_eq!(bytes(512), "512 B");
    assert_eq!(bytes(1536), "1.5 KiB");
    assert_eq!(bytes(3 << 30), "3.0 GiB");
}
