use std::sync::Arc;

use datafusion::common::Span;

use super::*;

#[test]
fn a_parser_position_becomes_a_field() {
    let error = DataFusionError::SQL(
        Box::new(ParserError::ParserError("Expected: an expression, found: FROM at Line: 3, Column: 9".to_owned())),
        None,
    );
    let sorted = classify(&error, 0);
    assert_eq!(sorted.position(), Some(Position { line: 3, column: 9 }));
    assert_eq!(sorted.to_string(), "syntax error: Expected: an expression, found: FROM");
}

#[test]
fn close_names_are_near_and_few() {
    let known = ["duration", "node", "rank", "local_rank", "timestamp", "ts"];
    assert_eq!(close_names("durration", known.into_iter()), ["duration"]);
    assert_eq!(close_names("Rank", known.into_iter()), ["rank", "local_rank"]);
    assert!(close_names("quux", known.into_iter()).is_empty());
}

#[test]
fn the_innermost_error_is_sorted_with_the_outer_position() {
    let span = Span::new(
        datafusion::common::Location { line: 2, column: 8 },
        datafusion::common::Location { line: 2, column: 9 },
    );
    let inner = DataFusionError::Plan("Invalid function 'cuont'.\nDid you mean 'count'?".to_owned());
    let error = DataFusionError::Shared(Arc::new(DataFusionError::Context(
        "planning".to_owned(),
        Box::new(DataFusionError::Diagnostic(Box::new(Diagnostic::new_error("x", Some(span))), Box::new(inner))),
    )));
    let sorted = classify(&error, 0);
    assert_eq!(sorted.to_string(), "function `cuont` does not exist; close names are `count`, `cot`");
    assert_eq!(sorted.position(), Some(Position { line: 2, column: 8 }));
}

#[test]
fn a_scan_error_names_its_file_through_arrow_and_datafusion() {
    let scan = ScanError::Damaged { file: "silver/events/a.parquet".to_owned(), problem: "bad page".to_owned() };
    let error = DataFusionError::ArrowError(
        Box::new(ArrowError::ExternalError(Box::new(DataFusionError::External(Box::new(scan))))),
        None,
    );
    assert!(matches!(classify(&error, 0), QueryError::DataFile { file, .. } if file == "silver/events/a.parquet"));
}
