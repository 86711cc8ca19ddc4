#!/usr/bin/env python3
"""Makes random statements with subqueries over small tables with NULLs, and says what DuckDB answers to each, or SQLite where DuckDB
has no answer.

    subqueries.py --seed 7 --count 200

Prints one line {"sql": …, "rows": […]} per statement, rows as JSON values in the order of their text. Statements that both refuse
have "error" instead of "rows". The same seed gives the same statements.
"""
import argparse
import json
import random
import sqlite3

import duckdb

COMPARE = ["=", "<>", "<", "<=", ">", ">="]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.aliases = 0

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, percent):
        return self.random.random() * 100 < percent

    def alias(self):
        self.aliases += 1
        return f"q{self.aliases}"

    def cell(self):
        return "CAST(NULL AS BIGINT)" if self.chance(20) else f"CAST({self.random.randint(0, 4)} AS BIGINT)"

    def table(self, name, columns, rows):
        values = ", ".join("(" + ", ".join(self.cell() for _ in columns) + ")" for _ in range(rows))
        if rows:
            return f"{name}({', '.join(columns)}) AS (VALUES {values})"
        nothing = ", ".join("CAST(NULL AS BIGINT)" for _ in columns)
        return f"{name}({', '.join(columns)}) AS (SELECT * FROM (VALUES ({nothing})) AS e WHERE false)"

    def condition(self, inner, outer):
        """A condition between the columns of two aliases."""
        inside, outside = f"{inner}.{self.pick('x', 't')}", f"{outer}.{self.pick('x', 't')}"
        kind = self.random.randint(0, 9)
        if kind < 4:
            return f"{inside} = {outside}"
        if kind < 6:
            return f"{inside} {self.pick(*COMPARE)} {outside}"
        if kind == 6:
            return f"{inside} IS NOT DISTINCT FROM {outside}"
        if kind == 7:
            return f"{inside} + {outside} > {self.random.randint(1, 5)}"
        if kind == 8:
            return f"({inside} = {outside} OR {outside} IS NULL)"
        return f"({inside} = {outside} AND {inner}.g > {outer}.t)"

    def where(self, inner, outers, depth):
        parts = []
        if self.chance(85):
            parts.append(self.condition(inner, outers[-1]))
        if len(outers) > 1 and self.chance(60):
            parts.append(self.condition(inner, self.pick(*outers)))
        if self.chance(25):
            parts.append(f"{inner}.g {self.pick(*COMPARE)} {self.random.randint(0, 3)}")
        if depth and self.chance(25):
            parts.append(self.predicate(outers + [inner], depth - 1))
        return " WHERE " + " AND ".join(parts) if parts else ""

    def source(self, alias, outers):
        kind = self.random.randint(0, 6)
        if kind == 0:
            other = self.alias()
            join = self.pick("JOIN", "LEFT JOIN")
            return f"b AS {alias} {join} c AS {other} ON {other}.z = {alias}.x"
        if kind == 1:
            other = self.alias()
            return f"(SELECT {other}.x, {other}.t, {other}.g FROM b AS {other} WHERE {self.condition(other, outers[-1])}) AS {alias}"
        if kind == 2:
            other = self.alias()
            return f"(SELECT {other}.x, {other}.t, max({other}.g) AS g FROM b AS {other} GROUP BY {other}.x, {other}.t) AS {alias}"
        return f"b AS {alias}"

    def column(self, outers, depth):
        """A subquery of one column and any number of rows."""
        alias = self.alias()
        body = f"FROM {self.source(alias, outers)}{self.where(alias, outers, depth)}"
        kind = self.random.randint(0, 9)
        if kind < 4:
            return f"SELECT {alias}.{self.pick('x', 'g')} {body}"
        if kind == 4:
            return f"SELECT {self.total(alias)} {body}"
        if kind == 5:
            having = self.pick("", f" HAVING count(*) > {self.random.randint(0, 2)}", f" HAVING max({alias}.x) > {outers[-1]}.t")
            return f"SELECT {self.total(alias)} {body} GROUP BY {alias}.g{having}"
        if kind == 6:
            value = f"{alias}.{self.pick('x', 'g')}"
            limit = self.pick("LIMIT 1", "LIMIT 2", "OFFSET 1", "LIMIT 1 OFFSET 1", "LIMIT 0")
            return f"SELECT {value} {body} ORDER BY {value} {self.pick('ASC', 'DESC')} NULLS {self.pick('FIRST', 'LAST')} {limit}"
        if kind == 7:
            return f"SELECT DISTINCT {alias}.{self.pick('x', 'g')} {body}"
        if kind == 8:
            other = self.alias()
            union = self.pick("UNION ALL", "UNION", "INTERSECT", "EXCEPT")
            return f"SELECT {alias}.x {body} {union} SELECT {other}.z FROM c AS {other} WHERE {other}.x = {outers[-1]}.t"
        return f"SELECT {alias}.x + {outers[-1]}.t {body}"

    def total(self, alias):
        return self.pick(
            "count(*)",
            f"count({alias}.x)",
            f"sum({alias}.x)",
            f"max({alias}.g)",
            f"min({alias}.x) + 1",
            "count(*) + 1",
            f"coalesce(sum({alias}.g), -1)",
            f"count(DISTINCT {alias}.x)",
            f"CASE WHEN count(*) = 0 THEN 9 ELSE max({alias}.x) END",
        )

    def value(self, outers, depth):
        """A subquery of one column and at most one row."""
        alias = self.alias()
        body = f"FROM {self.source(alias, outers)}{self.where(alias, outers, depth)}"
        kind = self.random.randint(0, 5)
        if kind < 4:
            having = self.pick("", "", "", " HAVING count(*) > 1")
            return f"SELECT {self.total(alias)} {body}{having}"
        value = f"{alias}.{self.pick('x', 'g')}"
        return f"SELECT {value} {body} ORDER BY {value} {self.pick('ASC', 'DESC')} NULLS LAST LIMIT 1{self.pick('', ' OFFSET 1')}"

    def predicate(self, outers, depth):
        outer = outers[-1]
        subject = self.pick(f"{outer}.x", f"{outer}.t", f"{outer}.x + 1", "2")
        kind = self.random.randint(0, 8)
        maybe_not = self.pick("", "NOT ")
        if kind < 2:
            return f"{maybe_not}EXISTS ({self.column(outers, depth)})"
        if kind < 5:
            return f"{subject} {maybe_not}IN ({self.column(outers, depth)})"
        if kind == 5:
            return f"{subject} {self.pick(*COMPARE)} {self.pick('ANY', 'ALL')} ({self.column(outers, depth)})"
        if kind == 6:
            self.has_rows = True
            alias = self.alias()
            body = f"FROM b AS {alias}{self.where(alias, outers, depth)}"
            return f"({outer}.x, {outer}.t) {maybe_not}IN (SELECT {alias}.x, {alias}.g {body})"
        if kind == 7:
            return f"{subject} {self.pick(*COMPARE)} ({self.value(outers, depth)})"
        return f"({self.predicate(outers, 0)} OR {self.predicate(outers, 0)})"

    def statement(self):
        self.aliases, self.has_rows = 0, False
        rows = self.random.randint(2, 5)
        tables = ", ".join(
            [
                self.table("a", ["x", "t", "g"], rows),
                self.table("b", ["x", "t", "g"], self.pick(0, 3, 5, 7)),
                self.table("c", ["z", "x"], self.pick(1, 3)),
            ]
        )
        outers, depth = ["a"], self.pick(0, 0, 1, 2)
        kind = self.random.randint(0, 11)
        if kind < 4:
            query = f"SELECT a.x, a.t FROM a WHERE {self.predicate(outers, depth)}"
        elif kind < 6:
            query = f"SELECT a.x, ({self.value(outers, depth)}) AS v FROM a"
        elif kind < 8:
            query = f"SELECT a.x, {self.predicate(outers, depth)} AS v FROM a"
        elif kind == 8:
            query = f"SELECT a.x, CASE WHEN {self.predicate(outers, depth)} THEN ({self.value(outers, 0)}) ELSE -1 END AS v FROM a"
        elif kind == 9:
            query = f"SELECT a.t, count(*) AS n FROM a GROUP BY a.t HAVING {self.predicate(['a'], 0).replace('a.x', 'a.t')}"
        elif kind == 10:
            join = self.pick("JOIN", "LEFT JOIN")
            query = f"SELECT a.x, d.z FROM a {join} c AS d ON d.z = a.x AND {self.predicate(outers, 0)}"
        else:
            query = f"SELECT a.t, sum(({self.value(outers, 0)})) AS n FROM a WHERE {self.predicate(outers, 0)} GROUP BY a.t"
        return f"WITH {tables} {query}", 1 if kind in (6, 7) else None


def in_duckdb(database, sql):
    return [list(row) for row in database.execute(sql).fetchall()]


def in_sqlite(sql, truth):
    """`truth` is the column of truth values, for which SQLite has no type."""
    rows = [list(row) for row in sqlite3.connect(":memory:").execute(sql).fetchall()]
    for row in rows if truth is not None else []:
        row[truth] = None if row[truth] is None else bool(row[truth])
    return rows


def answer(database, sql, truth, has_rows):
    # DuckDB takes two rows with a NULL for unknown also where another pair of their columns differs.
    if has_rows:
        return in_sqlite(sql, truth)
    try:
        return in_duckdb(database, sql)
    except duckdb.NotImplementedException:
        return in_sqlite(sql, truth)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    maker = Maker(args.seed)
    database = duckdb.connect()
    for _ in range(args.count):
        sql, truth = maker.statement()
        line = {"sql": sql}
        try:
            line["rows"] = sorted(answer(database, sql, truth, maker.has_rows), key=json.dumps)
        except (duckdb.Error, sqlite3.Error) as error:
            line["error"] = str(error).splitlines()[0]
        print(json.dumps(line))


if __name__ == "__main__":
    main()
