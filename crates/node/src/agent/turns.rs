//! Whose turn it is: per container one request after the other, different containers at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

type Containers = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// Hands out turns. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    containers: Containers,
    /// Read by who has a turn, written by who needs that nobody has.
    all: Arc<RwLock<()>>,
}

/// A container's turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    container: String,
    containers: Containers,
    guard: Option<OwnedMutexGuard<()>>,
    _some: OwnedRwLockReadGuard<()>,
}

impl Turns {
    /// Waits for the container's turn.
    pub async fn take(&self, container: &str) -> Turn {
        let some = self.all.clone().read_owned().await;
        let guard = self.of(container).lock_owned().await;
        self.turn(container, guard, some)
    }

    /// The container's turn, if nobody has it.
    pub fn try_take(&self, container: &str) -> Option<Turn> {
        let some = self.all.clone().try_read_owned().ok()?;
        let guard = self.of(container).try_lock_owned().ok()?;
        Some(self.turn(container, guard, some))
    }

    /// Everybody's turn, if nobody has any; new ones wait until it ends.
    pub fn try_take_all(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        self.all.clone().try_write_owned().ok()
    }

    fn of(&self, container: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        containers.entry(container.to_owned()).or_default().clone()
    }

    fn turn(
        &self,
        container: &str,
        guard: OwnedMutexGuard<()>,
        some: OwnedRwLockReadGuard<()>,
    ) -> Turn {
        Turn {
            container: container.to_owned(),
            containers: self.containers.clone(),
            guard: Some(guard),
            _some: some,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The map's own reference is the last one: nobody waits.
        let unused = |mutex: &Arc<_>| Arc::strong_count(mutex) == 1;
        if containers.get(&self.container).is_some_and(unused) {
            containers.remove(&self.container);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_per_container_and_nothing_is_kept() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(turns.try_take("a").is_none());
        assert!(turns.try_take("b").is_some());
        assert!(turns.try_take_all().is_none());
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("a").await }
        });
        tokio::task::yield_now().await;
        drop(first);
        drop(waiting.await.unwrap());
        assert!(turns.containers.lock().unwrap().is_empty());
        let all = turns.try_take_all();
        assert!(all.is_some() && turns.try_take("a").is_none());
    }
}
