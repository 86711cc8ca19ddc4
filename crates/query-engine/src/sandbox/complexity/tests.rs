use super::*;

fn checked(sql: &str) -> Result<(), QueryError> {
    check_text(sql)?;
    check_statement(&crate::statement::parse(sql)?)
}

fn complaint(sql: &str) -> String {
    checked(sql).unwrap_err().to_string()
}

#[test]
fn ordinary_queries_pass() {
    for sql in [
        "SELECT node, source, count(*) AS cnt, avg(duration)/1000 AS avg_us FROM events GROUP BY node, source",
        "WITH a AS (SELECT * FROM events), b AS (SELECT * FROM a JOIN a AS x USING (id)) SELECT count(*) FROM b",
        "EXPLAIN ANALYZE SELECT 1",
        "DESCRIBE events",
        "VALUES (1), (2)",
    ] {
        assert!(checked(sql).is_ok(), "{sql}: {:?}", checked(sql));
    }
}

#[test]
fn a_list_of_many_literals_is_not_a_chain() {
    let list = (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert!(checked(&format!("SELECT 1 WHERE 1 IN ({list})")).is_ok());
}

#[test]
fn long_chains_are_refused_whatever_the_operator() {
    for (first, rest) in [("1", "+1"), ("a", " AND a"), ("1", "::int"), ("'a'", "||'a'"), ("a", "[1]")] {
        let sql = format!("SELECT {first}{}", rest.repeat(2_000));
        assert!(complaint(&sql).contains("operators in one expression"), "{rest}: {}", complaint(&sql));
    }
    for rest in [" + having", " IS DISTINCT FROM a", " COLLATE a", " + end"] {
        let sql = format!("SELECT (((a{})))", rest.repeat(2_000));
        assert!(check_text(&sql).unwrap_err().to_string().contains("operators in one expression"), "{rest}");
    }
    assert!(complaint(&format!("SELECT {} a", "NOT ".repeat(2_000))).contains("operators in one expression"));
    assert!(complaint(&format!("SELECT {} 1", "- ".repeat(2_000))).contains("operators in one expression"));
}

#[test]
fn deep_nesting_many_unions_and_many_joins_are_refused() {
    let nested = format!("SELECT {}1{}", "(".repeat(200), ")".repeat(200));
    assert!(complaint(&nested).contains("levels of parentheses"));
    let cases = format!("SELECT {}1{}", "CASE WHEN a THEN ".repeat(200), " END".repeat(200));
    assert!(complaint(&cases).contains("levels of parentheses"));
    assert!(complaint(&["SELECT 1"; 500].join(" UNION ALL ")).contains("set operations"));
    assert!(complaint(&format!("SELECT 1 FROM {}", ["events"; 500].join(","))).contains("joined tables"));
    assert!(complaint(&format!("SELECT 1 FROM {}", ["events"; 500].join(" CROSS JOIN "))).contains("joined tables"));
}

#[test]
fn table_expressions_that_double_with_every_line_are_refused() {
    // Of a recursive WITH, the planner takes the members that are no UNION for ordinary ones.
    for (with, quote) in [("WITH", ""), ("WITH RECURSIVE", ""), ("WITH", "\"")] {
        let mut sql = format!("{with} t0 AS (SELECT 1 AS x FROM events)");
        for n in 1..20 {
            let used = format!("{quote}t{}{quote}", n - 1);
            sql += &format!(", t{n} AS (SELECT a.x FROM {used} AS a, {used} AS b)");
        }
        sql += " SELECT count(*) FROM t19";
        assert!(complaint(&sql).contains("once WITH is expanded"), "{}", complaint(&sql));
    }
}

#[test]
fn a_name_stands_for_what_is_known_where_it_is_used() {
    for sql in [
        // The table, and not the expression itself.
        "WITH events AS (SELECT a.* FROM events a JOIN events b USING (id)) SELECT * FROM events",
        "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT a.x + 1 FROM n a JOIN n b USING (x)) SELECT x FROM n",
        "WITH \"T\" AS (SELECT 1 AS x FROM t a, t b), t AS (SELECT x FROM \"T\" a, \"T\" b) SELECT x FROM t",
    ] {
        assert!(checked(sql).is_ok(), "{sql}: {:?}", checked(sql));
    }
}

#[test]
fn doubling_hidden_in_a_nested_query_is_refused_too() {
    let outer =
        (1..7).map(|n| format!(", a{n} AS (SELECT 1 FROM a{m} AS x, a{m} AS y)", m = n - 1)).collect::<String>();
    let inner =
        (1..7).map(|n| format!(", b{n} AS (SELECT 1 FROM b{m} AS x, b{m} AS y)", m = n - 1)).collect::<String>();
    let sql = format!(
        "WITH a0 AS (SELECT 1 FROM events){outer} SELECT * FROM (WITH b0 AS (SELECT 1 FROM a6){inner} SELECT * FROM b6) AS q"
    );
    assert!(complaint(&sql).contains("once WITH is expanded"));
}

#[test]
fn statements_that_write_or_configure_are_refused_by_name() {
    for (sql, name) in [
        ("INSERT INTO events VALUES (1)", "INSERT INTO"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "CREATE EXTERNAL TABLE"),
        ("COPY events TO '/tmp/x.csv'", "COPY"),
        ("SET datafusion.execution.batch_size = 1", "SET"),
        ("DROP TABLE events", "DROP TABLE"),
        ("EXPLAIN INSERT INTO events VALUES (1)", "INSERT INTO"),
    ] {
        assert!(complaint(sql).contains(name), "{sql}: {}", complaint(sql));
    }
}

#[test]
fn a_broken_token_is_named_with_its_place() {
    let error = check_text("SELECT 1,\n  'open").unwrap_err();
    assert_eq!(error.position(), Some(Position { line: 2, column: 3 }));
}
