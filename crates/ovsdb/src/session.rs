//! The protocol of one client on one database: messages in, requests and events out. Does no IO and reads no clock.
//!
//! ```text
//!  connected ─► monitor _Server ─► is this server fit? ─► get_schema ─► monitor the database ─► synced ─► updates, replies
//!      ▲               (no: give up, another may be)                (since the last known transaction)       │
//!      └──────────────────────────────────────── disconnected ◄──────────────────────────────────────────────┘
//! ```
//!
//! The replica outlives connections. After a reconnect it is brought up to date by what happened since, if the server
//! remembers; otherwise it is read anew beside the old one and replaced in one step. It is never empty in between.

mod monitor;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::message::{self, Message, TransactParams};
use crate::operation::{Operation, Where};
use crate::outcome::Outcome;
use crate::replica::{Change, Layout, Snapshot};
use crate::schema::{Refusal, Schema};
use crate::update;
use server::Server;

/// How long a server may take to say what it serves. Afterwards another is tried.
const GREETING: Duration = Duration::from_secs(30);

/// What to monitor, and of which servers.
#[derive(Clone, Debug, Default)]
pub struct SessionConfig {
    /// Name of the database.
    pub database: String,
    /// The tables to replicate, and what of them.
    pub tables: BTreeMap<String, Monitored>,
    /// Of a cluster, take only the leader: others answer too, but what they show may be older.
    pub leader_only: bool,
}

/// What to replicate of a table.
#[derive(Clone, Debug, Default)]
pub struct Monitored {
    /// The columns; `None` for all that the server has.
    pub columns: Option<Vec<String>>,
    /// The rows; empty for all. A row that no longer fulfils the conditions leaves the replica.
    pub rows: Where,
}

/// What the session tells its driver.
#[derive(Debug)]
pub enum Event {
    /// The replica holds the database's state, on this connection for the first time.
    Synced,
    /// The replica changed; [`Session::snapshot`] has it already.
    Changed(Vec<Change>),
    /// A transaction ended.
    Ended {
        /// As [`Session::transact`] returned it.
        transaction: u64,
        /// What became of it.
        outcome: Outcome,
    },
}

/// The connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The server sent what the protocol does not allow.
    #[error("failed to understand the server: {0}")]
    Protocol(String),
    /// The server is sound, but not the one to use now: another member of the cluster may be.
    #[error("failed to use this server: {0}")]
    Unfit(String),
    /// The server did not say in time what it serves.
    #[error("failed to learn what the server serves within {} s", GREETING.as_secs())]
    Slow,
}

/// Why an operation was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError {
    /// The replica is not synced with a server at this moment. Nothing was sent.
    #[error("failed to transact: not connected to the database")]
    NotConnected,
    /// The connected server's schema does not allow it. Nothing was sent.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

#[derive(Debug)]
enum Phase {
    Disconnected,
    /// `_Server` is asked for.
    Greeting {
        request: u64,
        since: Instant,
    },
    /// The database's schema is asked for.
    Schema {
        request: u64,
        since: Instant,
    },
    /// The database's contents are asked for.
    Reading {
        request: u64,
        resumable: bool,
    },
    Synced,
}

/// The state of one client, over all its connections.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    snapshot: Snapshot,
    /// What the next full read of the database will be laid out by.
    schema: Option<Arc<Schema>>,
    layouts: Vec<Arc<Layout>>,
    /// The last transaction that the replica holds, if the server numbers them.
    last_transaction: Option<Uuid>,
    server: Server,
    phase: Phase,
    next_id: u64,
    transactions: BTreeMap<u64, Vec<Operation>>,
    output: Vec<u8>,
    events: VecDeque<Event>,
}

