variable "name" {
  description = "Name of the estate and of the cluster."
  type        = string
}

variable "vpc_id" {
  description = "VPC of the brokers."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of the brokers, one per availability zone: three."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) == 3
    error_message = "subnet_ids must name three subnets: a topic has three replicas, one per availability zone."
  }
}

variable "client_security_group_ids" {
  description = "Security groups of what may connect: nodes with agents, and ingest."
  type        = list(string)
}

variable "kafka_version" {
  description = "Version of Kafka as MSK names it."
  type        = string
}

variable "brokers" {
  description = "Number of brokers, a multiple of three."
  type        = number
  validation {
    condition     = var.brokers >= 3 && var.brokers % 3 == 0
    error_message = "brokers must be a multiple of three, one per availability zone."
  }
}

variable "instance_type" {
  description = "Instance type of a broker."
  type        = string
}

variable "volume_gib" {
  description = "Volume of a broker in GiB: what the topics retain, three times, divided by the brokers."
  type        = number
}

variable "users" {
  description = "SCRAM users; each has a login in Secrets Manager."
  type        = set(string)
}

variable "password_version" {
  description = "A higher number gives every user a new password."
  type        = number
}

variable "key_arn" {
  description = "KMS key of volumes, logins and logs."
  type        = string
}
