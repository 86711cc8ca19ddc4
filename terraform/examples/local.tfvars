# What infra/dev/estate.sh applies to a local server. Names of a network that is not there: see production.tfvars.
region                    = "us-east-1"
vpc_id                    = "vpc-0123456789abcdef0"
subnet_ids                = ["subnet-aaaaaaaa", "subnet-bbbbbbbb", "subnet-cccccccc"]
client_security_group_ids = ["sg-0123456789abcdef0"]
bucket                    = "causeway-lake"
monthly_budget_usd        = 500
oidc_provider_arn         = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
operator_arns             = ["arn:aws:iam::123456789012:user/operator"]
