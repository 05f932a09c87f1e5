//! A real ovsdb-server, and the controller's loop in its shortest form.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ycloud_compiler::row::MONITORED;
use ycloud_compiler::{Batch, Owner, OwnerIndex, Snapshot, compile, keep_connections};
use ycloud_ovsdb::{Client, Config, Operation, Outcome, Remote};

/// An ovsdb-server of its own; ends with the value.
pub struct Server {
    child: Child,
    _folder: tempfile::TempDir,
    /// `unix:<path>`.
    pub remote: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Server {
    pub fn start(schema: &Path) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, socket) = (folder.path().join("nb.db"), folder.path().join("nb.sock"));
        let created = Command::new("ovsdb-tool")
            .arg("create")
            .args([&file, schema])
            .status();
        assert!(created.expect("ovsdb-tool").success());
        let child = Command::new("ovsdb-server")
            .arg(&file)
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", folder.path().join("ctl").display()))
            .arg("--no-chdir")
            .stderr(Stdio::null())
            .spawn()
            .expect("ovsdb-server");
        let begun = Instant::now();
        while !socket.exists() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "ovsdb-server does not listen"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let remote = format!("unix:{}", socket.display());
        Server {
            child,
            _folder: folder,
            remote,
        }
    }

    pub async fn client(&self) -> Client {
        let remotes = Remote::parse_list(&self.remote).expect("a remote");
        let mut config = Config::new(remotes, "OVN_Northbound");
        for (table, columns) in MONITORED {
            config = config.monitor(table, columns);
        }
        let client = Client::spawn(config);
        let synced = tokio::time::timeout(Duration::from_secs(10), client.synced()).await;
        synced.expect("synced in time").expect("synced");
        client
    }
}

pub async fn commit(client: &Client, operations: Vec<Operation>) {
    let outcome = client
        .transact(operations.clone())
        .await
        .expect("an answer");
    assert!(
        matches!(outcome, Outcome::Committed(_)),
        "{outcome:?}\n{operations:#?}"
    );
}

/// Reconciles until a look at everything finds nothing to do; at most three transactions.
pub async fn settle(client: &Client, snapshot: &Snapshot, index: &mut OwnerIndex) {
    for round in 0.. {
        let observed = client.snapshot();
        let owners: BTreeSet<Owner> = snapshot
            .owners()
            .into_iter()
            .chain(index.owners().cloned())
            .collect();
        let mut batch = Batch::new(&observed, index);
        for owner in &owners {
            match compile(snapshot, owner) {
                Ok(rows) => {
                    let rows = keep_connections(snapshot, owner, rows, &observed);
                    batch.add(owner, &rows);
                }
                Err(rejection) if rejection.keep => {}
                Err(_) => drop(batch.add(owner, &[])),
            }
        }
        let operations = batch.into_operations();
        if operations.is_empty() {
            return;
        }
        assert!(round < 3, "still to do: {operations:#?}");
        commit(client, operations).await;
        index.apply(&observed.difference(&client.snapshot()), snapshot);
    }
}
