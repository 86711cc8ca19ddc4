use super::*;

const NOW_NS: i64 = 1_000_000_000_000;

fn scope(nodes: &[&str], since: Option<&str>) -> Scope {
    let nodes: Vec<String> = nodes.iter().map(|n| (*n).to_owned()).collect();
    Scope::new(&nodes, since, NOW_NS).unwrap()
}

#[test]
fn without_options_a_statement_is_sent_as_it_is() {
    let sql = "SELECT * FROM silver.events";
    assert_eq!(scope(&[], None).apply(sql), Ok(Scoped { sql: sql.to_owned(), lines_before: 0 }));
}

#[test]
fn every_view_that_is_read_is_narrowed() {
    let scoped = scope(&["a:8080", "o'b"], Some("1s")).apply("SELECT * FROM events e JOIN process_names p USING (pid)");
    assert_eq!(
        scoped.unwrap().sql,
        "WITH events AS (SELECT * FROM events WHERE node IN ('a', 'o''b') AND timestamp >= 999000000000), process_names AS \
         (SELECT * FROM process_names WHERE node IN ('a', 'o''b') AND seen_at >= 999000000000) (\nSELECT * FROM events e JOIN \
         process_names p USING (pid)\n)"
    );
}

#[test]
fn a_statement_with_expressions_of_its_own_keeps_them_and_its_columns() {
    let sql = "-- with care\n WITH RECURSIVE x AS (SELECT 1 FROM events) SELECT * FROM x -- end";
    let scoped = scope(&["a"], None).apply(sql).unwrap();
    assert_eq!(scoped.sql, format!("WITH events AS (SELECT * FROM events WHERE node IN ('a')) (\n{sql}\n)"));
    assert_eq!(scoped.lines_before, 1);
}

#[test]
fn what_is_explained_is_narrowed_and_keeps_its_columns() {
    let head_of = |sql: &str| sql[..head_of_explain(sql, &words(sql))].to_owned();
    assert_eq!(head_of("explain SELECT 1"), "explain");
    assert_eq!(head_of("EXPLAIN (SELECT 1)"), "EXPLAIN");
    assert_eq!(head_of("EXPLAIN ANALYZE VERBOSE\n FORMAT tree SELECT 1"), "EXPLAIN ANALYZE VERBOSE\n FORMAT tree");
    let scoped = scope(&["a"], None).apply("-- why\nEXPLAIN ANALYZE SELECT 1 FROM events").unwrap();
    assert_eq!(
        scoped.sql,
        "-- why\nEXPLAIN ANALYZE WITH events AS (SELECT * FROM events WHERE node IN ('a')) (\n      \n                SELECT 1 \
         FROM events\n)"
    );
    assert_eq!(scoped.lines_before, 2);
    let columns = "DESCRIBE events";
    assert_eq!(scope(&["a"], None).apply(columns), Ok(Scoped { sql: columns.to_owned(), lines_before: 0 }));
}

#[test]
fn quotes_and_comments_name_no_view() {
    let sql = "SELECT 'it''s events' -- events\n /* events */ FROM sources";
    assert_eq!(scope(&["a"], None).apply(sql), Err(ScopeError::NoView));
    assert_eq!(words("a.b 'x''y' 1e5 _c"), ["a.b", "_c"]);
}

#[test]
fn a_table_behind_the_views_is_refused_rather_than_left_whole() {
    let refused = scope(&["a"], None).apply("SELECT * FROM events JOIN Silver.events s USING (pid)");
    assert_eq!(refused, Err(ScopeError::Qualified { table: "Silver.events".to_owned() }));
}

#[test]
fn times_are_absolute_or_back_from_now() {
    assert_eq!(parse_since("2m", NOW_NS), Ok(880_000_000_000));
    assert_eq!(parse_since("1970-01-01T00:00:01Z", NOW_NS), Ok(1_000_000_000));
    assert!(parse_since("noon", NOW_NS).is_err());
}

#[test]
fn completeness_is_narrowed_to_the_nodes_wanted() {
    let all = Completeness {
        nodes_expected: 9,
        nodes_reporting: 7,
        missing: vec!["a".to_owned(), "z".to_owned()],
        ..Completeness::default()
    };
    let narrowed = scope(&["a", "b"], None).narrowed(&all);
    assert_eq!((narrowed.nodes_expected, narrowed.nodes_reporting), (2, 1));
    assert_eq!(narrowed.missing, ["a"]);
}
