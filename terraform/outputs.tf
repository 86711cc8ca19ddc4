output "warehouse" {
  description = "Value of `store.warehouse`."
  value       = module.warehouse.warehouse
}

output "kafka_brokers" {
  description = "Value of `kafka.brokers`."
  value       = var.kafka_brokers == null ? module.kafka[0].brokers : var.kafka_brokers
}

output "kafka_operator_brokers" {
  description = "Bootstrap addresses for an operator with an IAM login; null with a Kafka of your own."
  value       = one(module.kafka[*].operator_brokers)
}

output "kafka_login_arns" {
  description = "Logins of the Kafka users in Secrets Manager, by user; empty with a Kafka of your own."
  value       = var.kafka_brokers == null ? module.kafka[0].login_arns : {}
}

output "catalog_address" {
  description = "Host of the catalog: `catalog.uri` is `postgres://causeway:PASSWORD@ADDRESS/causeway`, with the password percent-encoded; null for a catalog of your own."
  value       = one(module.catalog[*].address)
}

output "catalog_login_arn" {
  description = "Login of the catalog in Secrets Manager, which RDS changes every seven days; null for a catalog of your own."
  value       = one(module.catalog[*].login_arn)
}

output "queue_url" {
  description = "Value of `bulk.queue`: announces dropped files."
  value       = module.bulk.queue_url
}

output "dead_queue_url" {
  description = "Value of `bulk.dead_letter_queue`: what could not be landed."
  value       = module.bulk.dead_queue_url
}

output "role_arns" {
  description = "IAM role by service."
  value       = module.access.role_arns
}

output "instance_profiles" {
  description = "Instance profile by service; empty on Kubernetes."
  value       = module.access.instance_profiles
}

output "operator_role_arn" {
  description = "Role that restores objects; null without operators."
  value       = module.access.operator_role_arn
}

output "alarm_topic_arn" {
  description = "Topic that gets every alarm."
  value       = module.watch.topic_arn
}
