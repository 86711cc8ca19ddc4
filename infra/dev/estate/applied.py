"""What was applied does what it should.

`applied.py`, with AWS_ENDPOINT_URL of the local server and Terraform's outputs on standard input.
"""

import json
import sys
import time
from collections.abc import Callable
from urllib.parse import unquote_plus

import boto3
from botocore.exceptions import ClientError

TIERED = ["bronze-messages", "silver-aggregates", "silver-events", "silver-system"]
TAG = {"Key": "processing_status", "Value": "complete"}


def tier(name: str, prefix: str) -> dict:
    return {
        "ID": f"tier-{name}",
        "Status": "Enabled",
        # The provider writes 0 where no size is meant.
        "Filter": {"And": {"ObjectSizeGreaterThan": 0, "Prefix": prefix, "Tags": [TAG]}},
        "Transitions": [{"Days": 1, "StorageClass": "GLACIER_IR"}, {"Days": 365, "StorageClass": "DEEP_ARCHIVE"}],
    }


# Written out once more: the modules are not asked what they meant.
LIFECYCLE = [tier(name, f"warehouse/{name.replace('-', '/', 1)}/data/") for name in TIERED] + [
    tier("incoming", "incoming/"),
    {
        "ID": "expire-noncurrent",
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": 35},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    },
    {"ID": "abort-incomplete-uploads", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
]


def normal(rule: dict) -> dict:
    """A rule without what servers write differently for "every object", and with its transitions in order."""
    kept = {key: value for key, value in rule.items() if key != "Prefix" and value not in ({}, {"Prefix": ""})}
    if "Transitions" in kept:
        kept["Transitions"] = sorted(kept["Transitions"], key=lambda step: step["Days"])
    return kept


def by_id(rules: list[dict]) -> list[dict]:
    return sorted(map(normal, rules), key=lambda rule: rule["ID"])


def receive(sqs, queue: str, wanted: Callable[[dict], bool]) -> dict | None:
    """The first message of a queue that is wanted within ten seconds; the others stay invisible."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
            if wanted(json.loads(message["Body"])):
                return message
    return None


def announces(key: str) -> Callable[[dict], bool]:
    # Keys are encoded as in a form (Amazon S3 user guide, "Event message structure").
    return lambda body: key in [unquote_plus(record["s3"]["object"]["key"]) for record in body.get("Records", [])]


def is_refused(request: Callable[[], object]) -> bool:
    try:
        request()
    except ClientError as error:
        return error.response["Error"]["Code"] in ("403", "AccessDenied")
    return False


def main() -> None:
    outputs = {name: output["value"] for name, output in json.load(sys.stdin).items()}
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    bucket = outputs["warehouse"].removeprefix("s3://").partition("/")[0]
    problems = []

    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    if sorted(block) != ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"] or not all(
        block.values()
    ):
        problems.append(f"the bucket can be made public: {block}")
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        problems.append("the bucket keeps no versions")
    default = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    if default["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] != "aws:kms":
        problems.append(f"the bucket is encrypted with {default}")

    held = by_id(s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"])
    for rule in by_id(LIFECYCLE):
        if rule not in held:
            problems.append(f"the lifecycle lacks {rule}; it has {[r for r in held if r['ID'] == rule['ID']]}")
    if len(held) != len(LIFECYCLE):
        problems.append(f"the lifecycle has the rules {[rule['ID'] for rule in held]}")

    # The policy of the bucket refuses plain HTTP, which is all that the server speaks.
    if not is_refused(lambda: s3.put_object(Bucket=bucket, Key="incoming/plain", Body=b"x")):
        problems.append("the bucket accepts plain HTTP")
    s3.delete_bucket_policy(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="warehouse/silver/events/data/00/a.parquet", Body=b"x", Tagging="processing_status=complete")
    s3.put_object(Bucket=bucket, Key="incoming/node-7/a.db", Body=b"x")
    held_by_queue = sqs.get_queue_attributes(QueueUrl=outputs["queue_url"], AttributeNames=["RedrivePolicy"])["Attributes"]
    redrive = json.loads(held_by_queue["RedrivePolicy"])
    if int(redrive["maxReceiveCount"]) != 1000:
        problems.append(f"the queue gives announcements up after {redrive['maxReceiveCount']} receptions")
    message = receive(sqs, outputs["queue_url"], announces("incoming/node-7/a.db"))
    if message is None:
        problems.append("a PUT below incoming/ did not reach the queue")
    else:
        # Five receptions without a deletion: the sixth finds it in the other queue. A thousand would take minutes.
        sqs.set_queue_attributes(
            QueueUrl=outputs["queue_url"], Attributes={"RedrivePolicy": json.dumps(redrive | {"maxReceiveCount": 5})}
        )
        for _ in range(4):
            sqs.change_message_visibility(
                QueueUrl=outputs["queue_url"], ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
            )
            message = receive(sqs, outputs["queue_url"], announces("incoming/node-7/a.db")) or message
        sqs.change_message_visibility(QueueUrl=outputs["queue_url"], ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        if receive(sqs, outputs["queue_url"], lambda _: True) is not None:
            problems.append("the queue announces what is not below incoming/, or a message for the sixth time")
        if receive(sqs, outputs["dead_queue_url"], announces("incoming/node-7/a.db")) is None:
            problems.append("a message that was received as often as it may is not in the dead-letter queue")

    for problem in problems:
        print(f"error: applied: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(
        f"applied: {len(held)} lifecycle rules read back as written, a PUT below incoming/ reaches the queue, "
        "what is received too often the dead letters"
    )


if __name__ == "__main__":
    try:
        main()
    except ClientError as error:
        sys.exit(f"error: applied: the server refused {error.operation_name}: {error}")
