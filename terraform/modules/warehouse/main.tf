# The bucket of the warehouse: private, versioned, encrypted, and with the rules that move complete data to colder tiers.
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }
}

locals {
  # Where the programs put data files: `WAREHOUSE/NAMESPACE/TABLE/data/…`. Metadata, manifests and statistics are in
  # `…/metadata/`, which no prefix below reaches: a table whose metadata is in Deep Archive cannot be opened.
  tiered_prefixes = merge(
    { for table in var.tiered_tables : replace(table, "/", "-") => "${var.prefix}/${table}/data/" },
    { incoming = "${var.incoming_prefix}/" },
  )
}

resource "aws_s3_bucket" "this" {
  bucket = var.bucket
}

# All four: neither an access control list nor a policy can make an object public.
resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Access control lists are off: the account of the bucket owns every object, also those that other accounts write.
resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# A deleted or overwritten object stays for `noncurrent_days`: the way back from a wrong deletion.
resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id
  versioning_configuration {
    status = "Enabled"
  }
}

# With a bucket key S3 asks KMS once for many objects: without it, each of the many small files costs a request to KMS.
resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.key_arn
    }
  }
}

data "aws_iam_policy_document" "bucket" {
  statement {
    sid       = "DenyPlainHttp"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
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

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = data.aws_iam_policy_document.bucket.json
  # A policy that is put while the block is being put fails with a conflict.
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id
  # The tiers of Glacier charge 128 KiB for a smaller object: such objects stay in Standard.
  transition_default_minimum_object_size = "all_storage_classes_128K"
  # Rules for noncurrent versions have no effect before versioning is on.
  depends_on = [aws_s3_bucket_versioning.this]

  # One rule per prefix, since a filter holds one. The tag decides within it, and an object without it stays in Standard for as long
  # as it exists. Ingest and the compactor set it once a commit names the file.
  dynamic "rule" {
    for_each = local.tiered_prefixes
    content {
      id     = "tier-${rule.key}"
      status = "Enabled"
      filter {
        and {
          prefix = rule.value
          tags   = { processing_status = "complete" }
        }
      }
      transition {
        days          = var.instant_retrieval_days
        storage_class = "GLACIER_IR"
      }
      transition {
        days          = var.deep_archive_days
        storage_class = "DEEP_ARCHIVE"
      }
    }
  }

  # What the compactor and commits delete becomes noncurrent; the marker that is left goes with the last version.
  rule {
    id     = "expire-noncurrent"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }
    expiration {
      expired_object_delete_marker = true
    }
  }

  # A process that is killed during an upload leaves parts that are billed and that no listing shows.
  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}
