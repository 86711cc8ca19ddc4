# ---- What there must be before

variable "region" {
  description = "Region of everything, and value of `store.region`."
  type        = string
}

variable "vpc_id" {
  description = "VPC of brokers and database."
  type        = string
}

variable "subnet_ids" {
  description = "Three private subnets of that VPC, each in an availability zone of its own."
  type        = list(string)
}

variable "client_security_group_ids" {
  description = "Security groups of the nodes that run agents, ingest, compactor and query."
  type        = list(string)
}

variable "bucket" {
  description = "Name of the bucket; unique over all of AWS."
  type        = string
}

variable "monthly_budget_usd" {
  description = "Budget of a month in US dollars: alarms at 80 % spent and at 100 % forecast. Null where the account has a budget already."
  type        = number
}

# ---- Names

variable "name" {
  description = "Name of the estate: begins every name, and is the tag `estate` of every resource."
  type        = string
  default     = "causeway"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name must have 1 to 31 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "prefix" {
  description = "Key prefix of the warehouse, without slashes at its ends."
  type        = string
  default     = "warehouse"
}

variable "incoming_prefix" {
  description = "Key prefix of files that are dropped for the bulk path, without slashes at its ends."
  type        = string
  default     = "incoming"
}

variable "dead_letter_prefix" {
  description = "Key prefix of dropped files that cannot be landed, without slashes at its ends."
  type        = string
  default     = "dead-letter"
}

# ---- Tiers

variable "tiered_tables" {
  description = "Tables, as `namespace/table`, whose complete data files move to colder tiers: those that ingest tags."
  type        = set(string)
  default     = ["bronze/messages", "silver/events", "silver/system", "silver/aggregates"]
}

variable "instant_retrieval_days" {
  description = "Age in days at which a complete object moves to Glacier Instant Retrieval."
  type        = number
  default     = 1
}

variable "deep_archive_days" {
  description = "Age in days at which a complete object moves to Deep Archive."
  type        = number
  default     = 365
}

variable "noncurrent_days" {
  description = "Days for which a deleted or overwritten object can be brought back; at least `catalog_backup_days` are taken."
  type        = number
  default     = 35
}

# ---- Kafka

variable "kafka_brokers" {
  description = "Bootstrap addresses of a Kafka of your own; null for MSK."
  type        = string
  default     = null
}

variable "msk_version" {
  description = "Version of Kafka as MSK names it."
  type        = string
  default     = "3.8.x"
}

variable "msk_brokers" {
  description = "Number of brokers, a multiple of three."
  type        = number
  default     = 3
}

variable "msk_instance_type" {
  description = "Instance type of a broker."
  type        = string
  default     = "kafka.m7g.large"
}

variable "msk_volume_gib" {
  description = "Volume of a broker in GiB. A topic that ingest makes retains seven days, with three replicas."
  type        = number
  default     = 1000
}

variable "password_version" {
  description = "A higher number gives every Kafka user a new password."
  type        = number
  default     = 1
}

# ---- Catalog

variable "own_catalog" {
  description = "True for a PostgreSQL of your own; false for RDS."
  type        = bool
  default     = false
}

variable "postgres_version" {
  description = "Version of PostgreSQL."
  type        = string
  default     = "16"
}

variable "catalog_instance_class" {
  description = "Class of the database: 17 connections for each process of ingest, compactor and query."
  type        = string
  default     = "db.t4g.medium"
}

variable "catalog_backup_days" {
  description = "Days for which the catalog can be brought back to any point in time; 1 to 35."
  type        = number
  default     = 14
}

# ---- Who may what

variable "oidc_provider_arn" {
  description = "OIDC provider of the EKS cluster; null where the services run on EC2 instances with systemd."
  type        = string
  default     = null
}

variable "namespace" {
  description = "Kubernetes namespace of the service accounts of ingest, compactor and query."
  type        = string
  default     = "causeway"
}

variable "agent_namespace" {
  description = "Kubernetes namespace of the service account of the agents."
  type        = string
  default     = "causeway-agents"
}

variable "operator_arns" {
  description = "Users and roles that may restore archived and deleted objects; empty for no such role."
  type        = list(string)
  default     = []
}

variable "alarm_emails" {
  description = "Addresses that get alarms; each must confirm."
  type        = list(string)
  default     = []
}
