# What infra/dev/estate.sh applies to a local server; it adds the network of that server.
region            = "us-east-1"
bucket            = "causeway-lake"
oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
operator_arns     = ["arn:aws:iam::123456789012:user/operator"]
# The server has neither MSK nor all of Budgets: these are planned with production.tfvars, and not applied.
kafka_brokers      = "kafka-1.example.org:9096"
monthly_budget_usd = null
