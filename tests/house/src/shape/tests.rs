//! Each thing that is counted, counted on purpose.

use super::*;

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

const LIMITS: Limits = Limits {
    closures_per_kloc: 0.0,
    tuple_lets_per_kloc: 0.0,
    pub_super_fields: 0,
    mute_public_fields_percent: 0.0,
    circles: 0,
    step_comments_percent: 0.0,
};

#[test]
fn closures_tuples_and_fields_are_counted_and_those_of_tests_are_not() {
    let text = "
        pub struct S {
            /// Said.
            pub a: u8,
            pub b: u8,
            pub(super) c: u8,
            pub(crate) d: u8,
        }
        fn f() {
            let g = |x| x;
            let (a, b) = (1, 2);
            let (c, d) = pair();
        }
        mod tests {
            fn f() { let g = |x| x; }
        }";
    let shape = Shape::of(&[file("crates/a/src/lib.rs", text), file("crates/a/tests/it/main.rs", text)]);
    let counted = (shape.closures, shape.tuple_lets, shape.pub_super_fields, shape.public_fields);
    assert_eq!((counted, shape.mute_public_fields), ((1, 1, 1, 2), 1));
    assert_eq!(shape.violations(LIMITS).len(), 4);
    assert_eq!(Shape::of(&[file("crates/a/src/lib.rs", "fn f() {}")]).violations(LIMITS), [""; 0]);
    assert_eq!(Shape::of(&[file("crates/a/src/lib.rs", "fn")]).violations(LIMITS), ["crates/a/src/lib.rs"]);
}

#[test]
fn comments_beside_the_code_are_counted_and_docs_are_not() {
    let text = "//! Of the file.\n/// Of the item.\nfn f() {\n    // Beside the step.\n}\n";
    let shape = Shape::of(&[file("crates/a/src/lib.rs", text)]);
    assert_eq!((shape.step_comments, shape.step_comments_percent()), (1, 20.0));
    let limits = Limits { step_comments_percent: 20.1, ..LIMITS };
    assert_eq!(shape.violations(limits).len(), 1);
    assert_eq!(shape.violations(Limits { step_comments_percent: 20.0, ..LIMITS }), [""; 0]);
}

#[test]
fn modules_that_import_one_another_are_a_circle_unless_one_is_below_the_other() {
    let files = [
        file("crates/a/src/lib.rs", "mod one; mod two; mod three; use one::X;"),
        file("crates/a/src/one.rs", "mod below; use crate::two::Y; use self::below::B;"),
        file("crates/a/src/one/below.rs", "use super::X; use std::fmt; use crate::three;"),
        file("crates/a/src/two.rs", "use crate::{three::{Z, W}, four};"),
        file("crates/a/src/three.rs", "use super::one::X as Other;"),
        file("crates/b/src/one.rs", "use crate::two::*;"),
        file("crates/b/src/two.rs", "use other::one;"),
    ];
    assert_eq!(Shape::of(&files).circles, ["crates/a: one, three, two"]);
    assert_eq!(Shape::of(&files[5..]).circles, [""; 0]);
}
