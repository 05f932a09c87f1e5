//! NetworkProbes by name and by the YusurServices that want them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::{NetworkProbe, YusurService};
use ycloud_compiler::ObjectKey;

use super::store::{ByNamespace, insert, remove, take};
use crate::watch::Key;

/// Every NetworkProbe, reduced by [`reduce_probe`].
#[derive(Debug, Default)]
pub struct Probes {
    all: ByNamespace<NetworkProbe>,
    /// YusurService → names of the NetworkProbes that name it as an owner.
    of: BTreeMap<ObjectKey, BTreeSet<String>>,
}

impl Probes {
    /// Takes a NetworkProbe in; the YusurServices that it concerns, none if it reads as before.
    pub fn insert(&mut self, mut probe: NetworkProbe) -> BTreeSet<ObjectKey> {
        probe.metadata.resource_version = None;
        let new = probe.clone();
        let (key, former) = insert(&mut self.all, probe);
        match former.as_deref() == Some(&new) {
            true => BTreeSet::new(),
            false => self.index(&key, former.as_deref(), Some(&new)),
        }
    }

    /// Forgets a NetworkProbe; the YusurServices that it concerned.
    pub fn remove(&mut self, key: Key) -> BTreeSet<ObjectKey> {
        let (key, former) = remove(&mut self.all, key);
        self.index(&key, former.as_deref(), None)
    }

    fn index(
        &mut self,
        key: &ObjectKey,
        former: Option<&NetworkProbe>,
        new: Option<&NetworkProbe>,
    ) -> BTreeSet<ObjectKey> {
        let before = former.map(owners).unwrap_or_default();
        let after = new.map(owners).unwrap_or_default();
        for owner in before.difference(&after) {
            take(&mut self.of, owner, &key.name);
        }
        for owner in after.difference(&before) {
            let names = self.of.entry(owner.clone()).or_default();
            names.insert(key.name.clone());
        }
        before.into_iter().chain(after).collect()
    }

    /// Those of a namespace, by name.
    pub fn of_namespace(&self, namespace: &str) -> Option<&BTreeMap<String, Arc<NetworkProbe>>> {
        self.all.get(namespace)
    }

    /// Those that `ysvc` has.
    pub fn owned(&self, ysvc: &YusurService) -> Vec<&NetworkProbe> {
        let meta = &ysvc.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let Some(all) = self.all.get(&namespace) else {
            return Vec::new();
        };
        let key = ObjectKey::new(namespace, meta.name.clone().unwrap_or_default());
        let names = self.of.get(&key).into_iter().flatten();
        let probes = names.filter_map(|name| all.get(name)).map(Arc::as_ref);
        let uid = meta.uid.as_deref().unwrap_or_default();
        probes.filter(|probe| is_of(probe, uid)).collect()
    }
}

/// Whether the YusurService with this UID is an owner.
pub fn is_of(probe: &NetworkProbe, uid: &str) -> bool {
    let mut owners = probe.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.uid == uid)
}

fn owners(probe: &NetworkProbe) -> BTreeSet<ObjectKey> {
    let namespace = probe.metadata.namespace.clone().unwrap_or_default();
    let owners = probe.metadata.owner_references.iter().flatten();
    let ours = owners.filter(|owner| owner.kind == "YusurService");
    ours.map(|owner| ObjectKey::new(namespace.clone(), owner.name.clone()))
        .collect()
}

/// Takes away what nobody here reads of a NetworkProbe, so that a figure that changes concerns nobody.
pub fn reduce_probe(probe: &mut NetworkProbe) {
    let meta = std::mem::take(&mut probe.metadata);
    probe.metadata.name = meta.name;
    probe.metadata.namespace = meta.namespace;
    probe.metadata.uid = meta.uid;
    probe.metadata.resource_version = meta.resource_version;
    probe.metadata.labels = meta.labels;
    probe.metadata.owner_references = meta.owner_references;
    probe.metadata.deletion_timestamp = meta.deletion_timestamp;
    if let Some(status) = &mut probe.status {
        status.prober = None;
        status.source = None;
        // Whether anybody ever asked is of interest, when is not.
        status.reported = status.reported.take().map(|_| Time(Timestamp::UNIX_EPOCH));
        status.round_trip_microseconds = None;
    }
}
