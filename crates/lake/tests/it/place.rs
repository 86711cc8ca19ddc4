//! Where a test's lake is: SQLite and a directory, or PostgreSQL and S3.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use lake::{Environment, Lake, LakeOptions};
use objects::S3Options;
use sqlx::{AnyConnection, Connection, Executor};

use crate::proxy::Proxy;
use crate::servers::Servers;

/// Runs each of these functions on both set-ups.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::place::Place::embedded()).await;
            })+
        }
        mod served {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::place::Place::served().await).await;
            })+
        }
    };
}

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) options: LakeOptions,
}

impl Place {
    pub(crate) fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let options = LakeOptions {
            catalog_uri: format!("sqlite://{at}/catalog.sqlite"),
            warehouse: format!("{at}/warehouse"),
            s3: None,
        };
        Self { dir, options }
    }

    pub(crate) async fn served() -> Self {
        let servers = Servers::shared();
        Self::on_s3(servers.s3.env("AWS_ENDPOINT_URL")).await
    }

    /// As [`Self::served`], with another S3.
    pub(crate) async fn on_s3(endpoint: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Servers::shared().postgres.env("DATABASE_URL");
        run_sql(database, &format!("CREATE DATABASE {name}")).await;
        let (server, _) = database.rsplit_once('/').unwrap();
        let s3 = S3Options {
            endpoint: Some(endpoint.to_owned()),
            access_key_id: Some("test".into()),
            secret_access_key: Some("test".into()),
            path_style: true,
            ..S3Options::default()
        };
        let options = LakeOptions {
            catalog_uri: format!("{server}/{name}"),
            warehouse: format!("s3://lake/{name}"),
            s3: Some(s3),
        };
        Self { dir: tempfile::tempdir().unwrap(), options }
    }

    pub(crate) async fn lake(&self) -> Lake {
        Lake::open(self.options.clone()).await.unwrap()
    }

    /// The lake with short time limits.
    pub(crate) async fn impatient_lake(&self, commit_limit: Duration) -> Lake {
        Lake::open_with(self.options.clone(), Environment { commit_limit, ..Environment::default() }).await.unwrap()
    }

    /// The same lake, its catalog reached through a proxy.
    pub(crate) fn behind_proxy(&self) -> (LakeOptions, Proxy) {
        let port = Servers::shared().postgres.env("PGPORT");
        let proxy = Proxy::to(port);
        let catalog_uri = self.options.catalog_uri.replace(&format!(":{port}/"), &format!(":{}/", proxy.port));
        (LakeOptions { catalog_uri, ..self.options.clone() }, proxy)
    }

    /// The paths of all objects in the warehouse.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let objects = self.lake().await.store().objects();
        objects.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
    }

    /// Another program's statements in the catalog database.
    pub(crate) async fn sql(&self, statements: &str) {
        run_sql(&self.options.catalog_uri, statements).await;
    }

    /// The catalog's address as SQLAlchemy wants it.
    pub(crate) fn sqlalchemy_uri(&self) -> String {
        let uri = &self.options.catalog_uri;
        uri.replace("postgres://", "postgresql+psycopg2://").replace("sqlite:///", "sqlite:////")
    }
}

async fn run_sql(uri: &str, statements: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(uri).await.unwrap();
    connection.execute(statements).await.unwrap();
    connection.close().await.unwrap();
}
