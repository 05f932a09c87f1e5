//! The tokio client: one task that holds the session, and per connection a reader and a writer.
//!
//! ```text
//!                 transact                     Subscription, snapshot()
//!                    │                                   ▲
//!                    ▼                                   │ publish
//!  backoff ─► connect ─► driver task (Session) ──────────┤
//!                          ▲          │                  └─► replies to transact
//!                 messages │          │ requests
//!                     reader task   writer task
//!                      │     └──────────▲
//!                      │   echo replies, probes: they never wait for the driver
//! ```

mod backoff;
mod config;
mod connection;
mod driver;
mod subscription;
mod transport;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::replica::Snapshot;
use crate::session::TransactError;

pub use config::{Config, Remote, RemoteError, Tls};
pub use subscription::{Event, Subscription};

use subscription::Publisher;

/// Transactions that may wait for the driver.
const COMMANDS: usize = 64;

/// Why a call of the client failed. Nothing was sent in any of these cases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transaction cannot be sent now, or not to this server.
    #[error(transparent)]
    Transact(#[from] TransactError),
    /// The client's task has ended: its runtime is shutting down, or it panicked.
    #[error("failed to reach the database client: its task has ended")]
    Closed,
}

/// Whether the replica follows a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// What the client is doing.
    pub state: State,
    /// The server that it is connected to, or tried last.
    pub remote: Option<Remote>,
    /// Why the last connection, or attempt at one, ended: a sentence. `None` since the replica is synced.
    pub last_error: Option<Arc<str>>,
    /// True once the replica has been synced for the first time: the snapshot then is a state of the database, if perhaps
    /// an old one.
    pub was_synced: bool,
}

/// What the client is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It waits before the next attempt, or has only been started.
    #[default]
    Waiting,
    /// It connects to a server.
    Connecting,
    /// It is connected and reads the database.
    Syncing,
    /// The replica follows the server, and transactions can be sent.
    Synced,
}

/// A client of one database: a replica of its monitored tables, and transactions.
///
/// Clones share one connection, which one task carries: see [`Client::new`]. It ends when the last clone is dropped.
///
/// # Guarantees
/// * When [`transact`](Self::transact) returns [`Outcome::Committed`], [`snapshot`](Self::snapshot) holds the effect on all
///   monitored columns: the server sends the update before the reply, and both are handled in order.
/// * The snapshot is never empty after the first sync unless the database is; while disconnected it stays as it was.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Transact>,
    publisher: Arc<Publisher>,
    connection: watch::Receiver<Connection>,
}

/// A transaction on its way to the driver.
#[derive(Debug)]
pub(crate) struct Transact {
    operations: Vec<Operation>,
    reply: oneshot::Sender<Result<Outcome, TransactError>>,
}

impl Client {
    /// A client, and the task that carries its connection, for the caller to run and to watch: it connects at once, and again whenever
    /// the connection is lost. If it ends while there are clones, which only a fault does, subscriptions yield nothing any more.
    pub fn new(config: Config) -> (Client, impl Future<Output = ()> + Send + 'static) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (sender, connection) = watch::channel(Connection::default());
        let publisher = Arc::new(Publisher::new());
        let driver = driver::Driver::new(config, publisher.clone(), sender, receiver);
        let client = Client {
            commands,
            publisher,
            connection,
        };
        (client, driver.run())
    }

    /// Starts a client on the current tokio runtime, with a task that nobody watches: for tests and small programs.
    pub fn spawn(config: Config) -> Client {
        let (client, task) = Self::new(config);
        #[expect(
            clippy::disallowed_methods,
            reason = "who must notice its end calls `new`, and clippy.toml knows this function too"
        )]
        tokio::spawn(task);
        client
    }

    /// Waits until the replica has been synced for the first time.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn synced(&self) -> Result<(), Error> {
        self.wait_for(|connection| connection.was_synced).await
    }

    /// Waits until the replica follows a server, for example after [`Outcome::Indeterminate`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn connected(&self) -> Result<(), Error> {
        self.wait_for(|connection| connection.state == State::Synced)
            .await
    }

    async fn wait_for(&self, condition: impl FnMut(&Connection) -> bool) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        connection
            .wait_for(condition)
            .await
            .map(drop)
            .map_err(|_| Error::Closed)
    }

    /// The replica as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.publisher.snapshot()
    }

    /// Follows the replica's changes. The first event is a [`Event::Resync`] with the snapshot to start from; before the first sync
    /// that one is empty.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(self.publisher.clone())
    }

    /// The state of the connection, to look at or to wait on.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    /// Applies all of the operations or none.
    ///
    /// Columns that the connected server lacks are left out where the value to write is empty, and refused otherwise; see
    /// [`Snapshot::has_column`]. There is no time limit; to stop waiting, drop the future: the transaction may then still be
    /// committed.
    ///
    /// # Errors
    /// Nothing was sent: not connected, or the operations do not fit the connected server's schema.
    pub async fn transact(&self, operations: Vec<Operation>) -> Result<Outcome, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Transact { operations, reply })
            .await
            .map_err(|_| Error::Closed)?;
        match answer.await {
            Ok(outcome) => Ok(outcome?),
            // The driver answers each transaction; it can only have died with it.
            Err(_) => Ok(Outcome::Indeterminate {
                reason: "the client's task ended before the answer".to_owned(),
            }),
        }
    }
}
