#!/usr/bin/env python3
"""Counts a table with PyIceberg and, on its own, with DuckDB, and says whether they agree.

    oracle.py --catalog sqlite:////data/catalog.sqlite
    oracle.py --catalog postgresql+psycopg2://user:password@127.0.0.1:5432/iceberg --s3-endpoint http://127.0.0.1:14566
              [--table silver.events] [--id node,boot_id,epoch,stream,seq] [--group node] [--sum seq] [--name causeway]
              [--table bronze.messages:log_partition,log_offset:log_name:log_offset …]

Prints {"table", "metadata_location", "snapshot_id", "pyiceberg": {count, distinct_ids, sum_seq, groups}, "duckdb": {…}, "agree",
"manifests", "files", "distinct_files"}, one line per table. A table may say its id, group and sum columns after colons.
Exit code 0 when both say the same and every id and every file is there once, 1 when not, 2 on a failure. Neither reader shares
code with Causeway. PyIceberg goes through the catalog; DuckDB gets the metadata location that the catalog named, so both read one
snapshot. With --dump, the rows as PyIceberg read them go to DIR/<table>.arrow.
"""
import argparse
import glob
import json
import os
import sys
from importlib.util import find_spec
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog


def catalog(args):
    # The SQL catalog reads its warehouse only to create tables.
    properties = {"uri": args.catalog, "init_catalog_tables": "false"}
    if args.s3_endpoint:
        properties |= {
            "s3.endpoint": args.s3_endpoint,
            "s3.access-key-id": args.s3_key,
            "s3.secret-access-key": args.s3_secret,
            "s3.region": args.s3_region,
            "s3.force-virtual-addressing": "false",
            # Seconds without a byte; the default of 3 is little on a busy machine.
            "s3.request-timeout": "60",
        }
    return SqlCatalog(args.name, **properties)


def exact_sum(column):
    """The sum of an int64 column, as text: sequence numbers are large, and their sum can pass the 64 bits of a JSON reader."""
    high = pc.sum(pc.shift_right(column, 32)).as_py() or 0
    low = pc.sum(pc.bit_wise_and(column, pa.scalar(0xFFFFFFFF, pa.int64()))).as_py() or 0
    return str((high << 32) + low)


def group_name(values):
    return "/".join(map(str, values))


def count_pyiceberg(table, args):
    columns = ("*",) if args.dump else tuple(dict.fromkeys([*args.id, *args.group, args.sum]))
    rows = table.scan(selected_fields=columns).to_arrow()
    if args.dump:
        with pa.ipc.new_file(f"{args.dump}/{args.table}.arrow", rows.schema) as file:
            file.write_table(rows)
    groups = rows.group_by(args.group).aggregate([([], "count_all")]).to_pylist()
    return {
        "count": rows.num_rows,
        "distinct_ids": rows.group_by(args.id).aggregate([]).num_rows,
        f"sum_{args.sum}": exact_sum(rows[args.sum].cast(pa.int64())),
        "groups": {group_name(row[column] for column in args.group): row["count_all"] for row in groups},
    }


def connect_duckdb(args):
    connection = duckdb.connect()
    # The extensions come as wheels: nothing is fetched over the network.
    for name in ("avro", "httpfs", "iceberg"):
        folder = os.path.dirname(find_spec(f"duckdb_extension_{name}").origin)
        (binary,) = glob.glob(f"{folder}/extensions/v{duckdb.__version__}/*.duckdb_extension")
        connection.execute(f"load '{binary}'")
    if args.s3_endpoint:
        endpoint = urlsplit(args.s3_endpoint)
        connection.execute(
            "create secret (type s3, key_id $key, secret $secret, region $region, endpoint $endpoint, url_style 'path', use_ssl $ssl)",
            {"key": args.s3_key, "secret": args.s3_secret, "region": args.s3_region, "endpoint": endpoint.netloc, "ssl": endpoint.scheme == "https"},
        )
    return connection


def count_duckdb(connection, location, args):
    path = location.removeprefix("file://")
    ids = ", ".join(f'"{column}"' for column in args.id)
    source = f"iceberg_scan('{path}')"
    count, total = connection.execute(f'select count(*), coalesce(sum("{args.sum}"), 0) from {source}').fetchone()
    (distinct,) = connection.execute(f"select count(*) from (select distinct {ids} from {source})").fetchone()
    columns = ", ".join(f'"{column}"' for column in args.group)
    groups = connection.execute(f"select {columns}, count(*) from {source} group by all").fetchall()
    groups = {group_name(values): n for *values, n in groups}
    return {"count": count, "distinct_ids": distinct, f"sum_{args.sum}": str(int(total)), "groups": groups}


def count_files(table, snapshot):
    """How many manifests the snapshot has and how often its data files are listed."""
    files = [task.file.file_path for task in table.scan().plan_files()]
    return {"manifests": len(snapshot.manifests(table.io)) if snapshot else 0, "files": len(files), "distinct_files": len(set(files))}


def check(table, connection, args):
    """Count one table, print what was found, and say whether all is well."""
    snapshot = table.current_snapshot()
    answer = {"table": args.table, "metadata_location": table.metadata_location, "snapshot_id": snapshot and snapshot.snapshot_id}
    answer["pyiceberg"] = count_pyiceberg(table, args)
    if snapshot is None:
        answer["duckdb"] = answer["pyiceberg"]  # iceberg_scan refuses a table without a snapshot
    else:
        answer["duckdb"] = count_duckdb(connection, table.metadata_location, args)
    answer["agree"] = answer["pyiceberg"] == answer["duckdb"]
    answer |= count_files(table, snapshot)
    print(json.dumps(answer), flush=True)
    counts = answer["pyiceberg"]
    return answer["agree"] and counts["count"] == counts["distinct_ids"] and answer["files"] == answer["distinct_files"]


def of_table(args, spec):
    """The arguments for one --table: what it does not say after a colon is as given for all."""
    name, *rest = spec.split(":")
    ids, group, total = rest + [args.id, args.group, args.sum][len(rest):]
    return argparse.Namespace(**{**vars(args), "table": name, "id": ids.split(","), "group": group.split(","), "sum": total})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--catalog", required=True, help="SQLAlchemy address of the SQL catalog")
    parser.add_argument("--name", default="causeway", help="the catalog's name")
    parser.add_argument("--table", action="append", metavar="NAME[:ID[:GROUP[:SUM]]]", help="default: silver.events")
    parser.add_argument("--id", default="node,boot_id,epoch,stream,seq", help="columns that identify a row")
    parser.add_argument("--group", default="node", help="columns to count rows by")
    parser.add_argument("--sum", default="seq")
    parser.add_argument("--s3-endpoint", default=os.environ.get("AWS_ENDPOINT_URL"))
    parser.add_argument("--s3-key", default=os.environ.get("AWS_ACCESS_KEY_ID", "test"))
    parser.add_argument("--s3-secret", default=os.environ.get("AWS_SECRET_ACCESS_KEY", "test"))
    parser.add_argument("--s3-region", default=os.environ.get("AWS_REGION", "us-east-1"))
    parser.add_argument("--dump", metavar="DIR", help="write the rows PyIceberg read to DIR/<table>.arrow")
    args = parser.parse_args()
    opened, connection = catalog(args), connect_duckdb(args)
    wanted = [of_table(args, spec) for spec in args.table or ["silver.events"]]
    agreed = [check(opened.load_table(one.table), connection, one) for one in wanted]
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as cause:  # any failure of a reader is a failed check, which is not a wrong count
        print(f"oracle: {type(cause).__name__}: {cause}", file=sys.stderr)
        sys.exit(2)
