# What infra/dev/estate.sh applies to a local server. MSK, RDS and Budgets are planned with production.tfvars and not applied: the
# server has them not at all, or reads back less than Terraform writes.
region                    = "us-east-1"
vpc_id                    = "vpc-0123456789abcdef0"
subnet_ids                = ["subnet-aaaaaaaa", "subnet-bbbbbbbb", "subnet-cccccccc"]
client_security_group_ids = ["sg-0123456789abcdef0"]
bucket                    = "causeway-lake"
oidc_provider_arn         = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
operator_arns             = ["arn:aws:iam::123456789012:user/operator"]
kafka_brokers             = "kafka-1.example.org:9096"
own_catalog               = true
monthly_budget_usd        = null
