# The bulk path: an object below `incoming/` becomes a message of a queue; what cannot be landed goes to a second one.
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  # Written out, because the policy that names it is made with the queue. S3 refuses a notification to a queue without it.
  queue_arn = "arn:${data.aws_partition.this.partition}:sqs:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:${var.name}-incoming"
}

resource "aws_sqs_queue" "dead" {
  name                      = "${var.name}-incoming-dead"
  message_retention_seconds = 14 * 24 * 3600
  kms_master_key_id         = var.key_arn
}

resource "aws_sqs_queue" "incoming" {
  name = "${var.name}-incoming"
  # Ingest extends it while it lands a file: a second process begins the same file only when the first was killed.
  visibility_timeout_seconds = 120
  receive_wait_time_seconds  = 20
  # A fleet that is repaired within this time misses no announcement.
  message_retention_seconds = 14 * 24 * 3600
  kms_master_key_id         = var.key_arn
  policy                    = data.aws_iam_policy_document.incoming.json
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    # As many as SQS takes: eight hours at least, since ingest tries again every 30 s. What cannot be landed ingest reports by itself.
    # A reception counts also where nothing is wrong with the file: while Kafka or the catalog is away, or a tag is refused. With a
    # low number an outage of minutes would take sound announcements out of the queue. What is left over are messages that are no
    # event of the bucket.
    maxReceiveCount = 1000
  })
}

data "aws_iam_policy_document" "incoming" {
  # Only S3 sends, only for this bucket, and only in the name of this account.
  statement {
    sid       = "BucketAnnouncesObjects"
    actions   = ["sqs:SendMessage"]
    resources = [local.queue_arn]
    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [var.bucket_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }

  statement {
    sid       = "DenyPlainHttp"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [local.queue_arn]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_notification" "incoming" {
  bucket = var.bucket
  queue {
    id            = "incoming"
    queue_arn     = aws_sqs_queue.incoming.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = "${var.incoming_prefix}/"
  }
}
