//! Watches of Kubernetes objects: one stream of changes a kind, correct across re-lists.
//!
//! ```text
//!   API server ══ list, then watch ══► watch task ── Change<K> ──► `deliver` (a bounded channel: back-pressure)
//! ```
//!
//! # Guarantees
//! * Every object that exists was delivered by [`Change::Apply`] before [`Change::Synced`].
//! * A re-list (after a lost connection, or resource version expired) delivers only what differs: objects whose
//!   resource version changed, and deletions of those that are gone. An object that still exists is never deleted on
//!   the way.
//! * A failing watch is retried for ever, with backoff and a log line.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;

use futures::{StreamExt, pin_mut};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use ycloud_api::mirror;
use ycloud_client::Retry;

/// What happened to an object of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<K> {
    /// It exists and reads so.
    Apply(K),
    /// It is gone.
    Delete(Key),
    /// Everything that existed when the watch began was delivered. Comes once.
    Synced,
}

/// Namespace (none for cluster-scoped kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            namespace: object.namespace(),
            name: object.name_any(),
        }
    }
}

/// The receiver of changes is gone: the watch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// Knows which objects were delivered, in which version, so that a re-list delivers only differences.
#[derive(Debug, Default)]
struct Delivered {
    versions: HashMap<Key, Option<String>>,
    /// While a list runs: what it has shown so far.
    listing: Option<HashMap<Key, Option<String>>>,
    synced: bool,
}

impl Delivered {
    /// The changes that `event` means, in order.
    fn changes<K: Resource>(&mut self, event: watcher::Event<K>) -> Vec<Change<K>> {
        match event {
            watcher::Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let key = Key::of(&object);
                let version = object.resource_version();
                let known = self.versions.get(&key) == Some(&version) && version.is_some();
                self.listing
                    .get_or_insert_default()
                    .insert(key.clone(), version.clone());
                if known {
                    return Vec::new();
                }
                self.versions.insert(key, version);
                vec![Change::Apply(object)]
            }
            watcher::Event::InitDone => self.list_done(),
            watcher::Event::Apply(object) => {
                self.versions
                    .insert(Key::of(&object), object.resource_version());
                vec![Change::Apply(object)]
            }
            watcher::Event::Delete(object) => {
                let key = Key::of(&object);
                self.versions.remove(&key);
                vec![Change::Delete(key)]
            }
        }
    }

    fn list_done<K>(&mut self) -> Vec<Change<K>> {
        let listed = self.listing.take().unwrap_or_default();
        let gone = self.versions.keys().filter(|key| !listed.contains_key(key));
        let mut gone: Vec<Key> = gone.cloned().collect();
        gone.sort();
        self.versions = listed;
        let mut changes: Vec<Change<K>> = gone.into_iter().map(Change::Delete).collect();
        if !self.synced {
            self.synced = true;
            changes.push(Change::Synced);
        }
        changes
    }
}

/// Delivers every change of the objects that `api` and `config` select, until `deliver` answers [`Closed`].
///
/// `reduce` runs on every object first: take away what nobody reads, to save memory. What [`mirror::reduce`] takes away is
/// always. `config`: `watcher::Config::default()`, perhaps with selectors; lists are streamed (`WatchList`).
pub async fn watch<K, D, F>(
    api: Api<K>,
    config: watcher::Config,
    reduce: impl Fn(&mut K),
    mut deliver: D,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
    D: FnMut(Change<K>) -> F,
    F: Future<Output = Result<(), Closed>>,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let events = watcher(api, config.streaming_lists()).backoff(Retry::default());
    pin_mut!(events);
    let mut delivered = Delivered::default();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(kind, error, "watch failed; trying again");
                continue;
            }
        };
        let event = event.modify(|object| {
            mirror::reduce(object.meta_mut());
            reduce(object);
        });
        for change in delivered.changes(event) {
            if matches!(change, Change::Synced) {
                tracing::debug!(kind, objects = delivered.versions.len(), "listed");
            }
            if deliver(change).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use watcher::Event;

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some("ns".into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    fn key(name: &str) -> Key {
        Key {
            namespace: Some("ns".into()),
            name: name.into(),
        }
    }

    #[test]
    fn a_relist_delivers_only_what_differs() {
        let mut delivered = Delivered::default();
        let mut all = Vec::new();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
            Event::InitDone,
            Event::Apply(object("c", "2")),
        ] {
            all.extend(delivered.changes(event));
        }
        assert_eq!(
            all,
            [
                Change::Apply(object("a", "1")),
                Change::Apply(object("b", "1")),
                Change::Synced,
                Change::Apply(object("c", "2")),
            ]
        );
        let mut again = Vec::new();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("c", "3")),
            Event::InitDone,
        ] {
            again.extend(delivered.changes(event));
        }
        assert_eq!(
            again,
            [Change::Apply(object("c", "3")), Change::Delete(key("b")),]
        );
    }

    #[test]
    fn a_list_that_is_cut_off_deletes_nothing() {
        let mut delivered = Delivered::default();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
            Event::InitDone,
            // The connection breaks after the first object of a re-list, and the list starts over.
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
        ] {
            delivered.changes(event);
        }
        let changes: Vec<Change<ConfigMap>> = delivered.changes(Event::InitDone);
        assert_eq!(changes, []);
        assert_eq!(delivered.versions.len(), 2);
    }

    #[test]
    fn a_deletion_is_delivered_once() {
        let mut delivered = Delivered::default();
        delivered.changes(Event::Apply(object("a", "1")));
        let changes = delivered.changes(Event::Delete(object("a", "2")));
        assert_eq!(changes, [Change::Delete(key("a"))]);
        delivered.changes::<ConfigMap>(Event::Init);
        assert_eq!(
            delivered.changes::<ConfigMap>(Event::InitDone),
            [Change::Synced]
        );
    }
}
