output "address" {
  description = "Host name of the database: `catalog.uri` is `postgres://causeway:PASSWORD@ADDRESS/causeway`."
  value       = aws_db_instance.this.address
}

output "instance" {
  description = "Identifier of the instance, by which its metrics are found."
  value       = aws_db_instance.this.identifier
}

output "login_arn" {
  description = "ARN of the login in Secrets Manager that RDS manages."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}
