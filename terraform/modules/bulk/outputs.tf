output "queue_url" {
  description = "Value of `bulk.queue`: the queue that ingest reads."
  value       = aws_sqs_queue.incoming.id
}

output "queue_arn" {
  description = "ARN of the queue that ingest reads."
  value       = aws_sqs_queue.incoming.arn
}

output "queue_name" {
  description = "Name of the queue that ingest reads."
  value       = aws_sqs_queue.incoming.name
}

output "dead_queue_name" {
  description = "Name of the queue of announcements that could not be landed."
  value       = aws_sqs_queue.dead.name
}

output "dead_queue_arn" {
  description = "ARN of that queue."
  value       = aws_sqs_queue.dead.arn
}

output "dead_queue_url" {
  description = "Value of `bulk.dead_letter_queue`."
  value       = aws_sqs_queue.dead.id
}
