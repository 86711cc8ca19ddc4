#!/usr/bin/env python3
"""Moto with all its services on one loopback port, with two attributes as they were written, and one action by its name.

* The AWS provider writes `ObjectSizeGreaterThan` into every filter of a lifecycle rule with several conditions, 0 where no size is
  meant, and waits until it reads back what it has written. Moto 5.2.5 drops the size: the provider would wait until its time is up.
* The redrive policy of a queue comes back with spaces, which the provider takes for a change.
* Who removes the tags of an object is asked for `s3:DeleteObjectTagging`. Moto 5.2.5 asks for `s3:DeleteObject`.
"""

import argparse
import json

from moto.core.responses import ActionResult
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import FakeBucket
from moto.s3.responses import ACTION_MAP, S3Response
from moto.sqs.models import Queue
from werkzeug.serving import make_server

SIZES = ("ObjectSizeGreaterThan", "ObjectSizeLessThan")
set_lifecycle = FakeBucket.set_lifecycle
get_bucket_lifecycle = S3Response.get_bucket_lifecycle
attributes = Queue.attributes


def sizes_of(rule: dict) -> dict[str, int]:
    both = (rule.get("Filter") or {}).get("And") or {}
    return {name: int(both[name]) for name in SIZES if name in both}


def keep_sizes(bucket: FakeBucket, rules: list[dict]) -> None:
    set_lifecycle(bucket, rules)
    bucket.lifecycle_sizes = {rule.get("ID"): sizes_of(rule) for rule in rules}


def with_sizes(response: S3Response):
    sizes = getattr(response.backend.get_bucket(response.bucket_name), "lifecycle_sizes", {})
    serialized = response.serialized

    def add(action: ActionResult):
        for rule in action.result.get("Rules", []) if isinstance(action.result, dict) else []:
            rule["Filter"].get("And", {}).update(sizes.get(rule["ID"], {}))
        return serialized(action)

    response.serialized = add
    return get_bucket_lifecycle(response)


def without_spaces(queue: Queue) -> dict:
    result = attributes.fget(queue)
    if result.get("RedrivePolicy"):
        result["RedrivePolicy"] = json.dumps(json.loads(result["RedrivePolicy"]), separators=(",", ":"))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mark", default="", help="any text, by which this process is found among others")
    args = parser.parse_args()
    FakeBucket.set_lifecycle = keep_sizes
    S3Response.get_bucket_lifecycle = with_sizes
    Queue.attributes = property(without_spaces)
    ACTION_MAP["KEY"]["DELETE"]["tagging"] = "DeleteObjectTagging"
    make_server("127.0.0.1", args.port, DomainDispatcherApplication(create_backend_app), threaded=True).serve_forever()


if __name__ == "__main__":
    main()
