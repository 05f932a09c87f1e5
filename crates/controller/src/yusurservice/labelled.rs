//! Objects of one kind by name and by label, so that a selector finds its own without looking at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use ycloud_compiler::ObjectKey;

use super::store::{ByNamespace, insert, remove};
use crate::watch::Key;

/// Label and value.
type Label = (String, String);

/// Names and objects.
pub type Candidates<'a, T> = Vec<(&'a str, &'a T)>;

/// Objects of one kind, by namespace, name and label.
#[derive(Debug)]
pub struct Labelled<T> {
    all: ByNamespace<T>,
    /// Namespace → label → names.
    by_label: BTreeMap<String, BTreeMap<Label, BTreeSet<String>>>,
}

impl<T> Default for Labelled<T> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            by_label: BTreeMap::new(),
        }
    }
}

impl<T: ResourceExt> Labelled<T> {
    /// Takes an object in; its key, and what it was before.
    pub fn insert(&mut self, object: T) -> (ObjectKey, Option<Arc<T>>) {
        let labels = object.meta().labels.clone();
        let (key, former) = insert(&mut self.all, object);
        let before = former.as_ref().map(|object| &object.meta().labels);
        if before != Some(&labels) {
            self.unlabel(&key, former.as_deref());
            for label in labels.into_iter().flatten() {
                let of = self.by_label.entry(key.namespace.clone()).or_default();
                of.entry(label).or_default().insert(key.name.clone());
            }
        }
        (key, former)
    }

    /// Forgets an object; its key, and what it was.
    pub fn remove(&mut self, key: Key) -> (ObjectKey, Option<Arc<T>>) {
        let (key, former) = remove(&mut self.all, key);
        self.unlabel(&key, former.as_deref());
        (key, former)
    }

    fn unlabel(&mut self, key: &ObjectKey, former: Option<&T>) {
        let Some(of) = self.by_label.get_mut(&key.namespace) else {
            return;
        };
        let labels = former.and_then(|object| object.meta().labels.clone());
        for label in labels.into_iter().flatten() {
            if let Some(names) = of.get_mut(&label) {
                names.remove(&key.name);
                if names.is_empty() {
                    of.remove(&label);
                }
            }
        }
        if of.is_empty() {
            self.by_label.remove(&key.namespace);
        }
    }

    /// An object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.all.get(namespace)?.get(name)
    }

    /// The objects with these names, as far as they exist.
    pub fn named<'a, 'n>(
        &'a self,
        namespace: &str,
        names: impl IntoIterator<Item = &'n String>,
    ) -> Candidates<'a, T> {
        let Some(all) = self.all.get(namespace) else {
            return Candidates::new();
        };
        let names = names.into_iter();
        let objects = names.filter_map(|name| all.get_key_value(name));
        objects
            .map(|(name, object)| (name.as_str(), object.as_ref()))
            .collect()
    }

    /// At least the objects that `selector` matches.
    pub fn matching(&self, namespace: &str, selector: &LabelSelector) -> Candidates<'_, T> {
        let labels = selector.match_labels.as_ref();
        match labels.filter(|labels| !labels.is_empty()) {
            Some(labels) => self.labelled(namespace, labels),
            None => {
                let all = self.all.get(namespace).into_iter().flatten();
                all.map(|(name, object)| (name.as_str(), object.as_ref()))
                    .collect()
            }
        }
    }

    /// The objects with that one of `labels` which the fewest have.
    pub fn labelled(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Candidates<'_, T> {
        let Some(by_label) = self.by_label.get(namespace) else {
            return Candidates::new();
        };
        let sets = labels.iter().map(|(name, value)| {
            let label = (name.clone(), value.clone());
            by_label.get(&label)
        });
        match sets.min_by_key(|names| names.map_or(0, BTreeSet::len)) {
            Some(Some(fewest)) => self.named(namespace, fewest),
            _ => Candidates::new(),
        }
    }
}
