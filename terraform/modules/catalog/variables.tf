variable "name" {
  description = "Name of the estate; the instance is `NAME-catalog`."
  type        = string
}

variable "vpc_id" {
  description = "VPC of the database."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of the database, in two availability zones at least."
  type        = list(string)
}

variable "client_security_group_ids" {
  description = "Security groups of what may connect: ingest, compactor and query."
  type        = list(string)
}

variable "postgres_version" {
  description = "Version of PostgreSQL, major or major.minor."
  type        = string
}

variable "instance_class" {
  description = "Class of the instance. Its `max_connections` must be 17 for each process of ingest, compactor and query, and what else uses it."
  type        = string
}

variable "backup_days" {
  description = "Days for which the database can be brought back to any point in time; 1 to 35."
  type        = number
}

variable "key_arn" {
  description = "KMS key of the storage and the password."
  type        = string
}
