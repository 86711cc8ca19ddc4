#!/usr/bin/env python3
"""Drops files into a bucket whose events go to a queue, and shows what became of them. For the tests of the bulk path.

    bulk.py make                         a bucket, its queue and a queue of dead letters; prints their URLs as JSON
    bulk.py write DIR SEED COUNT         writes COUNT files of every format, with some that cannot be landed; prints what is in them
    bulk.py drop DIR [SEED] [COPIES]     uploads all files of DIR below incoming/, in an order that follows from SEED, and
                                         sends COPIES of each announcement once more
    bulk.py put KEY FILE                 uploads one file; one of more than 8 MiB in parts
    bulk.py delete KEY
    bulk.py say BODY                     a message of any text to the queue
    bulk.py state                        objects with their tags, messages in the queue, and dead letters, as JSON

Bucket and endpoint come from the environment: S3_BUCKET, AWS_ENDPOINT_URL.
"""
import gzip
import json
import os
import random
import sys
from pathlib import Path
from urllib.parse import quote_plus

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

BUCKET = os.environ["S3_BUCKET"]
CLIENT = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
S3 = boto3.client("s3", **CLIENT, **KEYS)
SQS = boto3.client("sqs", **CLIENT, **KEYS)


def url(name):
    return SQS.get_queue_url(QueueName=name)["QueueUrl"]


def arn(queue):
    return SQS.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def make():
    queue, dead = (SQS.create_queue(QueueName=name)["QueueUrl"] for name in ("incoming", "dead"))
    events = {"QueueConfigurations": [{"QueueArn": arn(queue), "Events": ["s3:ObjectCreated:*"]}]}
    S3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=events)
    return {"queue": queue, "dead_letter_queue": dead}


def announcement(key, etag, size):
    """As AWS sends it: with a version's form of key, and a sequencer."""
    subject = {"bucket": {"name": BUCKET}, "object": {"key": quote_plus(key, safe="/"), "eTag": etag, "size": size, "sequencer": "00"}}
    return json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": subject}]})


def drop(directory, seed="0", copies="0"):
    chance = random.Random(int(seed))
    files = sorted(path for path in Path(directory).iterdir() if path.is_file())
    chance.shuffle(files)
    again = []
    for path in files:
        key = f"incoming/{path.name}"
        etag = S3.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())["ETag"].strip('"')
        again += [announcement(key, etag, path.stat().st_size)] * int(copies)
    chance.shuffle(again)
    for body in again:
        SQS.send_message(QueueUrl=url("incoming"), MessageBody=body)
    return {"dropped": len(files), "announced": len(files) + len(again)}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows):
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue().to_pybytes()


FORMS = {
    ".jsonl": lines,
    " with space+plus%.jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    ".jsonl.zst": lambda rows: zstandard.compress(lines(rows)),
    ".parquet": parquet,
}
POISON = {
    "cut.gz": lambda rows: gzip.compress(lines(rows))[:-9],
    "cut.zst": lambda rows: zstandard.compress(lines(rows))[:-2],
    "unknown-field.jsonl": lambda rows: lines(rows) + b'{"node":"n","when":1}\n',
    "text.csv": lambda rows: b"node,ts_ns\n",
    "array.json": lambda rows: json.dumps(rows).encode(),
    "empty": lambda rows: b"",
    "cut.parquet": lambda rows: parquet(rows)[:-20],
    "other.parquet": lambda rows: parquet([{"step": 1}]),
    "cut.db": lambda rows: b"SQLite format 3\0" + bytes(200),
}


def write(directory, seed, count):
    chance = random.Random(int(seed))
    events, total = 0, 0
    for number in range(int(count)):
        ending, form = list(FORMS.items())[number % len(FORMS)]
        rows = []
        for _ in range(chance.randrange(1, 400)):
            events += 1
            total += events
            # `arg0` is a number of the event: that each is there once shows in its sum.
            rows.append({"node": f"bulk-{chance.randrange(4)}", "ts_ns": 1763000000000000000 + events * 1000, "source": 1, "op": 1,
                         "pid": 7, "tid": 8, "arg0": events, "comm": "python"})
        Path(directory, f"{number:04}{ending}").write_bytes(form(rows))
    few = [{"node": "poison", "ts_ns": 1763000000000000000, "source": 1, "op": 1, "pid": 1, "tid": 1, "arg0": 1}] * 50
    for name, form in POISON.items():
        Path(directory, name).write_bytes(form(few))
    return {"rows": events, "sum": total, "poison": sorted(POISON)}


def depth(queue):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return {name: int(n) for name, n in SQS.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"].items()}


def dead_letters(queue):
    found = {}
    while messages := SQS.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages"):
        fresh = {message["MessageId"]: json.loads(message["Body"]) for message in messages}
        if fresh.keys() <= found.keys():
            break
        found |= fresh
    return list(found.values())


def state():
    objects = {}
    for page in S3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for found in page.get("Contents", []):
            tags = S3.get_object_tagging(Bucket=BUCKET, Key=found["Key"])["TagSet"]
            objects[found["Key"]] = {tag["Key"]: tag["Value"] for tag in tags}
    waiting = depth(url("incoming"))
    return {
        "objects": objects,
        "visible": waiting["ApproximateNumberOfMessages"],
        "hidden": waiting["ApproximateNumberOfMessagesNotVisible"],
        "dead": dead_letters(url("dead")),
    }


def put(key, file):
    S3.upload_file(file, BUCKET, key)
    return {}


def delete(key):
    S3.delete_object(Bucket=BUCKET, Key=key)
    return {}


def say(body):
    SQS.send_message(QueueUrl=url("incoming"), MessageBody=body)
    return {}


COMMANDS = {"make": make, "write": write, "drop": drop, "put": put, "delete": delete, "say": say, "state": state}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    json.dump(COMMANDS[sys.argv[1]](*sys.argv[2:]), sys.stdout)
