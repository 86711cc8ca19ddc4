output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.id
}

output "bucket_arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.this.arn
}

output "warehouse" {
  description = "Value of `store.warehouse`."
  value       = "s3://${aws_s3_bucket.this.id}/${var.prefix}"
}
