# A fleet on EKS. Copy, and set what your account has.
region                    = "us-east-1"
vpc_id                    = "vpc-0123456789abcdef0"
subnet_ids                = ["subnet-aaaaaaaa", "subnet-bbbbbbbb", "subnet-cccccccc"]
client_security_group_ids = ["sg-0123456789abcdef0"]
bucket                    = "example-causeway-lake"
monthly_budget_usd        = 5000
oidc_provider_arn         = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE"
operator_arns             = ["arn:aws:iam::123456789012:user/operator"]
alarm_emails              = ["fleet@example.org"]
msk_brokers               = 6
msk_instance_type         = "kafka.m7g.xlarge"
msk_volume_gib            = 4000
catalog_instance_class    = "db.m7g.large"
catalog_backup_days       = 35
