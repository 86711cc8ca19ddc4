variable "name" {
  description = "Name of the estate; the roles are `NAME-agent`, `NAME-ingest`, `NAME-compactor`, `NAME-query` and `NAME-operator`."
  type        = string
}

variable "bucket_arn" {
  description = "Bucket of the warehouse."
  type        = string
}

variable "prefix" {
  description = "Key prefix of the warehouse, without slashes at its ends."
  type        = string
}

variable "incoming_prefix" {
  description = "Key prefix of dropped files, without slashes at its ends."
  type        = string
}

variable "dead_letter_prefix" {
  description = "Key prefix of dropped files that cannot be landed, without slashes at its ends."
  type        = string
}

variable "queue_arn" {
  description = "Queue of announcements that ingest reads."
  type        = string
}

variable "dead_queue_arn" {
  description = "Its dead-letter queue, which an operator may redrive."
  type        = string
}

variable "key_arn" {
  description = "KMS key of objects, announcements and logins."
  type        = string
}

variable "logins" {
  description = "ARNs of the logins in Secrets Manager that each service may read, by `agent`, `ingest`, `compactor` and `query`."
  type        = map(list(string))
}

variable "oidc_provider_arn" {
  description = "OIDC provider of the EKS cluster, whose service accounts `causeway-SERVICE` get the roles; null for EC2 instances."
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the service accounts of ingest, compactor and query."
  type        = string
}

variable "agent_namespace" {
  description = "Kubernetes namespace of the service account of the agents."
  type        = string
}

variable "operator_arns" {
  description = "Users and roles that may take the operator's role, with a second factor; empty for no such role."
  type        = list(string)
}