impl Session {
    /// A session that is not connected yet.
    pub fn new(config: SessionConfig) -> Self {
        Session {
            server: Server::new(&config.database, config.leader_only),
            config,
            snapshot: Snapshot::default(),
            schema: None,
            layouts: Vec::new(),
            last_transaction: None,
            phase: Phase::Disconnected,
            next_id: 0,
            transactions: BTreeMap::new(),
            output: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// The replica.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// True if the replica follows a server at this moment.
    pub fn is_synced(&self) -> bool {
        matches!(self.phase, Phase::Synced)
    }

    /// Starts over on a new connection.
    pub fn connected(&mut self, now: Instant) {
        self.disconnected("a new connection replaced it");
        self.server.forget();
        // Without this the server drops its clients whenever a database is added, removed or converted.
        self.request("set_db_change_aware", &[true]);
        let request = self.request("monitor_cond", &Server::monitor_params());
        self.phase = Phase::Greeting {
            request,
            since: now,
        };
    }

    /// Ends the connection: transactions that were sent and not answered end with [`Outcome::Indeterminate`].
    pub fn disconnected(&mut self, reason: &str) {
        self.phase = Phase::Disconnected;
        self.output.clear();
        for (transaction, _) in std::mem::take(&mut self.transactions) {
            let reason = format!("the connection was lost before the answer: {reason}");
            self.events.push_back(Event::Ended {
                transaction,
                outcome: Outcome::Indeterminate { reason },
            });
        }
    }

    /// Takes bytes to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes the next event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Greeting { since, .. } | Phase::Schema { since, .. } => Some(since + GREETING),
            _ => None,
        }
    }

