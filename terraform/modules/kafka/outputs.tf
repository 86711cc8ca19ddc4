output "brokers" {
  description = "Value of `kafka.brokers`: SCRAM over TLS."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_scram
}

output "operator_brokers" {
  description = "Bootstrap addresses for an operator who logs in with IAM and sets the rights of the users."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_iam
}

output "cluster_arn" {
  description = "ARN of the cluster."
  value       = aws_msk_cluster.this.arn
}

output "cluster_name" {
  description = "Name of the cluster, by which its metrics are found."
  value       = aws_msk_cluster.this.cluster_name
}

output "login_arns" {
  description = "ARN of the login in Secrets Manager by user."
  value       = { for user in var.users : user => aws_secretsmanager_secret.user[user].arn }
}
