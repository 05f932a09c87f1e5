//! Three real ovsdb-servers that form a RAFT cluster.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Server, eventually, run, text};

pub struct Cluster {
    pub servers: Vec<Server>,
}

impl Cluster {
    /// A running cluster of `size` members of a database.
    pub fn start(dir: &Path, schema: &Path, database: &str, size: usize) -> Result<Cluster> {
        let address = |n: usize| format!("unix:{}", dir.join(format!("{n}.raft")).display());
        let mut servers = Vec::new();
        for n in 0..size {
            let own = dir.join(n.to_string());
            std::fs::create_dir_all(&own)?;
            let file = own.join("db");
            match n {
                0 => run(
                    "ovsdb-tool",
                    &["create-cluster", text(&file), text(schema), &address(0)],
                )?,
                _ => run(
                    "ovsdb-tool",
                    &[
                        "join-cluster",
                        text(&file),
                        database,
                        &address(n),
                        &address(0),
                    ],
                )?,
            };
            let mut server = Server::over(&own, file);
            server.start()?;
            servers.push(server);
        }
        let cluster = Cluster { servers };
        for server in &cluster.servers {
            eventually("each member has joined", || {
                Ok(server
                    .ctl(&["cluster/status", database])?
                    .contains("Status: cluster member"))
            })?;
        }
        Ok(cluster)
    }

    /// The members, as a client names them.
    pub fn remotes(&self) -> String {
        self.servers
            .iter()
            .map(Server::unix)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The member of this address.
    pub fn member(&mut self, remote: &str) -> Result<&mut Server> {
        self.servers
            .iter_mut()
            .find(|server| server.unix() == remote)
            .context("no such member")
    }
}
