use super::*;

fn array(pieces: &[&str]) -> String {
    let mut array = JsonArray::default();
    let mut out: Vec<u8> = pieces.iter().flat_map(|piece| array.pass(piece.as_bytes())).collect();
    out.extend(array.end());
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_become_an_array_wherever_the_stream_is_cut() {
    assert_eq!(array(&[]), "[]\n");
    assert_eq!(array(&["{\"a\":1}\n{\"a\":2}\n"]), "[{\"a\":1},\n{\"a\":2}]\n");
    assert_eq!(array(&["{\"a\"", ":1}", "\n", "{\"a\":2}\n"]), "[{\"a\":1},\n{\"a\":2}]\n");
}

#[test]
fn a_table_shows_cells_as_the_server_sent_them() {
    let json = r#"{"columns":[{"name":"node","type":"varchar"},{"name":"cnt","type":"bigint"},{"name":"x","type":"double"}],
                   "rows":[["gpu-node-01",99,759.0080000000001],[null,9007199254740993,1e300]],"row_count":2,"truncated":false,"completeness":null,"snapshots":[],"elapsed_ms":1}"#;
    let answer: Answer = serde_json::from_str(json).unwrap();
    assert_eq!(
        as_table(&answer),
        "node        |              cnt |                 x\n\
         ------------+------------------+------------------\n\
         gpu-node-01 |               99 | 759.0080000000001\n\
         NULL        | 9007199254740993 |             1e300\n"
    );
}

#[test]
fn only_types_of_numbers_are_aligned_as_numbers() {
    for number in ["tinyint", "smallint", "integer", "bigint", "real", "double", "decimal(38, 2)"] {
        assert!(is_number(number), "{number}");
    }
    for other in ["varchar", "interval", "array(bigint)", "map(varchar, double)", "row(point varchar)", "timestamp(6)"]
    {
        assert!(!is_number(other), "{other}");
    }
}
