//! The task that holds the session: connects, feeds it, publishes what it says.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::backoff::Backoff;
use super::config::{Config, Remote};
use super::connection::{self, Inbound};
use super::subscription::Publisher;
use super::{Connection, State, Transact, transport};
use crate::outcome::Outcome;
use crate::session::{Event, Session, SessionError, TransactError};

/// Longer messages are handled on a thread for blocking work: 1 MiB takes several milliseconds.
const LONG_MESSAGE: usize = 256 << 10;

/// A connection that stayed synced for this long was a success: the next one is tried at once.
const SUCCESS: Duration = Duration::from_secs(5);

/// All clones of the client are gone.
struct Abandoned;

pub(super) struct Driver {
    config: Config,
    session: Session,
    publisher: Arc<Publisher>,
    connection: watch::Sender<Connection>,
    commands: mpsc::Receiver<Transact>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Outcome, TransactError>>>,
}

impl Driver {
    pub(super) fn new(
        config: Config,
        publisher: Arc<Publisher>,
        connection: watch::Sender<Connection>,
        commands: mpsc::Receiver<Transact>,
    ) -> Self {
        let session = Session::new(config.session.clone());
        Driver {
            config,
            session,
            publisher,
            connection,
            commands,
            waiting: BTreeMap::new(),
        }
    }

    /// Runs until all clones of the client are gone.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.config.remotes.len());
        if self.config.remotes.is_empty() {
            self.ended("no server is configured");
        }
        loop {
            let (wait, server) = backoff.next();
            if self.meanwhile(tokio::time::sleep(wait)).await.is_err() {
                return;
            }
            let Some(remote) = self.config.remotes.get(server).cloned() else {
                // Without a server there is nothing to do but to refuse transactions.
                if self.meanwhile(std::future::pending::<()>()).await.is_err() {
                    return;
                }
                continue;
            };
            let started = Instant::now();
            let Ok(reason) = self.one_connection(&remote).await else {
                return;
            };
            let lasted =
                self.connection.borrow().state == State::Synced && started.elapsed() >= SUCCESS;
            if lasted {
                backoff.reset();
            }
            self.ended(&reason);
        }
    }

    /// Waits for something else; transactions are refused meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Abandoned> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                command = self.commands.recv() => self.transact(command.ok_or(Abandoned)?),
            }
        }
    }

    /// Connects and follows the server until that ends; returns why, in words.
    async fn one_connection(&mut self, remote: &Remote) -> Result<String, Abandoned> {
        self.show(|connection| {
            (connection.state, connection.remote) = (State::Connecting, Some(remote.clone()));
        });
        let tls = self.config.tls.clone();
        let timeout = self.config.connect_timeout;
        let connect =
            async { tokio::time::timeout(timeout, transport::connect(remote, tls.as_ref())).await };
        let stream = match self.meanwhile(connect).await? {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ok(in_words(&error)),
            Err(_) => {
                return Ok(format!(
                    "failed to connect to {remote} within {} s",
                    timeout.as_secs_f32()
                ));
            }
        };
        self.show(|connection| connection.state = State::Syncing);
        let probe_interval = self
            .config
            .probe_interval
            .filter(|_| !matches!(remote, Remote::Unix(_)));
        let mut connection = connection::Connection::start(stream, &self.config, probe_interval);
        self.session.connected(Instant::now());
        loop {
            if let Err(reason) = connection.send_all(self.session.take_output()) {
                return Ok(reason);
            }
            self.tell();
            let step = tokio::select! {
                inbound = connection.receive() => match inbound {
                    Inbound::Message(message, permit) => {
                        let result = self.handle(message).await;
                        drop(permit);
                        result
                    }
                    Inbound::Closed(reason) => return Ok(format!("{remote}: {reason}")),
                },
                command = self.commands.recv() => {
                    self.transact(command.ok_or(Abandoned)?);
                    Ok(())
                }
                () = connection::sleep_until(self.session.deadline()) => self.session.tick(Instant::now()),
            };
            if let Err(error) = step {
                // What was understood before is published with the events that follow the end.
                return Ok(format!("{remote}: {error}"));
            }
        }
    }

    async fn handle(&mut self, message: Vec<u8>) -> Result<(), SessionError> {
        if message.len() < LONG_MESSAGE {
            return self.session.handle(&message);
        }
        let mut session =
            std::mem::replace(&mut self.session, Session::new(self.config.session.clone()));
        let work = tokio::task::spawn_blocking(move || {
            let result = session.handle(&message);
            (session, result)
        });
        match work.await {
            Ok((session, result)) => {
                self.session = session;
                result
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down.
            Err(_) => std::future::pending().await,
        }
    }

    fn transact(&mut self, Transact { operations, reply }: Transact) {
        match self.session.transact(operations) {
            Ok(transaction) => drop(self.waiting.insert(transaction, reply)),
            // An error here, and below, says that the caller has stopped waiting.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Passes on what the session has to say.
    fn tell(&mut self) {
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Changed(changes) => self
                    .publisher
                    .publish(self.session.snapshot().clone(), changes),
                Event::Synced => {
                    // Even without changes the schema may be another one.
                    self.publisher
                        .publish(self.session.snapshot().clone(), Vec::new());
                    self.show(|connection| {
                        (connection.state, connection.was_synced) = (State::Synced, true);
                        connection.last_error = None;
                    });
                }
                Event::Ended {
                    transaction,
                    outcome,
                } => {
                    if let Some(reply) = self.waiting.remove(&transaction) {
                        drop(reply.send(Ok(outcome)));
                    }
                }
            }
        }
    }

    /// A connection, or an attempt at one, has ended.
    fn ended(&mut self, reason: &str) {
        let was_synced = self.connection.borrow().state == State::Synced;
        match was_synced {
            true => tracing::warn!(
                database = self.config.session.database,
                reason,
                "lost the database"
            ),
            false => tracing::debug!(
                database = self.config.session.database,
                reason,
                "no database yet"
            ),
        }
        // Before the transactions end, so that who waits for the connection next does not find the old one.
        self.show(|connection| {
            (connection.state, connection.last_error) = (State::Waiting, Some(reason.into()));
        });
        self.session.disconnected(reason);
        self.tell();
    }

    fn show(&self, change: impl FnOnce(&mut Connection)) {
        self.connection.send_modify(change);
    }
}

/// An error with all its causes.
fn in_words(error: &transport::ConnectError) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String does not fail.
        let _ = write!(words, ": {cause}");
        source = cause.source();
    }
    words
}
