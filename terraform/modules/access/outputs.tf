output "role_arns" {
  description = "ARN of the role by service: annotate the service accounts with it."
  value       = { for service, role in aws_iam_role.service : service => role.arn }
}

output "instance_profiles" {
  description = "Name of the instance profile by service; empty on Kubernetes."
  value       = { for service, profile in aws_iam_instance_profile.service : service => profile.name }
}

output "operator_role_arn" {
  description = "ARN of the operator's role; null without operators."
  value       = one(aws_iam_role.operator[*].arn)
}
