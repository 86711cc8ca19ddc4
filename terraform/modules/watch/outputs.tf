output "topic_arn" {
  description = "ARN of the topic that gets every alarm."
  value       = aws_sns_topic.this.arn
}

output "alarms" {
  description = "Names of the alarms."
  value       = sort([for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name])
}
