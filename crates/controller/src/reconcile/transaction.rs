//! The transaction of the Northbound database that is under way: at most one.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use ycloud_compiler::Owner;
use ycloud_ovsdb::{Failure, Outcome, TransactError};

use super::Reconciler;
use crate::apply::{Next, Transaction};

/// Shortest and longest wait after a transaction that the database could not take.
pub(super) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(5));

/// After this long without an answer the fate of a transaction counts as unknown.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(60);

/// Ends with those whose rows it changes, and its outcome; `Err`: it was not sent, in words.
pub(super) type InFlight =
    Pin<Box<dyn Future<Output = (Vec<Owner>, Result<Outcome, String>)> + Send>>;

impl Reconciler {
    pub(super) fn send(&mut self, transaction: Transaction) {
        tracing::debug!(
            owners = transaction.owners.len(),
            operations = transaction.operations.len(),
            "transaction"
        );
        let client = self.northbound.clone();
        self.transaction_begun = Instant::now();
        self.transaction = Some(Box::pin(async move {
            let sent = client.transact(transaction.operations);
            let outcome = match tokio::time::timeout(TRANSACTION_LIMIT, sent).await {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(error)) => not_sent(error),
                Err(_) => Ok(Outcome::Indeterminate {
                    reason: format!("no answer within {TRANSACTION_LIMIT:?}"),
                }),
            };
            (transaction.owners, outcome)
        }));
    }

    pub(super) fn on_transaction(&mut self, owners: Vec<Owner>, outcome: Result<Outcome, String>) {
        self.transaction = None;
        let taken = self.transaction_begun.elapsed();
        self.metrics.transaction.observe(taken.as_secs_f64());
        let now = Instant::now();
        match self.state.finished(owners, outcome, now) {
            Next::GoOn => {
                self.backoff = BACKOFF.0;
                self.no_transaction_before = None;
            }
            Next::BackOff => {
                self.no_transaction_before = Some(now + self.backoff);
                self.backoff = (self.backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

/// A transaction that the schema of the server does not allow is refused, as one that the server refuses itself; any
/// other that was not sent is tried again.
fn not_sent(error: ycloud_ovsdb::Error) -> Result<Outcome, String> {
    match error {
        ycloud_ovsdb::Error::Transact(TransactError::Refused(refusal)) => {
            Ok(Outcome::Failed(Failure {
                operation: None,
                error: "not allowed by the server's schema".to_owned(),
                details: refusal.to_string(),
            }))
        }
        other => Err(other.to_string()),
    }
}

/// Waits for the end of the transaction, for ever if there is none.
pub(super) async fn in_flight(
    transaction: &mut Option<InFlight>,
) -> (Vec<Owner>, Result<Outcome, String>) {
    match transaction {
        Some(transaction) => transaction.await,
        None => std::future::pending().await,
    }
}
