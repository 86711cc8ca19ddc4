"""Laws of the AWS estate: `terraform.py FILE.json…`, with what `terraform show -json` prints of a state or of a plan.

A plan knows neither ARNs nor the policies that name them, and a local server does not have every service: a resource is taken
from the first file that has it.
"""

import fnmatch
import json
from pathlib import Path

from rules import Mistake, Rule, main, read_json

TAG = {"processing_status": "complete"}
TIERS = [("GLACIER_IR", 1), ("DEEP_ARCHIVE", 365)]
# Keys that the programs write, and whether a rule may ever move them: data files of tables with `TableDef::tiers` in crates/tables.
KEYS = {
    "warehouse/bronze/messages/data/3f/ts_day=2026-01-01/a.parquet": True,
    "warehouse/silver/events/data/3f/ts_day=2026-01-01/a.parquet": True,
    "warehouse/silver/system/data/3f/ts_day=2026-01-01/a.parquet": True,
    "warehouse/silver/aggregates/data/3f/ts_day=2026-01-01/a.parquet": True,
    "warehouse/silver/stacks/data/3f/a.parquet": False,
    "warehouse/silver/processes/data/3f/ts_day=2026-01-01/a.parquet": False,
    "incoming/node-7/recording.db": True,
    "warehouse/bronze/messages/metadata/00001-a.metadata.json": False,
    "warehouse/bronze/messages/metadata/snap-1.avro": False,
    "warehouse/silver/events/metadata/1-seen.stats": False,
    "warehouse/gold/op_minute/data/3f/a.parquet": False,
    "warehouse/ops/ledger/data/3f/a.parquet": False,
    "dead-letter/node-7/recording.db": False,
}
LIST = "s3:ListBucket"
OBJECTS = {"s3:GetObject", "s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}
LOGIN = {"secretsmanager:GetSecretValue", "kms:Decrypt"}
# All that the role of a service may hold. What is not here must not be there.
ALLOWED = {
    "agent": LOGIN,
    "ingest": LOGIN
    | OBJECTS
    | {
        LIST,
        "s3:DeleteObject",
        "s3:GetObjectVersion",
        "s3:GetObjectTagging",
        "s3:GetObjectVersionTagging",
        "s3:PutObjectVersionTagging",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:GetQueueAttributes",
        "sqs:SendMessage",
        "kms:GenerateDataKey",
    },
    "compactor": LOGIN | OBJECTS | {LIST, "s3:DeleteObject", "s3:GetObjectTagging", "kms:GenerateDataKey"},
    "query": LOGIN | {LIST, "s3:GetObject"},
    "operator": {
        LIST,
        "s3:ListBucketVersions",
        "s3:RestoreObject",
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectTagging",
        "s3:PutObject",
        "s3:PutObjectTagging",
        "s3:DeleteObjectTagging",
        "sqs:StartMessageMoveTask",
        "sqs:ListMessageMoveTasks",
        "sqs:CancelMessageMoveTask",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:SendMessage",
        "kms:GenerateDataKey",
        "kms:Decrypt",
    },
}
# What a role may do with each queue, by the end of the queue's name. `ALLOWED` is of all places together: a right on one queue would
# hide that it is missing on the other.
QUEUES = {
    "ingest": {
        "incoming": {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"},
        "dead": {"sqs:SendMessage", "sqs:GetQueueAttributes"},
    },
    "operator": {
        "incoming": {"sqs:SendMessage"},
        "dead": {
            "sqs:StartMessageMoveTask",
            "sqs:ListMessageMoveTasks",
            "sqs:CancelMessageMoveTask",
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
        },
    },
}


def load(files: list[Path]) -> list[dict]:
    """Every resource that Terraform manages, with its address, type and values."""
    found: dict[str, dict] = {}
    for file in files:
        document = read_json(file)
        open_modules = [(document.get("planned_values") or document["values"])["root_module"]]
        while open_modules:
            module = open_modules.pop()
            open_modules += module.get("child_modules", [])
            for resource in module.get("resources", []):
                if resource["mode"] == "managed":
                    # A plan leaves the values out where it knows none.
                    found.setdefault(resource["address"], {"values": {}, **resource})
    return [found[address] for address in sorted(found)]


def of(resources, kind):
    return [r for r in resources if r["type"] == kind]


def one(resources, bucket, kind):
    """The values of the resource of a kind in the module of a bucket: a plan does not know the name that joins them."""
    module = bucket["address"].rsplit("aws_s3_bucket", 1)[0]
    return next((r["values"] for r in of(resources, kind) if r["address"].rsplit(kind, 1)[0] == module), {})


def complete(resources):
    for kind in (
        "aws_s3_bucket",
        "aws_sqs_queue",
        "aws_kms_key",
        "aws_iam_role_policy",
        "aws_budgets_budget",
        "aws_cloudwatch_metric_alarm",
        "aws_db_instance",
        "aws_msk_cluster",
    ):
        if not of(resources, kind):
            yield f"there is no {kind}"


def private(resources):
    for bucket in of(resources, "aws_s3_bucket"):
        block = one(resources, bucket, "aws_s3_bucket_public_access_block")
        open_ = [
            key
            for key in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
            if block.get(key) is not True
        ]
        if open_:
            yield f"{bucket['address']} can be made public: {', '.join(open_)}"
        rules = one(resources, bucket, "aws_s3_bucket_ownership_controls").get("rule", [])
        if [rule["object_ownership"] for rule in rules] != ["BucketOwnerEnforced"]:
            yield f"{bucket['address']} has access control lists"


def versioned(resources):
    for bucket in of(resources, "aws_s3_bucket"):
        held = one(resources, bucket, "aws_s3_bucket_versioning").get("versioning_configuration", [])
        if [v["status"] for v in held] != ["Enabled"]:
            yield f"{bucket['address']} keeps no versions"
        if bucket["values"].get("force_destroy"):
            yield f"{bucket['address']} can be deleted with all that is in it"


def encrypted(resources):
    for bucket in of(resources, "aws_s3_bucket"):
        rules = one(resources, bucket, "aws_s3_bucket_server_side_encryption_configuration").get("rule", [])
        if [rule["apply_server_side_encryption_by_default"][0]["sse_algorithm"] for rule in rules] != ["aws:kms"]:
            yield f"{bucket['address']} is not encrypted with a key of ours"
    for key in of(resources, "aws_kms_key"):
        if not key["values"].get("enable_key_rotation"):
            yield f"{key['address']} is never rotated"
    for database in of(resources, "aws_db_instance"):
        if not database["values"].get("storage_encrypted"):
            yield f"{database['address']} is not encrypted"
    for cluster in of(resources, "aws_msk_cluster"):
        transit = cluster["values"]["encryption_info"][0]["encryption_in_transit"][0]
        if transit.get("client_broker") != "TLS" or transit.get("in_cluster") is not True:
            yield f"{cluster['address']} sends plain text"


def covers(rule, key):
    """Whether the filter of a lifecycle rule takes an object with this key and every tag in."""
    filters = rule["filter"][0] if rule["filter"] else {}
    both = (filters.get("and") or [{}])[0]
    return key.startswith(both.get("prefix") or filters.get("prefix") or rule.get("prefix") or "")


def lifecycle(resources):
    for bucket in of(resources, "aws_s3_bucket"):
        rules = one(resources, bucket, "aws_s3_bucket_lifecycle_configuration").get("rule", [])
        tiers = [rule for rule in rules if rule["transition"]]
        for rule in tiers:
            tags = (rule["filter"][0].get("and") or [{}])[0].get("tags")
            if tags != TAG:
                yield f"the rule {rule['id']} moves objects that are not declared complete: tags {tags}"
            held = [(step["storage_class"], step["days"]) for step in rule["transition"]]
            if sorted(held) != sorted(TIERS):
                yield f"the rule {rule['id']} moves to {held}, not {TIERS}"
        for key, may_move in KEYS.items():
            if any(covers(rule, key) for rule in tiers) != may_move:
                yield f"{key} {'never moves' if may_move else 'may move to a colder tier'}"
        if any(step.get("days") for rule in rules for step in rule["expiration"]):
            yield "a rule deletes objects that are current: only the compactor does that"
        if any(rule["noncurrent_version_transition"] for rule in rules):
            yield "a rule moves noncurrent versions, of metadata too"
        if not any(rule["abort_incomplete_multipart_upload"] and covers(rule, "x") for rule in rules):
            yield "incomplete uploads stay for ever"
        if not any(rule["noncurrent_version_expiration"] and covers(rule, "x") for rule in rules):
            yield "deleted versions stay for ever"


def queues(resources):
    names = {q["address"].rsplit(".", 1)[1] for q in of(resources, "aws_sqs_queue")}
    if names != {"incoming", "dead"}:
        yield f"queues are {sorted(names)}: one for announcements, and one for those that cannot be landed"
    notified = [q for n in of(resources, "aws_s3_bucket_notification") for q in n["values"].get("queue", [])]
    if [(q["events"], q["filter_prefix"]) for q in notified] != [(["s3:ObjectCreated:*"], "incoming/")]:
        yield f"the bucket announces {notified}"
    for queue in of(resources, "aws_sqs_queue"):
        redrive = json.loads(queue["values"].get("redrive_policy") or "{}")
        # Each 30 s while something else is away.
        if redrive and redrive["maxReceiveCount"] < 1000:
            yield f"{queue['address']} gives sound announcements up during an outage: {redrive['maxReceiveCount']} receptions"
    if not any(queue["values"].get("redrive_policy") for queue in of(resources, "aws_sqs_queue")):
        yield "messages that are no event of the bucket stay in the queue"


def durable(resources):
    for database in of(resources, "aws_db_instance"):
        v = database["values"]
        if (
            not v.get("multi_az")
            or v.get("publicly_accessible")
            or not v.get("deletion_protection")
            or v.get("skip_final_snapshot")
            or (v.get("backup_retention_period") or 0) < 7
        ):
            yield f"{database['address']}: two zones, private, protected from deletion, a week of backups at least"
    for configuration in of(resources, "aws_msk_configuration"):
        held = set(configuration["values"]["server_properties"].split())
        missing = {
            "min.insync.replicas=2",
            "unclean.leader.election.enable=false",
            "auto.create.topics.enable=false",
            "message.max.bytes=8388608",
        } - held
        if missing:
            yield f"{configuration['address']} lacks {sorted(missing)}"
    for cluster in of(resources, "aws_msk_cluster"):
        if cluster["values"]["client_authentication"][0].get("unauthenticated") is not False:
            yield f"{cluster['address']} lets anybody in"


def no_secrets(resources):
    for database in of(resources, "aws_db_instance"):
        if database["values"].get("password") or not database["values"].get("manage_master_user_password"):
            yield f"{database['address']}: its password is in the state"
    for version in of(resources, "aws_secretsmanager_secret_version"):
        if version["values"].get("secret_string"):
            yield f"{version['address']}: its value is in the state"


def watched(resources):
    for alarm in of(resources, "aws_cloudwatch_metric_alarm"):
        v = alarm["values"]
        if not v.get("alarm_description") or v.get("alarm_actions") == [] or v.get("actions_enabled") is False:
            yield f"{alarm['address']} calls no operator, or does not say why"
    metrics = {a["values"]["metric_name"] for a in of(resources, "aws_cloudwatch_metric_alarm")}
    missing = {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
        "FreeStorageSpace",
        "ActiveControllerCount",
        "KafkaDataLogsDiskUsed",
    } - metrics
    if missing:
        yield f"nothing watches {sorted(missing)}"
    for budget in of(resources, "aws_budgets_budget"):
        if {n["notification_type"] for n in budget["values"].get("notification", [])} != {"ACTUAL", "FORECASTED"}:
            yield f"{budget['address']} does not warn of what is spent and of what will be"


def tagged(resources):
    for resource in resources:
        if "tags_all" in resource["values"] and (resource["values"]["tags_all"] or {}).get("estate") is None:
            yield f"{resource['address']} is not found by the budget: no tag `estate`"


def statements(text):
    return [(as_list(s["Action"]), as_list(s["Resource"]), s) for s in json.loads(text)["Statement"]]


def as_list(value):
    return value if isinstance(value, list) else [value]


def policies(resources):
    """Service and policy of each role whose policy is known."""
    for policy in of(resources, "aws_iam_role_policy"):
        if policy["values"].get("policy"):
            yield policy["values"]["name"].removeprefix("causeway-"), policy["values"]["policy"]


def least_privilege(resources):
    for service, text in policies(resources):
        held = {action for actions, _, _ in statements(text) for action in actions}
        for action in sorted(held - ALLOWED[service]):
            yield f"{service} may {action}"
        # Logins are those of MSK and RDS: an estate without them has none.
        for action in sorted(ALLOWED[service] - LOGIN - held):
            yield f"{service} may not {action}"
        for actions, places, statement in statements(text):
            if "*" in places or any("*" in action for action in actions):
                yield f"{service}: {statement['Sid']} has a wildcard in place of a name"
            if any(a.startswith("kms:") for a in actions) and "kms:ViaService" not in json.dumps(statement.get("Condition", {})):
                yield f"{service}: {statement['Sid']} uses the key beside the services of AWS"


def queue_rights(resources):
    for service, text in policies(resources):
        held = {"incoming": set(), "dead": set()}
        for actions, places, statement in statements(text):
            asked = {action for action in actions if action.startswith("sqs:")}
            for place in places if asked else []:
                queue = place.rpartition("-")[2]
                if queue not in held:
                    yield f"{service}: {statement['Sid']} is about {place}, which is no queue of ours"
                held.setdefault(queue, set()).update(asked)
        for queue in ("incoming", "dead"):
            wanted = QUEUES.get(service, {}).get(queue, set())
            for action in sorted(held[queue] - wanted):
                yield f"{service} may {action} on the queue {queue}"
            for action in sorted(wanted - held[queue]):
                yield f"{service} may not {action} on the queue {queue}"


def deletes_nothing_live(resources):
    """Ingest deletes metadata that a commit has replaced and its probe, never a data file."""
    for service, text in policies(resources):
        for actions, places, _ in statements(text):
            if service == "ingest" and "s3:DeleteObject" in actions:
                patterns = [place.split(":::")[1].partition("/")[2] for place in places]
                reached = [key for key in KEYS if "/data/" in key and any(fnmatch.fnmatch(key, pattern) for pattern in patterns)]
                if reached:
                    yield f"ingest may delete {reached}"


CHECKS = [
    complete,
    private,
    versioned,
    encrypted,
    lifecycle,
    queues,
    durable,
    no_secrets,
    watched,
    tagged,
    least_privilege,
    queue_rights,
    deletes_nothing_live,
]
RULES = [Rule(check.__name__, check) for check in CHECKS]


def values(resources, address):
    return next(r["values"] for r in resources if r["address"].endswith(address))


def remove(suffix):
    def plant(resources):
        resources[:] = [r for r in resources if not r["address"].endswith(suffix)]

    return plant


def remove_all(part):
    def plant(resources):
        resources[:] = [r for r in resources if part not in r["address"]]

    return plant


def rule_of(resources, wanted):
    return next(r for r in values(resources, "aws_s3_bucket_lifecycle_configuration.this")["rule"] if r["id"] == wanted)


def grant(service, action, place):
    def plant(resources):
        policy = values(resources, f'aws_iam_role_policy.service["{service}"]')
        document = json.loads(policy["policy"])
        document["Statement"].append({"Sid": "Planted", "Effect": "Allow", "Action": action, "Resource": place})
        policy["policy"] = json.dumps(document)

    return plant


def revoke(service, sid):
    def plant(resources):
        policy = values(resources, f'aws_iam_role_policy.service["{service}"]')
        document = json.loads(policy["policy"])
        document["Statement"] = [statement for statement in document["Statement"] if statement["Sid"] != sid]
        policy["policy"] = json.dumps(document)

    return plant


def withdraw(service, sid, action):
    """One action of one statement, which other statements may still grant."""

    def plant(resources):
        policy = values(resources, f'aws_iam_role_policy.service["{service}"]')
        document = json.loads(policy["policy"])
        for statement in document["Statement"]:
            if statement["Sid"] == sid:
                statement["Action"] = [held for held in as_list(statement["Action"]) if held != action]
        policy["policy"] = json.dumps(document)

    return plant


MISTAKES = [
    Mistake("complete", "no budget", remove("aws_budgets_budget.this[0]")),
    Mistake("private", "no block of public access", remove("aws_s3_bucket_public_access_block.this")),
    Mistake(
        "private",
        "public policies",
        lambda d: values(d, "aws_s3_bucket_public_access_block.this").update(block_public_policy=False),
    ),
    Mistake(
        "versioned",
        "no versions",
        lambda d: values(d, "aws_s3_bucket_versioning.this")["versioning_configuration"][0].update(status="Suspended"),
    ),
    Mistake("encrypted", "no encryption", remove("aws_s3_bucket_server_side_encryption_configuration.this")),
    Mistake("encrypted", "a key for ever", lambda d: values(d, "aws_kms_key.this").update(enable_key_rotation=False)),
    Mistake(
        "encrypted",
        "plain text to Kafka",
        lambda d: values(d, "aws_msk_cluster.this")["encryption_info"][0]["encryption_in_transit"][0].update(
            client_broker="TLS_PLAINTEXT"
        ),
    ),
    Mistake(
        "lifecycle", "tiers without a tag", lambda d: rule_of(d, "tier-silver-events")["filter"][0]["and"][0].update(tags={})
    ),
    Mistake(
        "lifecycle",
        "tiers of metadata",
        lambda d: rule_of(d, "tier-silver-events")["filter"][0]["and"][0].update(prefix="warehouse/silver/"),
    ),
    Mistake(
        "lifecycle",
        "tiers of stacks",
        lambda d: rule_of(d, "tier-silver-system")["filter"][0]["and"][0].update(prefix="warehouse/silver/stacks/data/"),
    ),
    Mistake("lifecycle", "another tier", lambda d: rule_of(d, "tier-incoming")["transition"][0].update(storage_class="GLACIER")),
    Mistake("lifecycle", "objects that expire", lambda d: rule_of(d, "expire-noncurrent")["expiration"].append({"days": 30})),
    Mistake(
        "lifecycle",
        "parts that stay",
        lambda d: rule_of(d, "abort-incomplete-uploads")["abort_incomplete_multipart_upload"].clear(),
    ),
    Mistake("queues", "no dead letters", remove("aws_sqs_queue.dead")),
    Mistake(
        "queues",
        "five receptions",
        lambda d: values(d, "aws_sqs_queue.incoming").update(redrive_policy='{"maxReceiveCount": 5}'),
    ),
    Mistake("queues", "no redrive", lambda d: values(d, "aws_sqs_queue.incoming").update(redrive_policy="")),
    Mistake(
        "queues",
        "announcements of everything",
        lambda d: values(d, "aws_s3_bucket_notification.incoming")["queue"][0].update(filter_prefix=""),
    ),
    Mistake("durable", "a public database", lambda d: values(d, "aws_db_instance.this").update(publicly_accessible=True)),
    Mistake(
        "durable",
        "one replica is enough",
        lambda d: values(d, "aws_msk_configuration.this").update(server_properties="min.insync.replicas=1"),
    ),
    Mistake(
        "durable",
        "no login",
        lambda d: values(d, "aws_msk_cluster.this")["client_authentication"][0].update(unauthenticated=True),
    ),
    Mistake("no_secrets", "a password in the state", lambda d: values(d, "aws_db_instance.this").update(password="x")),
    Mistake(
        "no_secrets",
        "a login in the state",
        lambda d: values(d, 'aws_secretsmanager_secret_version.user["agent"]').update(secret_string="x"),
    ),
    Mistake(
        "watched", "an alarm without a reason", lambda d: values(d, 'alarm.this["incoming-dead"]').update(alarm_description="")
    ),
    Mistake("watched", "nothing watches the brokers", remove_all("kafka-disk-")),
    Mistake("tagged", "cost that no budget sees", lambda d: values(d, "aws_s3_bucket.this").update(tags_all={})),
    Mistake("least_privilege", "query writes", grant("query", "s3:PutObject", "arn:aws:s3:::lake/warehouse/*")),
    Mistake("least_privilege", "ingest cannot delete what it replaced", revoke("ingest", "DeleteOldMetadata")),
    Mistake("least_privilege", "everything", grant("compactor", "s3:*", "*")),
    Mistake("least_privilege", "the key in another way", grant("query", "kms:Decrypt", "arn:aws:kms:us-east-1:1:key/k")),
    Mistake(
        "queue_rights", "a dead-letter queue that ingest cannot open", withdraw("ingest", "SendDeadLetters", "sqs:GetQueueAttributes")
    ),
    Mistake("queue_rights", "ingest announces", grant("ingest", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:causeway-incoming")),
    Mistake("queue_rights", "a third queue", grant("ingest", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:other")),
    Mistake("deletes_nothing_live", "ingest deletes data", grant("ingest", "s3:DeleteObject", "arn:aws:s3:::lake/warehouse/*")),
]

if __name__ == "__main__":
    main("terraform", RULES, MISTAKES, load)
