//! The credentials of the bucket as those of the queue: one chain of providers for both.

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_sqs::config::{Credentials, ProvideCredentials};
use objects::Bucket;

/// The credentials that a bucket is reached with.
#[derive(Debug)]
pub(super) struct Keys(Bucket);

impl Keys {
    pub(super) const fn of(bucket: Bucket) -> Self {
        Self(bucket)
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let found = self.0.credentials().await.map_err(CredentialsError::provider_error)?;
            let token = found.session_token.map(|token| token.expose().clone());
            let secret = found.secret_access_key.expose().clone();
            Ok(Credentials::new(found.access_key_id, secret, token, None, "bucket"))
        })
    }
}
