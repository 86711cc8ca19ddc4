# Kafka from MSK: three brokers or more, TLS, and SCRAM logins whose passwords are in Secrets Manager only.
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }
}

resource "aws_security_group" "this" {
  name        = "${var.name}-kafka"
  description = "Brokers of Causeway ${var.name}"
  vpc_id      = var.vpc_id
}

# 9096 is SCRAM over TLS, 9098 IAM over TLS, by which an operator sets the rights of the SCRAM users.
resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each                     = { for rule in setproduct(var.client_security_group_ids, [9096, 9098]) : "${rule[0]}-${rule[1]}" => rule }
  security_group_id            = aws_security_group.this.id
  description                  = "Clients on port ${each.value[1]}"
  referenced_security_group_id = each.value[0]
  ip_protocol                  = "tcp"
  from_port                    = each.value[1]
  to_port                      = each.value[1]
}

resource "aws_msk_configuration" "this" {
  name           = var.name
  description    = "Causeway: no topic by accident, nothing acknowledged by one replica alone, messages up to 8 MiB"
  kafka_versions = [var.kafka_version]
  # The largest message of an agent has 8 MiB: docs/OPERATIONS.md, "Topics".
  server_properties = <<-PROPERTIES
    auto.create.topics.enable=false
    default.replication.factor=3
    min.insync.replicas=2
    unclean.leader.election.enable=false
    message.max.bytes=8388608
    replica.fetch.max.bytes=8388608
  PROPERTIES
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/${var.name}/kafka"
  retention_in_days = 30
  kms_key_id        = var.key_arn
}

resource "aws_msk_cluster" "this" {
  cluster_name           = var.name
  kafka_version          = var.kafka_version
  number_of_broker_nodes = var.brokers
  enhanced_monitoring    = "PER_BROKER"

  broker_node_group_info {
    instance_type   = var.instance_type
    client_subnets  = var.subnet_ids
    security_groups = [aws_security_group.this.id]
    storage_info {
      ebs_storage_info {
        volume_size = var.volume_gib
      }
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.this.arn
    revision = aws_msk_configuration.this.latest_revision
  }

  client_authentication {
    unauthenticated = false
    sasl {
      scram = true
      iam   = true
    }
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = var.key_arn
    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.this.name
      }
    }
  }
}

# The prefix is a rule of MSK, and so is a key that is not the account's default one.
resource "aws_secretsmanager_secret" "user" {
  for_each    = var.users
  name        = "AmazonMSK_${var.name}-${each.key}"
  description = "Login of Kafka user ${each.key}"
  kms_key_id  = var.key_arn
}

# Made while Terraform runs and written without being kept: neither plan nor state has a password.
ephemeral "aws_secretsmanager_random_password" "user" {
  for_each            = var.users
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret_version" "user" {
  for_each         = var.users
  secret_id        = aws_secretsmanager_secret.user[each.key].id
  secret_string_wo = jsonencode({ username = each.key, password = ephemeral.aws_secretsmanager_random_password.user[each.key].random_password })
  # A new number makes new passwords.
  secret_string_wo_version = var.password_version
}

data "aws_iam_policy_document" "user" {
  for_each = var.users
  statement {
    sid       = "BrokersCheckLogins"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.user[each.key].arn]
    principals {
      type        = "Service"
      identifiers = ["kafka.amazonaws.com"]
    }
  }
}

resource "aws_secretsmanager_secret_policy" "user" {
  for_each   = var.users
  secret_arn = aws_secretsmanager_secret.user[each.key].arn
  policy     = data.aws_iam_policy_document.user[each.key].json
}

resource "aws_msk_scram_secret_association" "this" {
  cluster_arn     = aws_msk_cluster.this.arn
  secret_arn_list = [for user in var.users : aws_secretsmanager_secret.user[user].arn]
  depends_on      = [aws_secretsmanager_secret_version.user, aws_secretsmanager_secret_policy.user]
}
