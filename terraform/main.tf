# Everything that Causeway needs of AWS, in a VPC that exists: `variables.tf` says what is asked, `outputs.tf` what comes out.
provider "aws" {
  region = var.region
  default_tags {
    # The budget finds the cost of the estate by this tag.
    tags = { estate = var.name }
  }
}

module "keys" {
  source = "./modules/keys"
  name   = var.name
}

module "warehouse" {
  source                 = "./modules/warehouse"
  bucket                 = var.bucket
  prefix                 = var.prefix
  incoming_prefix        = var.incoming_prefix
  tiered_tables          = var.tiered_tables
  instant_retrieval_days = var.instant_retrieval_days
  deep_archive_days      = var.deep_archive_days
  # At least as long as the catalog can go back: its older pointers name metadata files that were deleted since.
  noncurrent_days = max(var.noncurrent_days, var.catalog_backup_days)
  key_arn         = module.keys.key_arn
}

module "bulk" {
  source          = "./modules/bulk"
  name            = var.name
  bucket          = module.warehouse.bucket
  bucket_arn      = module.warehouse.bucket_arn
  incoming_prefix = var.incoming_prefix
  key_arn         = module.keys.key_arn
}

module "kafka" {
  source                    = "./modules/kafka"
  count                     = var.kafka_brokers == null ? 1 : 0
  name                      = var.name
  vpc_id                    = var.vpc_id
  subnet_ids                = var.subnet_ids
  client_security_group_ids = var.client_security_group_ids
  kafka_version             = var.msk_version
  brokers                   = var.msk_brokers
  instance_type             = var.msk_instance_type
  volume_gib                = var.msk_volume_gib
  users                     = ["agent", "ingest"]
  password_version          = var.password_version
  key_arn                   = module.keys.key_arn
}

module "catalog" {
  source                    = "./modules/catalog"
  count                     = var.own_catalog ? 0 : 1
  name                      = var.name
  vpc_id                    = var.vpc_id
  subnet_ids                = var.subnet_ids
  client_security_group_ids = var.client_security_group_ids
  postgres_version          = var.postgres_version
  instance_class            = var.catalog_instance_class
  backup_days               = var.catalog_backup_days
  key_arn                   = module.keys.key_arn
}

module "access" {
  source             = "./modules/access"
  name               = var.name
  bucket_arn         = module.warehouse.bucket_arn
  prefix             = var.prefix
  incoming_prefix    = var.incoming_prefix
  dead_letter_prefix = var.dead_letter_prefix
  queue_arn          = module.bulk.queue_arn
  dead_queue_arn     = module.bulk.dead_queue_arn
  key_arn            = module.keys.key_arn
  oidc_provider_arn  = var.oidc_provider_arn
  namespace          = var.namespace
  agent_namespace    = var.agent_namespace
  operator_arns      = var.operator_arns
  logins = {
    agent     = [for kafka in module.kafka : kafka.login_arns["agent"]]
    ingest    = concat(module.catalog[*].login_arn, [for kafka in module.kafka : kafka.login_arns["ingest"]])
    compactor = module.catalog[*].login_arn
    query     = module.catalog[*].login_arn
  }
}

module "watch" {
  source             = "./modules/watch"
  name               = var.name
  queue_name         = module.bulk.queue_name
  dead_queue_name    = module.bulk.dead_queue_name
  catalog_instance   = one(module.catalog[*].instance)
  kafka_cluster      = one(module.kafka[*].cluster_name)
  kafka_brokers      = var.msk_brokers
  emails             = var.alarm_emails
  monthly_budget_usd = var.monthly_budget_usd
  key_arn            = module.keys.key_arn
}
