//! Laws of the house, held against the tree as it is. Each fails with the list of what breaks it.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cognitive_complexity,
    reason = "tests count small numbers"
)]

use std::io::Write;

use house_tests::layers::{self, Layers};
use house_tests::prose::Prose;
use house_tests::shape::{Limits, Shape};
use house_tests::workspace::Workspace;
use house_tests::{HouseError, catalogue, features, pages, root, tree};

fn assert_none(law: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{law}:\n  {}", violations.join("\n  "));
}

fn load() -> Result<(Layers, Workspace), HouseError> {
    Ok((Layers::load(&root().join("tests/house/layers.toml"))?, Workspace::load(&root())?))
}

#[test]
fn every_arrow_between_crates_points_down() {
    let (layers, workspace) = load().unwrap();
    assert_none("imports that tests/house/layers.toml does not allow", &layers.arrows(&workspace));
    assert_none("linked although forbidden", &layers.links(&workspace));
}

#[test]
fn every_dependency_is_used() {
    let files = tree::walk(&root()).unwrap();
    assert_none("dependencies that no file of the crate names", &load().unwrap().1.unused(&files));
}

#[test]
fn no_crate_declares_a_feature() {
    assert_none("features make several programs out of one source", &layers::features(&load().unwrap().1));
}

#[test]
fn there_is_one_arrow_one_parquet_one_iceberg_and_one_datafusion() {
    let (layers, workspace) = load().unwrap();
    assert_none("crates that must have one version", &layers.versions(&workspace));
}

#[test]
fn building_and_testing_share_every_compiled_dependency() {
    assert_none("compiled twice", &features::split(&root()).unwrap());
}

#[test]
fn no_source_file_is_too_long() {
    let files = tree::walk(&root()).unwrap();
    let lengths = tree::lengths(&files, load().unwrap().0.files);
    for file in &lengths.long {
        // Straight to the file descriptor: the runner hides what passing tests print.
        let _ = writeln!(std::io::stderr(), "warning: {file}");
    }
    assert_none("files too long to be read at once", &lengths.too_long);
}

#[test]
fn every_folder_crate_and_file_says_what_it_is_for() {
    let files = tree::walk(&root()).unwrap();
    assert_none("folders without a README or crate doc", &tree::undescribed(&files, &load().unwrap().1));
    assert_none("files without a reason", &tree::silent_files(&files));
}

#[test]
fn modules_are_named_after_their_files() {
    assert_none("mod.rs", &tree::mod_files(&tree::walk(&root()).unwrap()));
}

#[test]
fn nothing_unfinished_is_in_the_tree() {
    assert_none("unfinished", &tree::unfinished(&tree::walk(&root()).unwrap()));
}

#[test]
fn no_word_is_used_that_the_field_does_not_use() {
    let prose = Prose::load(&root().join("tests/house/prose.toml")).unwrap();
    assert_none("banned by tests/house/prose.toml", &prose.violations(&tree::walk(&root()).unwrap()));
}

#[test]
fn pages_name_files_that_exist() {
    assert_none("named by a page and not in the tree", &pages::dead_paths(&tree::walk(&root()).unwrap()));
}

/// Shows the figures: those that are below their limits have room to be lowered.
#[test]
fn the_code_is_no_denser_than_it_was() {
    let limits = Limits::load(&root().join("tests/house/shape.toml")).unwrap();
    let shape = Shape::of(&tree::walk(&root()).unwrap());
    let _ = writeln!(
        std::io::stderr(),
        "shape: {} lines; in 1,000: {:.2} closures, {:.2} tuple lets; {} pub(super) fields; {:.0} % of {} public fields mute; \
         {:.1} % of the lines comments beside the code; circles:\n  {}",
        shape.lines,
        shape.per_kloc(shape.closures),
        shape.per_kloc(shape.tuple_lets),
        shape.pub_super_fields,
        shape.mute_public_fields_percent(),
        shape.public_fields,
        shape.step_comments_percent(),
        shape.circles.join("\n  ")
    );
    assert_none("passed limits of tests/house/shape.toml", &shape.violations(limits));
}

#[test]
fn operations_and_topics_are_written_once() {
    assert_none("written outside the catalogue", &catalogue::retyped(&tree::walk(&root()).unwrap()));
}

/// With `BLESS=1` the files are written instead.
#[test]
fn generated_files_are_what_the_catalogue_says() {
    let bless = std::env::var("BLESS").is_ok_and(|v| v == "1");
    let mut stale = Vec::new();
    for (path, wanted) in event_schema::generate::all() {
        if bless {
            std::fs::write(root().join(path), &wanted).unwrap();
        } else if std::fs::read_to_string(root().join(path)).unwrap_or_default() != wanted {
            stale.push(format!("{path} is stale: run make generate and commit the result"));
        }
    }
    assert_none("generated files", &stale);
}
