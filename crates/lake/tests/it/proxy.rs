//! `infra/dev/tcp-proxy.py`: cuts connections to the catalog at given places.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::servers::{infra, order, python};

#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    pub(crate) port: String,
    control: String,
}

impl Proxy {
    /// A proxy in front of a port of this machine.
    pub(crate) fn to(port: &str) -> Self {
        let mut child = python()
            .arg(infra().join("tcp-proxy.py"))
            .args(["--with-parent", "--to", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let field = |name: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap().to_owned();
        let (listen, control) = (field("listen=127.0.0.1:"), field("control="));
        Self { child, port: listen, control }
    }

    /// Cuts the next connection that sends these orders' bytes: `contains=…` or `bytes=…`, and `then=before|after|reply`.
    pub(crate) fn arm(&self, orders: &str) {
        order(&self.control, "POST", &format!("/arm?{orders}"));
    }

    pub(crate) fn disarm(&self) {
        order(&self.control, "POST", "/disarm");
    }

    pub(crate) fn set(&self, mode: &str) {
        order(&self.control, "POST", &format!("/set?mode={mode}"));
    }

    /// How many ordered cuts have happened.
    pub(crate) fn fired(&self) -> u64 {
        order(&self.control, "GET", "/state")["fired"].as_u64().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
