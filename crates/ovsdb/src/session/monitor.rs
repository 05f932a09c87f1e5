//! The monitor of the database: what is asked for, and the first answer.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, json};
use uuid::Uuid;

use super::{Event, Monitored, Phase, Session, SessionError};
use crate::operation::Where;
use crate::replica::{Layout, Snapshot};
use crate::schema::{Schema, TableSchema};
use crate::update;

/// Name of the monitor, as JSON.
pub(super) const MONITOR_JSON: &str = "\"replica\"";
const MONITOR: &str = "replica";

#[derive(Serialize)]
struct MonitorRequest<'a> {
    columns: Vec<&'a str>,
    #[serde(rename = "where", skip_serializing_if = "is_all")]
    rows: &'a Where,
}

fn is_all(rows: &&Where) -> bool {
    rows.conditions().is_empty()
}

impl Session {
    /// Takes over the connected server's schema. Tables and columns that it lacks are left out of the replica.
    pub(super) fn lay_out(&mut self, schema: &Arc<Schema>) {
        let tables = &self.config.tables;
        let layouts = tables
            .iter()
            .filter_map(|(name, monitored)| Some(layout(name, monitored, schema.table(name)?)));
        let layouts: Vec<Arc<Layout>> = layouts.collect();
        self.schema = Some(schema.clone());
        if layouts == self.layouts {
            self.snapshot.set_schema(schema.clone());
        } else {
            // What the server changed since the last transaction does not tell what the new columns hold.
            self.last_transaction = None;
            self.layouts = layouts;
        }
    }

    /// Asks for the database's contents; `resumable`: for what happened since the last known transaction, if that is
    /// possible (ovsdb-server(7) §4.1.15, since Open vSwitch 2.12).
    pub(super) fn read_contents(&mut self, resumable: bool) {
        let mut requests = Map::new();
        for layout in &self.layouts {
            let columns = layout.columns().iter().map(|(name, _)| &**name).collect();
            let all = Where::all();
            let rows = self
                .config
                .tables
                .get(&**layout.table())
                .map_or(&all, |monitored| &monitored.rows);
            requests.insert(
                layout.table().to_string(),
                json!([MonitorRequest { columns, rows }]),
            );
        }
        let database = &self.config.database;
        let request = if resumable {
            let last = self.last_transaction.unwrap_or_default();
            self.request(
                "monitor_cond_since",
                &json!([database, MONITOR, requests, last]),
            )
        } else {
            self.request("monitor_cond", &json!([database, MONITOR, requests]))
        };
        self.phase = Phase::Reading { request, resumable };
    }

    /// Takes the first answer: everything, or what happened since the last known transaction.
    pub(super) fn contents(&mut self, result: &str, resumable: bool) -> Result<(), SessionError> {
        let protocol = |error: serde_json::Error| {
            SessionError::Protocol(format!("its contents are broken: {error}"))
        };
        let (found, last_transaction, updates): (bool, Option<Uuid>, &str) = if resumable {
            let (found, last, updates): (bool, Uuid, &RawValue) =
                serde_json::from_str(result).map_err(protocol)?;
            (found, Some(last), updates.get())
        } else {
            (false, None, result)
        };
        let (snapshot, changes) = if found {
            let mut snapshot = self.snapshot.clone();
            let changes = update::apply(&mut snapshot, updates).map_err(protocol)?;
            (snapshot, changes)
        } else {
            let mut snapshot = match &self.schema {
                Some(schema) => Snapshot::empty(schema.clone(), self.layouts.iter().cloned()),
                None => {
                    return Err(SessionError::Protocol(
                        "contents came before the schema".to_owned(),
                    ));
                }
            };
            update::apply(&mut snapshot, updates).map_err(protocol)?;
            let changes = self.snapshot.difference(&snapshot);
            (snapshot, changes)
        };
        self.last_transaction = last_transaction;
        self.publish(snapshot, changes);
        self.phase = Phase::Synced;
        self.events.push_back(Event::Synced);
        Ok(())
    }
}

fn layout(name: &str, monitored: &Monitored, table: &TableSchema) -> Arc<Layout> {
    let wanted = |column: &str| match &monitored.columns {
        None => true,
        Some(columns) => columns.iter().any(|wanted| wanted == column),
    };
    let columns = table.columns.iter().filter(|(column, _)| wanted(column));
    let columns = columns.map(|(column, column_type)| (column.clone(), column_type.clone()));
    Arc::new(Layout::new(name.into(), columns))
}