    /// Checks for a server that keeps us waiting.
    ///
    /// # Errors
    /// It did.
    pub fn tick(&mut self, now: Instant) -> Result<(), SessionError> {
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(SessionError::Slow),
            _ => Ok(()),
        }
    }

    /// Sends a transaction. Returns its number, which [`Event::Ended`] will name.
    ///
    /// # Errors
    /// It cannot be sent; nothing was.
    pub fn transact(&mut self, mut operations: Vec<Operation>) -> Result<u64, TransactError> {
        let Some(schema) = self.snapshot.schema().filter(|_| self.is_synced()) else {
            return Err(TransactError::NotConnected);
        };
        schema.fit(&mut operations)?;
        if operations.is_empty() {
            let transaction = self.new_id();
            self.events.push_back(Event::Ended {
                transaction,
                outcome: Outcome::Unchanged(Vec::new()),
            });
            return Ok(transaction);
        }
        let id = self.new_id();
        let params = TransactParams {
            database: &self.config.database,
            operations: &operations,
        };
        message::write_request(&mut self.output, "transact", &params, id);
        self.transactions.insert(id, operations);
        Ok(id)
    }

    /// Takes one message of the server.
    ///
    /// # Errors
    /// The connection is of no more use: close it and call [`disconnected`](Self::disconnected).
    pub fn handle(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let message = Message::parse(bytes).map_err(SessionError::Protocol)?;
        let result = match message {
            Message::Response { id, result, error } => self.handle_response(id, result, error),
            Message::Request {
                ref method,
                params,
                id,
            } => match (&**method, id) {
                ("update2" | "update3", _) => self.handle_update(params),
                ("monitor_canceled", _) => Err(SessionError::Unfit(
                    "it no longer serves the database as it did".to_owned(),
                )),
                (_, Some(id)) => {
                    let reply = message.echo_reply().unwrap_or_else(|| unknown_method(id));
                    self.output.extend_from_slice(&reply);
                    Ok(())
                }
                // An unknown notification, such as of a lock, wants nothing of us.
                (_, None) => Ok(()),
            },
        };
        if matches!(result, Err(SessionError::Protocol(_))) {
            // What the replica holds may not be what the server thinks it does: read everything anew.
            self.last_transaction = None;
        }
        result
    }

    fn handle_response(
        &mut self,
        id: &str,
        result: &str,
        error: Option<&str>,
    ) -> Result<(), SessionError> {
        let Ok(id) = id.parse::<u64>() else {
            return Ok(());
        };
        if let Some(operations) = self.transactions.remove(&id) {
            return self.end_transaction(id, &operations, result, error);
        }
        match self.phase {
            Phase::Greeting { request, .. } if request == id => {
                if let Some(error) = error {
                    return Err(SessionError::Unfit(format!(
                        "it has no database _Server: {error}"
                    )));
                }
                self.server.read(result).map_err(SessionError::Protocol)?;
                self.server_changed()
            }
            Phase::Schema { request, .. } if request == id => {
                if let Some(error) = error {
                    return Err(SessionError::Unfit(format!(
                        "it does not tell the schema: {error}"
                    )));
                }
                let schema = Schema::parse(result).map_err(|error| {
                    SessionError::Protocol(format!("its schema is broken: {error}"))
                })?;
                self.lay_out(&Arc::new(schema));
                self.read_contents(true);
                Ok(())
            }
            Phase::Reading { request, resumable } if request == id => match error {
                None => self.contents(result, resumable),
                Some(error) if resumable && error.contains("unknown method") => {
                    self.read_contents(false);
                    Ok(())
                }
                Some(error) => Err(SessionError::Unfit(format!(
                    "it refuses to monitor the database: {error}"
                ))),
            },
            // The answer to set_db_change_aware.
            _ => Ok(()),
        }
    }

    fn end_transaction(
        &mut self,
        transaction: u64,
        operations: &[Operation],
        result: &str,
        error: Option<&str>,
    ) -> Result<(), SessionError> {
        let parse =
            |json: &str| serde_json::from_str::<Value>(json).map_err(|error| error.to_string());
        let outcome = match (error, self.snapshot.schema()) {
            (Some(error), _) => parse(error).map(|error| Outcome::of_error(&error, None, None)),
            (None, Some(schema)) => {
                parse(result).and_then(|results| Outcome::of_results(&results, operations, schema))
            }
            (None, None) => Err("a transaction ended before the schema was known".to_owned()),
        };
        let (outcome, result) = match outcome {
            Ok(outcome) => (outcome, Ok(())),
            Err(problem) => {
                let reason = format!("its answer was not understood: {problem}");
                (
                    Outcome::Indeterminate { reason },
                    Err(SessionError::Protocol(problem)),
                )
            }
        };
        self.events.push_back(Event::Ended {
            transaction,
            outcome,
        });
        result
    }

    fn handle_update(&mut self, params: &str) -> Result<(), SessionError> {
        let protocol = |problem: &dyn std::fmt::Display| {
            SessionError::Protocol(format!("an update is broken: {problem}"))
        };
        let params: Vec<&RawValue> =
            serde_json::from_str(params).map_err(|error| protocol(&error))?;
        let (monitor, last_transaction, updates) = match params.as_slice() {
            [monitor, updates] => (monitor, None, updates),
            [monitor, last, updates] => (monitor, Some(last), updates),
            _ => return Err(protocol(&"it has neither two nor three parameters")),
        };
        if monitor.get() == server::MONITOR_JSON {
            self.server
                .read(updates.get())
                .map_err(SessionError::Protocol)?;
            return self.server_changed();
        }
        if monitor.get() != monitor::MONITOR_JSON || !self.is_synced() {
            return Err(protocol(&"it is of no monitor of ours"));
        }
        let mut snapshot = self.snapshot.clone();
        let changes =
            update::apply(&mut snapshot, updates.get()).map_err(|error| protocol(&error))?;
        self.last_transaction = match last_transaction {
            Some(last) => Some(serde_json::from_str(last.get()).map_err(|error| protocol(&error))?),
            None => None,
        };
        self.publish(snapshot, changes);
        Ok(())
    }

    fn publish(&mut self, snapshot: Snapshot, changes: Vec<Change>) {
        self.snapshot = snapshot;
        if !changes.is_empty() {
            self.events.push_back(Event::Changed(changes));
        }
    }

    /// What the server says of itself has changed: go on, or give it up.
    fn server_changed(&mut self) -> Result<(), SessionError> {
        self.server.check().map_err(SessionError::Unfit)?;
        if let Phase::Greeting { since, .. } = self.phase {
            // Not from _Server: of a standalone database that was converted it shows the old schema for ever.
            let request = self.new_id();
            let params = [&self.config.database];
            message::write_request(&mut self.output, "get_schema", &params, request);
            self.phase = Phase::Schema { request, since };
        }
        Ok(())
    }

    fn request(&mut self, method: &str, params: &impl serde::Serialize) -> u64 {
        let id = self.new_id();
        message::write_request(&mut self.output, method, params, id);
        id
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

fn unknown_method(id: &str) -> Vec<u8> {
    format!(r#"{{"result":null,"error":"unknown method","id":{id}}}"#).into_bytes()
}
