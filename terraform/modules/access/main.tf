# One role per service, with what its code calls and nothing else. README.md explains every statement.
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }
}

data "aws_region" "this" {}

locals {
  objects  = "${var.bucket_arn}/${var.prefix}"
  incoming = "${var.bucket_arn}/${var.incoming_prefix}"
  dead     = "${var.bucket_arn}/${var.dead_letter_prefix}"
  services = toset(["agent", "ingest", "compactor", "query"])
  # With an OIDC provider a role belongs to a Kubernetes service account, else to EC2 instances.
  issuer = var.oidc_provider_arn == null ? "" : split("oidc-provider/", var.oidc_provider_arn)[1]
  policies = {
    agent     = data.aws_iam_policy_document.agent.json
    ingest    = data.aws_iam_policy_document.ingest.json
    compactor = data.aws_iam_policy_document.compactor.json
    query     = data.aws_iam_policy_document.query.json
  }
  # A policy without statements is refused: an agent whose login does not come from Secrets Manager gets none.
  with_policy = toset([for service in local.services : service if service != "agent" || length(lookup(var.logins, "agent", [])) > 0])
}

data "aws_iam_policy_document" "trust" {
  for_each = local.services
  dynamic "statement" {
    for_each = var.oidc_provider_arn == null ? [] : [each.key]
    content {
      sid     = "ServiceAccount"
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = [var.oidc_provider_arn]
      }
      # Both: without the subject any pod of the cluster could take the role.
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:sub"
        values   = ["system:serviceaccount:${each.key == "agent" ? var.agent_namespace : var.namespace}:causeway-${each.key}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
  dynamic "statement" {
    for_each = var.oidc_provider_arn == null ? [each.key] : []
    content {
      sid     = "Instances"
      actions = ["sts:AssumeRole"]
      principals {
        type        = "Service"
        identifiers = ["ec2.amazonaws.com"]
      }
    }
  }
}

resource "aws_iam_role" "service" {
  for_each             = local.services
  name                 = "${var.name}-${each.key}"
  description          = "Causeway ${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "service" {
  for_each = local.with_policy
  name     = "causeway-${each.key}"
  role     = aws_iam_role.service[each.key].id
  policy   = local.policies[each.key]
}

resource "aws_iam_instance_profile" "service" {
  for_each = var.oidc_provider_arn == null ? local.services : toset([])
  name     = "${var.name}-${each.key}"
  role     = aws_iam_role.service[each.key].name
}

# The agent speaks to Kafka alone, by SCRAM: rights on topics are Kafka's. It may read the login of its user.
data "aws_iam_policy_document" "agent" {
  source_policy_documents = [data.aws_iam_policy_document.logins["agent"].json]
}

data "aws_iam_policy_document" "ingest" {
  source_policy_documents = [
    data.aws_iam_policy_document.logins["ingest"].json,
    data.aws_iam_policy_document.list.json,
    data.aws_iam_policy_document.objects_key.json,
  ]

  # Data files, manifests and metadata are written under new names. The tag of complete data is set after the commit that names them.
  # Checkpoints and metadata are read when partitions are assigned. Uploads in parts are ended or aborted.
  statement {
    sid       = "WriteAndReadTables"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${local.objects}/*"]
  }

  # After a commit, metadata files that have left the log of previous versions go; and the object by which ingest finds out
  # at its start that it may write. Data files are deleted by the compactor alone.
  statement {
    sid       = "DeleteOldMetadata"
    actions   = ["s3:DeleteObject"]
    resources = ["${local.objects}/*/metadata/*", "${local.objects}/*.probe"]
  }

  # A dropped file is read in the version that was announced, and tagged once it has landed.
  statement {
    sid       = "ReadAndTagDroppedFiles"
    actions   = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging", "s3:GetObjectVersionTagging", "s3:PutObjectTagging", "s3:PutObjectVersionTagging"]
    resources = ["${local.incoming}/*"]
  }

  # A copy of what cannot be landed, for an operator. No reading: nothing is taken from there again.
  statement {
    sid       = "WriteDeadLetters"
    actions   = ["s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${local.dead}/*"]
  }

  # Announcements are received, kept invisible while a file lands, and deleted last. Ingest sends none.
  statement {
    sid       = "TakeAnnouncements"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
    resources = [var.queue_arn]
  }

  # The announcement of what cannot be landed, with the reason. Ingest asks at its start whether the queue is there.
  statement {
    sid       = "SendDeadLetters"
    actions   = ["sqs:SendMessage", "sqs:GetQueueAttributes"]
    resources = [var.dead_queue_arn]
  }

  # SQS decrypts what it hands out, and encrypts what it takes.
  statement {
    sid       = "UseKeyThroughSqs"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.key_arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["sqs.${data.aws_region.this.name}.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "compactor" {
  source_policy_documents = [
    data.aws_iam_policy_document.logins["compactor"].json,
    data.aws_iam_policy_document.list.json,
    data.aws_iam_policy_document.objects_key.json,
  ]

  # Files are merged into new ones. Metadata that a commit replaced is deleted, and in this role what `causeway tables TABLE
  # --orphans --remove` finds. Tags are for the colder tiers: it sets them once a commit names a merged file.
  # It has no queue, and nothing outside the warehouse.
  statement {
    sid = "RewriteTables"
    actions = [
      "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectTagging", "s3:PutObjectTagging",
      "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
    ]
    resources = ["${local.objects}/*"]
  }
}

data "aws_iam_policy_document" "query" {
  source_policy_documents = [
    data.aws_iam_policy_document.logins["query"].json,
    data.aws_iam_policy_document.list.json,
  ]

  # Nothing that writes, tags or restores: a question can change nothing and cost no restore.
  statement {
    sid       = "ReadTables"
    actions   = ["s3:GetObject"]
    resources = ["${local.objects}/*"]
  }

  statement {
    sid       = "DecryptObjects"
    actions   = ["kms:Decrypt"]
    resources = [var.key_arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${data.aws_region.this.name}.amazonaws.com"]
    }
  }
}

# Without it S3 answers 403 in place of 404 for an object that is not there, and a deleted object would look like a refused one
# (Amazon S3 API reference, GetObject, "Permissions"). A condition on the prefix would bring that back. The bucket holds
# nothing but the data of this estate.
data "aws_iam_policy_document" "list" {
  statement {
    sid       = "ListBucket"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]
  }
}

# Through S3 only: the key decrypts nothing that a service got in another way.
data "aws_iam_policy_document" "objects_key" {
  statement {
    sid       = "EncryptAndDecryptObjects"
    actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
    resources = [var.key_arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${data.aws_region.this.name}.amazonaws.com"]
    }
  }
}

# What starts a service reads its logins and hands them to it as variables of its environment.
data "aws_iam_policy_document" "logins" {
  for_each = local.services
  dynamic "statement" {
    for_each = length(lookup(var.logins, each.key, [])) == 0 ? [] : [var.logins[each.key]]
    content {
      sid       = "ReadOwnLogins"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = statement.value
    }
  }
  dynamic "statement" {
    for_each = length(lookup(var.logins, each.key, [])) == 0 ? [] : [var.key_arn]
    content {
      sid       = "DecryptOwnLogins"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${data.aws_region.this.name}.amazonaws.com"]
      }
    }
  }
}

# A person's role: brings objects back from Deep Archive, and older versions of deleted ones. It deletes nothing.
resource "aws_iam_role" "operator" {
  count                = length(var.operator_arns) == 0 ? 0 : 1
  name                 = "${var.name}-operator"
  description          = "Causeway: restores archived and deleted objects"
  assume_role_policy   = data.aws_iam_policy_document.operator_trust[0].json
  max_session_duration = 3600
}

data "aws_iam_policy_document" "operator_trust" {
  count = length(var.operator_arns) == 0 ? 0 : 1
  statement {
    sid     = "NamedOperatorsWithMfa"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.operator_arns
    }
    condition {
      test     = "Bool"
      variable = "aws:MultiFactorAuthPresent"
      values   = ["true"]
    }
  }
}

data "aws_iam_policy_document" "operator" {
  statement {
    sid       = "FindVersions"
    actions   = ["s3:ListBucket", "s3:ListBucketVersions"]
    resources = [var.bucket_arn]
  }
  statement {
    sid       = "RestoreObjects"
    actions   = ["s3:RestoreObject", "s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging"]
    resources = ["${local.objects}/*", "${local.incoming}/*"]
  }
  # A dropped file without its tags is landed anew, or attempted once more (docs/OPERATIONS.md, "Bulk path").
  statement {
    sid       = "RepairTagsOfDroppedFiles"
    actions   = ["s3:GetObjectTagging", "s3:PutObjectTagging", "s3:DeleteObjectTagging"]
    resources = ["${local.incoming}/*"]
  }
  # An older version is brought back by copying it over the newest.
  statement {
    sid       = "BringBackVersions"
    actions   = ["s3:PutObject", "s3:PutObjectTagging"]
    resources = ["${local.objects}/*"]
  }
  statement {
    sid       = "RedriveDeadAnnouncements"
    actions   = ["sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks", "sqs:CancelMessageMoveTask", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [var.dead_queue_arn]
  }
  # A redrive sends to the queue that ingest reads, in the name of the operator.
  statement {
    sid       = "SendRedriven"
    actions   = ["sqs:SendMessage"]
    resources = [var.queue_arn]
  }
  statement {
    sid       = "UseKeyThroughS3AndSqs"
    actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
    resources = [var.key_arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${data.aws_region.this.name}.amazonaws.com", "sqs.${data.aws_region.this.name}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "operator" {
  count  = length(var.operator_arns) == 0 ? 0 : 1
  name   = "causeway-operator"
  role   = aws_iam_role.operator[0].id
  policy = data.aws_iam_policy_document.operator.json
}
