# The Iceberg catalog: PostgreSQL on RDS, in two availability zones, whose password is managed by RDS.
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
  name        = "${var.name}-catalog"
  description = "Catalog of Causeway ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each                     = toset(var.client_security_group_ids)
  security_group_id            = aws_security_group.this.id
  description                  = "Ingest, compactor and query"
  referenced_security_group_id = each.key
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_subnet_group" "this" {
  name       = "${var.name}-catalog"
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name   = "${var.name}-catalog"
  family = "postgres${split(".", var.postgres_version)[0]}"
  # Connections without TLS are refused.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
}

resource "aws_db_instance" "this" {
  identifier     = "${var.name}-catalog"
  engine         = "postgres"
  engine_version = var.postgres_version
  instance_class = var.instance_class
  db_name        = "causeway"
  username       = "causeway"
  # RDS makes the password and changes it every seven days: neither plan nor state has it. The programs read a copy when they start, so
  # that the copy must follow, or the rotation must be switched off (`aws secretsmanager cancel-rotate-secret`): infra/README.md,
  # "The password of the catalog".
  manage_master_user_password   = true
  master_user_secret_kms_key_id = var.key_arn

  storage_type          = "gp3"
  allocated_storage     = 20
  max_allocated_storage = 200
  storage_encrypted     = true
  kms_key_id            = var.key_arn

  multi_az               = true
  publicly_accessible    = false
  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this.id]
  parameter_group_name   = aws_db_parameter_group.this.name

  # Pointers of tables that are restored from an old backup name metadata files that commits have deleted since: see
  # docs/OPERATIONS.md, "Known limits". Versioning of the bucket keeps those files for as long as these backups.
  backup_retention_period         = var.backup_days
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  skip_final_snapshot             = false
  final_snapshot_identifier       = "${var.name}-catalog-final"
  auto_minor_version_upgrade      = true
  performance_insights_enabled    = true
  performance_insights_kms_key_id = var.key_arn
  enabled_cloudwatch_logs_exports = ["postgresql"]
}
