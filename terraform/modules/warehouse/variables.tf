variable "bucket" {
  description = "Name of the bucket; unique over all of AWS."
  type        = string
}

variable "prefix" {
  description = "Key prefix of the warehouse, without slashes at its ends: `store.warehouse` is `s3://BUCKET/PREFIX`."
  type        = string
  validation {
    condition     = can(regex("^[^/]+(/[^/]+)*$", var.prefix))
    error_message = "prefix must be one or more names joined by slashes, without a slash at its ends."
  }
}

variable "incoming_prefix" {
  description = "Key prefix of files that are dropped for the bulk path, without slashes at its ends; outside `prefix`."
  type        = string
  validation {
    condition     = can(regex("^[^/]+(/[^/]+)*$", var.incoming_prefix)) && !startswith("${var.incoming_prefix}/", "${var.prefix}/") && !startswith("${var.prefix}/", "${var.incoming_prefix}/")
    error_message = "incoming_prefix must be names joined by slashes, and neither of it and prefix may be below the other."
  }
}

variable "tiered_tables" {
  description = "Tables, as `namespace/table`, whose data files may move to colder tiers once they are tagged `processing_status=complete`."
  type        = set(string)
  validation {
    # Gold and ops are read by every question; the ledger also by every start of ingest.
    condition     = alltrue([for table in var.tiered_tables : can(regex("^(bronze|silver)/[a-z_]+$", table))])
    error_message = "tiered_tables must be tables of bronze or silver, as `namespace/table`."
  }
}

variable "instant_retrieval_days" {
  description = "Age in days at which a complete object moves from Standard to Glacier Instant Retrieval."
  type        = number
}

variable "deep_archive_days" {
  description = "Age in days at which a complete object moves to Deep Archive, where it must be restored before it can be read."
  type        = number
  validation {
    condition     = var.deep_archive_days >= var.instant_retrieval_days + 90
    error_message = "deep_archive_days must be at least 90 days after instant_retrieval_days: Instant Retrieval bills 90 days of every object."
  }
}

variable "noncurrent_days" {
  description = "Days for which a deleted or overwritten object can be brought back."
  type        = number
}

variable "key_arn" {
  description = "KMS key that encrypts the objects."
  type        = string
}
