# What calls an operator: alarms on queues, catalog and brokers, and a budget. All of it goes to one topic.
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }
}

data "aws_caller_identity" "this" {}

locals {
  queue_alarms = {
    incoming-age = {
      namespace = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", dimensions = { QueueName = var.queue_name }
      statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 900, missing = "notBreaching"
      what      = "A dropped file has waited for 15 minutes: ingest is away, or slower than files arrive"
    }
    incoming-dead = {
      namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = var.dead_queue_name }
      statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 0, missing = "notBreaching"
      what      = "A dropped file could not be landed: read the message, which says why, or ingest's log where it is an announcement as S3 sent it"
    }
  }
  catalog_alarms = var.catalog_instance == null ? {} : {
    catalog-storage = {
      namespace = "AWS/RDS", metric = "FreeStorageSpace", dimensions = { DBInstanceIdentifier = var.catalog_instance }
      statistic = "Minimum", comparison = "LessThanThreshold", threshold = 2147483648, missing = "breaching"
      what      = "The catalog has less than 2 GiB left: every commit stops when it is full"
    }
    catalog-cpu = {
      namespace = "AWS/RDS", metric = "CPUUtilization", dimensions = { DBInstanceIdentifier = var.catalog_instance }
      statistic = "Average", comparison = "GreaterThanThreshold", threshold = 80, missing = "breaching"
      what      = "The catalog's CPU has been over 80 % for 15 minutes: commits become slow"
    }
  }
  kafka_alarms = var.kafka_cluster == null ? {} : {
    kafka-controller = {
      namespace = "AWS/Kafka", metric = "ActiveControllerCount", dimensions = { "Cluster Name" = var.kafka_cluster }
      statistic = "Maximum", comparison = "LessThanThreshold", threshold = 1, missing = "breaching"
      what      = "Kafka has no controller: nothing is acknowledged, agents fill their spools"
    }
    kafka-offline = {
      namespace = "AWS/Kafka", metric = "OfflinePartitionsCount", dimensions = { "Cluster Name" = var.kafka_cluster }
      statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 0, missing = "breaching"
      what      = "Partitions have no leader: their agents fill their spools"
    }
  }
  disk_alarms = var.kafka_cluster == null ? {} : {
    for broker in range(1, var.kafka_brokers + 1) : "kafka-disk-${broker}" => {
      namespace  = "AWS/Kafka", metric = "KafkaDataLogsDiskUsed"
      dimensions = { "Cluster Name" = var.kafka_cluster, "Broker ID" = tostring(broker) }
      statistic  = "Maximum", comparison = "GreaterThanThreshold", threshold = 80, missing = "breaching"
      what       = "The disk of broker ${broker} is 80 % full: a full broker ends"
    }
  }
  alarms = merge(local.queue_alarms, local.catalog_alarms, local.kafka_alarms, local.disk_alarms)
}

resource "aws_sns_topic" "this" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.key_arn
}

data "aws_iam_policy_document" "topic" {
  statement {
    sid       = "AlarmsAndBudgetsPublish"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.this.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.this.account_id]
    }
  }
}

resource "aws_sns_topic_policy" "this" {
  arn    = aws_sns_topic.this.arn
  policy = data.aws_iam_policy_document.topic.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each  = toset(var.emails)
  topic_arn = aws_sns_topic.this.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.what
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  # Three periods of five minutes: a single slow minute raises no alarm.
  period             = 300
  evaluation_periods = 3
  treat_missing_data = each.value.missing
  alarm_actions      = [aws_sns_topic.this.arn]
  ok_actions         = [aws_sns_topic.this.arn]
}

# Of all that bears the estate's tag: `estate` must be activated as a cost allocation tag of the account.
resource "aws_budgets_budget" "this" {
  count        = var.monthly_budget_usd == null ? 0 : 1
  name         = "${var.name}-monthly"
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"
  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:estate$%s", var.name)]
  }
  notification {
    comparison_operator       = "GREATER_THAN"
    threshold                 = 80
    threshold_type            = "PERCENTAGE"
    notification_type         = "ACTUAL"
    subscriber_sns_topic_arns = [aws_sns_topic.this.arn]
  }
  notification {
    comparison_operator       = "GREATER_THAN"
    threshold                 = 100
    threshold_type            = "PERCENTAGE"
    notification_type         = "FORECASTED"
    subscriber_sns_topic_arns = [aws_sns_topic.this.arn]
  }
  depends_on = [aws_sns_topic_policy.this]
}
