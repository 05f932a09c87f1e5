//! Who publishes snapshots and changes, and who reads them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::replica::{Change, Snapshot};

/// Updates that a subscriber may lag behind before it is told to start over.
const BACKLOG: usize = 1024;

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Start over from this snapshot; the changes that follow are those after it. This is also the first event.
    Resync(Arc<Snapshot>),
    /// What one update changed. Changes of a row come in order: the `old` of one is the `new` of the one before.
    Delta(Arc<[Change]>),
}

/// The published replica.
#[derive(Debug)]
pub(super) struct Publisher {
    snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot and its changes are published, so that a subscriber starts between two of them.
    changes: Mutex<broadcast::Sender<Arc<[Change]>>>,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Publisher {
            snapshot: ArcSwap::default(),
            changes: Mutex::new(broadcast::Sender::new(BACKLOG)),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Publishes a snapshot, and what changed if anything did.
    pub(super) fn publish(&self, snapshot: Snapshot, changes: Vec<Change>) {
        let sender = self.lock();
        self.snapshot.store(Arc::new(snapshot));
        if !changes.is_empty() {
            // An error says that no one is subscribed.
            drop(sender.send(changes.into()));
        }
    }

    fn start(&self) -> (Arc<Snapshot>, broadcast::Receiver<Arc<[Change]>>) {
        let sender = self.lock();
        (self.snapshot(), sender.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, broadcast::Sender<Arc<[Change]>>> {
        // What it guards is whole at any time.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of a replica, in order, without a gap that is not told.
///
/// # Guarantees
/// Applying the changes to the snapshot of the last [`Event::Resync`] gives each later snapshot in turn. A subscriber that lags by
/// more than 1024 updates gets a `Resync` instead of what it missed; it is never waited for.
#[derive(Debug)]
pub struct Subscription {
    publisher: Arc<Publisher>,
    start: Option<Arc<Snapshot>>,
    changes: broadcast::Receiver<Arc<[Change]>>,
}

impl Subscription {
    pub(super) fn new(publisher: Arc<Publisher>) -> Self {
        let (snapshot, changes) = publisher.start();
        Subscription {
            publisher,
            start: Some(snapshot),
            changes,
        }
    }

    /// Waits for the next event. Cancel safe: an event that was not returned comes with the next call.
    pub async fn next(&mut self) -> Event {
        if let Some(snapshot) = self.start.take() {
            return Event::Resync(snapshot);
        }
        match self.changes.recv().await {
            Ok(changes) => Event::Delta(changes),
            Err(RecvError::Lagged(_)) => {
                let (snapshot, changes) = self.publisher.start();
                self.changes = changes;
                Event::Resync(snapshot)
            }
            // The publisher, which this subscription holds, has the sender.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn change(id: u128) -> Vec<Change> {
        vec![Change {
            table: "T".into(),
            uuid: Uuid::from_u128(id),
            old: None,
            new: None,
        }]
    }

    #[tokio::test]
    async fn who_lags_starts_over_and_misses_nothing_silently() {
        let publisher = Arc::new(Publisher::new());
        let mut subscription = Subscription::new(publisher.clone());
        assert!(matches!(subscription.next().await, Event::Resync(_)));
        publisher.publish(Snapshot::default(), change(1));
        assert!(
            matches!(subscription.next().await, Event::Delta(changes) if changes[0].uuid == Uuid::from_u128(1))
        );
        for id in 0..=BACKLOG as u128 {
            publisher.publish(Snapshot::default(), change(id));
        }
        let Event::Resync(snapshot) = subscription.next().await else {
            panic!("it was not told")
        };
        assert!(Arc::ptr_eq(&snapshot, &publisher.snapshot()));
        publisher.publish(Snapshot::default(), change(9));
        assert!(
            matches!(subscription.next().await, Event::Delta(changes) if changes[0].uuid == Uuid::from_u128(9))
        );
    }
}
