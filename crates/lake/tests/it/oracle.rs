//! What PyIceberg and DuckDB find in a lake.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::place::Place;
use crate::servers::{infra, python};

impl Place {
    /// Counts tables (`name:id:group:sum`); asserts that both readers agree and that no row and no file is there twice.
    pub(crate) fn count(&self, tables: &[String], more: &[&str]) -> Vec<Value> {
        let mut oracle = python();
        oracle.arg(infra().join("oracle.py")).args(["--catalog", &self.sqlalchemy_uri()]).args(more);
        oracle.args(tables.iter().flat_map(|table| ["--table", table]));
        if let Some(s3) = &self.options.s3 {
            oracle.args(["--s3-endpoint", s3.endpoint.as_deref().unwrap()]);
        }
        let output = oracle.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asserts that the table of [`crate::rows`] holds the offsets below these ends of partitions 0, 1, …, each once.
    #[track_caller]
    pub(crate) fn assert_landed(&self, ends: &[i64]) -> Value {
        let found = self.count(&["silver.t:part,seq:part:seq".to_owned()], &[]).remove(0);
        let expected: BTreeMap<String, i64> = ends.iter().enumerate().map(|(p, end)| (p.to_string(), *end)).collect();
        let groups: BTreeMap<String, i64> = serde_json::from_value(found["pyiceberg"]["groups"].clone()).unwrap();
        assert_eq!(groups, expected, "{found}");
        let sum: i64 = ends.iter().map(|end| end * (end - 1) / 2).sum();
        assert_eq!(found["pyiceberg"]["sum_seq"], sum.to_string(), "{found}");
        found
    }

    /// Runs Python with `catalog`, PyIceberg's view of this lake.
    pub(crate) fn pyiceberg(&self, script: &str) {
        let open = "import sys, pyarrow as pa\n\
                    from pyiceberg.catalog.sql import SqlCatalog\n\
                    s3 = {'s3.endpoint': sys.argv[3], 's3.access-key-id': 'test', 's3.secret-access-key': 'test',\
                     's3.region': 'us-east-1', 's3.force-virtual-addressing': 'false'} if sys.argv[3] else {}\n\
                    catalog = SqlCatalog('causeway', uri=sys.argv[1], warehouse=sys.argv[2], **s3)\n";
        let endpoint = self.options.s3.as_ref().and_then(|s3| s3.endpoint.clone()).unwrap_or_default();
        let warehouse = match self.options.warehouse.strip_prefix('/') {
            Some(path) => format!("file:///{path}"),
            None => self.options.warehouse.clone(),
        };
        let arguments = [format!("{open}{script}"), self.sqlalchemy_uri(), warehouse, endpoint];
        let Output { status, stderr, .. } = python().arg("-c").args(arguments).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    }
}
