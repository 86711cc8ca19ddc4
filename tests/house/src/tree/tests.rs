use super::*;
use crate::workspace::Member;

fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn long_files_are_listed_and_too_long_ones_fail() {
    let files = [
        file("a.rs", &"x\n".repeat(4)),
        file("b.py", &"x\n".repeat(6)),
        file("c.rs", &"x\n".repeat(7)),
        file("d.lock", &"x\n".repeat(9)),
    ];
    let lengths = lengths(&files, FileRule { warn_lines: 4, max_lines: 6 });
    assert_eq!(lengths, Lengths { too_long: vec!["c.rs has 7 lines".into()], long: vec!["b.py has 6 lines".into()] });
}

#[test]
fn a_mod_file_is_named() {
    assert_eq!(mod_files(&[file("src/model.rs", "")]), none());
    assert_eq!(mod_files(&[file("src/http/mod.rs", "")]).len(), 1);
}

#[test]
fn unfinished_work_is_named_with_its_line() {
    let text = format!("fn f() {{\n    {}\n}}\n", UNFINISHED[0]);
    assert_eq!(
        unfinished(&[file("a.rs", &text), file("notes.md", &text)]),
        [format!("a.rs:2 holds {}", UNFINISHED[0])]
    );
    for mark in UNFINISHED {
        assert_eq!(unfinished(&[file("a.c", mark)]).len(), 1);
    }
    assert_eq!(unfinished(&[file("a.rs", "fn f() {}")]), none());
}

#[test]
fn a_folder_or_crate_that_does_not_say_what_belongs_in_it_is_named() {
    let workspace =
        Workspace { members: vec![Member { folder: "crates/a".into(), ..Member::default() }], ..Workspace::default() };
    let mut files = vec![
        file("crates/README.md", "# Crates"),
        file("crates/a/src/lib.rs", "//! A."),
        file(".ci/run", ""),
        file("web/x.html", ""),
    ];
    assert_eq!(undescribed(&files, &workspace), ["web does not say what belongs in it"]);
    files[1].text.clear();
    files[3].path = "web/README.md".into();
    files[3].text = "# Page".into();
    assert_eq!(undescribed(&files, &workspace), ["crates/a does not say what belongs in it"]);
}

#[test]
fn a_file_that_does_not_say_why_it_exists_is_named() {
    let files =
        [file("a/src/b.rs", "use x;"), file("a/src/c.rs", "//! Why."), file("a/src/b/tests.rs", "use super::*;")];
    assert_eq!(silent_files(&files), ["a/src/b.rs does not begin with a //! line"]);
}
