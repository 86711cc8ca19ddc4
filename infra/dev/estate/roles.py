"""Requests in the name of each role, answered by a local server that enforces the policies that were applied.

`roles.py`, with AWS_ENDPOINT_URL of the server and Terraform's outputs on standard input. The server knows actions and resources of
S3, not conditions; what the roles may do with queues and the key is held against a list in `terraform.py`.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable

import boto3
from botocore.exceptions import ClientError

DATA = "warehouse/silver/events/data/00/a.parquet"
METADATA = "warehouse/silver/events/metadata/00001-a.metadata.json"
DROPPED = "incoming/node-7/a.db"
DEAD = "dead-letter/node-7/a.db"
REQUESTS: dict[str, Callable] = {
    "read": lambda s3, bucket, key: s3.get_object(Bucket=bucket, Key=key),
    "write": lambda s3, bucket, key: s3.put_object(Bucket=bucket, Key=key, Body=b"x"),
    "tag": lambda s3, bucket, key: s3.put_object_tagging(
        Bucket=bucket, Key=key, Tagging={"TagSet": [{"Key": "processing_status", "Value": "complete"}]}
    ),
    "untag": lambda s3, bucket, key: s3.delete_object_tagging(Bucket=bucket, Key=key),
    "delete": lambda s3, bucket, key: s3.delete_object(Bucket=bucket, Key=key),
}
PLACES = {"data": DATA, "metadata": METADATA, "incoming": DROPPED, "dead-letter": DEAD}
# All that each role may do; every other pair of a request and a place must be refused.
MAY = {
    "agent": set(),
    "ingest": {
        ("read", "data"),
        ("write", "data"),
        ("tag", "data"),
        ("read", "metadata"),
        ("write", "metadata"),
        ("tag", "metadata"),
        ("delete", "metadata"),
        ("read", "incoming"),
        ("tag", "incoming"),
        ("write", "dead-letter"),
        ("tag", "dead-letter"),
    },
    "compactor": {(request, place) for request in REQUESTS if request != "untag" for place in ("data", "metadata")},
    "query": {("read", "data"), ("read", "metadata")},
    "operator": {
        ("read", "data"),
        ("write", "data"),
        ("tag", "data"),
        ("read", "metadata"),
        ("write", "metadata"),
        ("tag", "metadata"),
        ("read", "incoming"),
        ("tag", "incoming"),
        ("untag", "incoming"),
    },
}


def client(role_arn: str):
    keys = boto3.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="estate")["Credentials"]
    return boto3.client(
        "s3",
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


def enforce(requests_without: str) -> None:
    """From the given number of requests on, the server asks for rights."""
    url = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    request = urllib.request.Request(url, data=requests_without.encode(), headers={"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def is_allowed(request: Callable[[], object]) -> bool:
    try:
        request()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "403"):
            return False
        raise
    return True


def follows_policies(bucket: str, role_arn: str, s3) -> bool:
    """Whether a right that is planted is granted: a server that refuses everything would prove nothing."""
    iam, role = boto3.client("iam"), role_arn.rpartition("/")[2]
    statement = {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    iam.put_role_policy(
        RoleName=role, PolicyName="planted", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    enforce("0")
    allowed = is_allowed(lambda: REQUESTS["delete"](s3, bucket, DATA))
    enforce("inf")
    iam.delete_role_policy(RoleName=role, PolicyName="planted")
    return allowed


def main() -> None:
    outputs = {name: output["value"] for name, output in json.load(sys.stdin).items()}
    bucket = outputs["warehouse"].removeprefix("s3://").partition("/")[0]
    owner = boto3.client("s3")
    clients = {role: client(arn) for role, arn in (outputs["role_arns"] | {"operator": outputs["operator_role_arn"]}).items()}
    problems, asked = [], 0
    for role, s3 in clients.items():
        for name, request in REQUESTS.items():
            for place, key in PLACES.items():
                owner.put_object(Bucket=bucket, Key=key, Body=b"x")
                enforce("0")
                allowed = is_allowed(lambda: request(s3, bucket, key))
                enforce("inf")
                asked += 1
                if allowed != ((name, place) in MAY[role]):
                    problems.append(f"{role} {'may' if allowed else 'may not'} {name} {key}")
    if not follows_policies(bucket, outputs["role_arns"]["query"], clients["query"]):
        problems.append("the server refuses what a policy grants")
    for problem in problems:
        print(f"error: roles: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"roles: {asked} requests of {len(clients)} roles allowed or refused as they should be")


if __name__ == "__main__":
    main()
