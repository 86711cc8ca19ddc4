variable "name" {
  description = "Name of the estate, and value of the tag `estate` by which its cost is found."
  type        = string
}

variable "queue_name" {
  description = "Name of the queue that ingest reads."
  type        = string
}

variable "dead_queue_name" {
  description = "Name of its dead-letter queue."
  type        = string
}

variable "catalog_instance" {
  description = "Identifier of the catalog's database; null for one outside this estate."
  type        = string
  default     = null
}

variable "kafka_cluster" {
  description = "Name of the MSK cluster; null for a Kafka outside this estate."
  type        = string
  default     = null
}

variable "kafka_brokers" {
  description = "Number of brokers of that cluster."
  type        = number
  default     = 0
}

variable "emails" {
  description = "Addresses that get alarms; each must confirm."
  type        = list(string)
}

variable "monthly_budget_usd" {
  description = "Budget of a month in US dollars: alarms at 80 % spent and at 100 % forecast. Null where the account has a budget already."
  type        = number
}

variable "key_arn" {
  description = "KMS key of the topic; its policy must let CloudWatch and Budgets use it."
  type        = string
}
