//! What the server says of itself and its databases: table `Database` of `_Server`, ovsdb-server(5).

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::replica::{Row, Snapshot};
use crate::schema::Schema;
use crate::update;

/// Name of the monitor, as JSON.
pub(super) const MONITOR_JSON: &str = "\"server\"";

const TABLE: &str = "Database";

/// The columns that matter here, in the types of `_Server` 1.2.0.
const SCHEMA: &str = r#"{"name":"_Server","version":"1.2.0","tables":{"Database":{"columns":{
    "name":{"type":"string"},
    "model":{"type":"string"},
    "connected":{"type":"boolean"},
    "leader":{"type":"boolean"},
    "cid":{"type":{"key":"uuid","min":0,"max":1}},
    "index":{"type":{"key":"integer","min":0,"max":1}}}}}}"#;

/// The rows of `_Server`, and what earlier connections showed.
#[derive(Debug)]
pub(super) struct Server {
    database: String,
    leader_only: bool,
    snapshot: Snapshot,
    /// The highest log index seen of a cluster: a server that is behind it would take us back in time.
    seen: Option<(Uuid, i64)>,
}

impl Server {
    pub(super) fn new(database: &str, leader_only: bool) -> Self {
        Server {
            database: database.to_owned(),
            leader_only,
            snapshot: Snapshot::default(),
            seen: None,
        }
    }

    /// A new connection: nothing is known of the server, but of the cluster.
    pub(super) fn forget(&mut self) {
        let schema = Schema::vendored(SCHEMA);
        self.snapshot = Snapshot::of(&schema, []).unwrap_or_default();
    }

    pub(super) fn monitor_params() -> Value {
        let columns = ["cid", "connected", "index", "leader", "model", "name"];
        json!(["_Server", "server", {TABLE: [{"columns": columns}]}])
    }

    /// Takes an update.
    pub(super) fn read(&mut self, updates: &str) -> Result<(), String> {
        let mut snapshot = self.snapshot.clone();
        update::apply(&mut snapshot, updates)
            .map_err(|error| format!("an update of _Server is broken: {error}"))?;
        self.snapshot = snapshot;
        Ok(())
    }

    /// Whether this server is fit for use, or why not.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let row = self
            .row()
            .ok_or_else(|| format!("it does not serve database {}", self.database))?
            .clone();
        let flag = |column| {
            row.get(column)
                .and_then(|value| value.as_boolean())
                .unwrap_or(false)
        };
        let model = string(&row, "model").unwrap_or_default();
        if model != "standalone" {
            if !flag("connected") {
                return Err("it is not connected to its cluster".to_owned());
            }
            if self.leader_only && !flag("leader") {
                return Err("it is not the leader of its cluster".to_owned());
            }
            self.check_index(&row)?;
        }
        Ok(())
    }

    fn check_index(&mut self, row: &Row) -> Result<(), String> {
        let cluster = row
            .get("cid")
            .and_then(|value| value.as_uuid())
            .unwrap_or_default();
        let index = row
            .get("index")
            .and_then(|value| value.as_integer())
            .unwrap_or(0);
        match self.seen {
            // Another cluster of the same name counts anew.
            Some((seen_cluster, seen)) if seen_cluster == cluster && index < seen => Err(format!(
                "its data is old: log index {index}, {seen} was seen before"
            )),
            _ => {
                self.seen = Some((cluster, index));
                Ok(())
            }
        }
    }

    fn row(&self) -> Option<&Arc<Row>> {
        self.snapshot
            .table(TABLE)
            .iter()
            .find(|row| string(row, "name") == Some(&self.database))
    }
}

fn string<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column)?.as_str()
}
