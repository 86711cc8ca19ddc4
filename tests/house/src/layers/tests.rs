use super::*;
use crate::workspace::Locked;

fn layers() -> Layers {
    toml::from_str(
        r#"
        [layer.pure]
        never_links = ["tokio"]
        [layer.service]
        [crate.schema]
        layer = "pure"
        imports = []
        [crate.server]
        layer = "service"
        imports = ["schema"]
        never_links = ["parquet"]
        [confined.tokio]
        to = ["service"]
        why = "waiting is for services"
        [confined."datafusion*"]
        to = []
        why = "there is no engine"
        [lock]
        single_version = ["arrow"]
        [files]
        warn_lines = 4
        max_lines = 6
        "#,
    )
    .unwrap()
}

fn member(name: &str, dependencies: &[&str]) -> Member {
    Member { name: name.into(), dependencies: dependencies.iter().map(|d| (*d).into()).collect(), ..Member::default() }
}

fn locked(name: &str, version: &str, dependencies: &[&str]) -> Locked {
    Locked {
        name: name.into(),
        version: version.into(),
        dependencies: dependencies.iter().map(|d| (*d).into()).collect(),
    }
}

fn workspace(schema: &[&str], server: &[&str]) -> Workspace {
    Workspace {
        members: vec![member("schema", schema), member("server", server)],
        lock: vec![locked("arrow", "1.0.0", &[])],
    }
}

#[test]
fn a_workspace_that_keeps_the_table_has_no_violation() {
    let workspace = workspace(&["arrow"], &["schema", "tokio"]);
    assert_eq!(layers().arrows(&workspace), Vec::<String>::new());
    assert_eq!(layers().links(&workspace), Vec::<String>::new());
    assert_eq!(layers().versions(&workspace), Vec::<String>::new());
}

#[test]
fn an_arrow_that_points_up_is_named() {
    assert_eq!(layers().arrows(&workspace(&["server"], &[])), ["schema imports server, but may import only []"]);
}

#[test]
fn a_confined_crate_is_named_with_the_reason() {
    assert_eq!(layers().arrows(&workspace(&["tokio"], &[])), ["schema names tokio, but waiting is for services"]);
    assert_eq!(
        layers().arrows(&workspace(&[], &["datafusion-common"])),
        ["server names datafusion-common, but there is no engine"]
    );
}

#[test]
fn a_crate_without_a_line_and_a_line_without_a_crate_are_named() {
    let mut workspace = workspace(&[], &[]);
    workspace.members[1].name = "stranger".into();
    assert_eq!(
        layers().arrows(&workspace),
        ["server is in layers.toml but not in the workspace", "stranger has no line in layers.toml"]
    );
}

#[test]
fn what_is_linked_indirectly_counts_but_not_what_only_tests_need() {
    let mut workspace = workspace(&["reqwest"], &["schema"]);
    workspace.lock.extend([
        locked("reqwest", "1.0.0", &["hyper 2.0.0"]),
        locked("hyper", "1.0.0", &["parquet"]),
        locked("hyper", "2.0.0", &["tokio"]),
        locked("parquet", "1.0.0", &[]),
        locked("schema", "0.1.0", &["reqwest", "parquet"]),
    ]);
    assert_eq!(layers().links(&workspace), ["schema links tokio, which it never may"]);
    workspace.members[0].dependencies = ["hyper".to_owned()].into();
    assert_eq!(
        layers().links(&workspace).len(),
        2,
        "either hyper may be meant, and the server links what schema links"
    );
}

#[test]
fn a_second_version_is_named() {
    let mut workspace = workspace(&[], &[]);
    workspace.lock.push(locked("arrow", "2.0.0", &[]));
    assert_eq!(layers().versions(&workspace), ["arrow must have one version in Cargo.lock, it has 2: 1.0.0, 2.0.0"]);
    workspace.lock.clear();
    assert_eq!(layers().versions(&workspace).len(), 1, "a name that is in the lock file no more is a stale rule");
}

#[test]
fn a_feature_is_named() {
    let mut workspace = workspace(&[], &[]);
    assert_eq!(features(&workspace), Vec::<String>::new());
    workspace.members[0].features.insert("simd".into());
    assert_eq!(features(&workspace), ["schema declares the feature simd"]);
}
