output "address" {
  description = "Host name of the database: `catalog.uri` is `postgres://causeway:PASSWORD@ADDRESS/causeway`, with the password percent-encoded."
  value       = aws_db_instance.this.address
}

output "instance" {
  description = "Identifier of the instance, by which its metrics are found."
  value       = aws_db_instance.this.identifier
}

output "login_arn" {
  description = "ARN of the login in Secrets Manager that RDS manages, and changes every seven days unless its rotation is switched off."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}
