//! VNics by label, by the machine that they are attached to, and by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::vnic::AttachmentKind;
use ycloud_api::{VNic, YusurService};
use ycloud_compiler::ObjectKey;
use ycloud_compiler::endpoint::selects_vnic;

use super::labelled::{Candidates, Labelled};
use super::store::take;
use crate::watch::Key;

/// Every VNic.
#[derive(Debug, Default)]
pub struct VNics {
    all: Labelled<VNic>,
    /// Namespace and machine → names of its VNics.
    by_machine: BTreeMap<(String, String), BTreeSet<String>>,
    /// Namespace and address → names; an address may occur once in each Vpc.
    by_address: BTreeMap<(String, IpAddr), BTreeSet<String>>,
}

impl VNics {
    /// Takes a VNic in; its key, and what it was before.
    pub fn insert(&mut self, vnic: VNic) -> (ObjectKey, Option<Arc<VNic>>) {
        let new = Indices::of(&vnic);
        let (key, former) = self.all.insert(vnic);
        self.index(&key, former.as_deref(), new);
        (key, former)
    }

    /// Forgets a VNic; its key, and what it was.
    pub fn remove(&mut self, key: Key) -> (ObjectKey, Option<Arc<VNic>>) {
        let (key, former) = self.all.remove(key);
        self.index(&key, former.as_deref(), Indices::default());
        (key, former)
    }

    fn index(&mut self, key: &ObjectKey, former: Option<&VNic>, new: Indices) {
        let old = former.map(Indices::of).unwrap_or_default();
        if old == new {
            return;
        }
        let place = |index: String| (key.namespace.clone(), index);
        if let Some(machine) = old.machine {
            take(&mut self.by_machine, &place(machine), &key.name);
        }
        for address in old.addresses {
            let place = (key.namespace.clone(), address);
            take(&mut self.by_address, &place, &key.name);
        }
        if let Some(machine) = new.machine {
            let names = self.by_machine.entry(place(machine)).or_default();
            names.insert(key.name.clone());
        }
        for address in new.addresses {
            let place = (key.namespace.clone(), address);
            let names = self.by_address.entry(place).or_default();
            names.insert(key.name.clone());
        }
    }

    /// A VNic.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<VNic>> {
        self.all.get(namespace, name)
    }

    /// The VNics that `ysvc` selects as machines or addresses, in the order of namespace and name.
    pub fn selected<'a>(
        &'a self,
        ysvc: &'a YusurService,
    ) -> BTreeMap<(&'a str, &'a str), &'a VNic> {
        let own = ysvc.metadata.namespace.as_deref().unwrap_or_default();
        let mut found = BTreeMap::new();
        let backends = ysvc.spec.backends.iter();
        for backend in backends.filter(|backend| backend.kind != BackendKind::Pod) {
            let namespace = backend.namespace.as_deref().unwrap_or(own);
            let candidates = self.candidates(namespace, backend).into_iter();
            let chosen = candidates.filter(|(_, vnic)| selects_vnic(ysvc, vnic));
            found.extend(chosen.map(|(name, vnic)| ((namespace, name), vnic)));
        }
        found
    }

    /// At least the VNics that `backend` means.
    fn candidates(&self, namespace: &str, backend: &Backend) -> Candidates<'_, VNic> {
        if let Some(selector) = &backend.selector {
            return self.all.matching(namespace, selector);
        }
        let none = BTreeSet::new();
        let names = match (&backend.name, &backend.ip) {
            (Some(name), _) if backend.kind == BackendKind::VNicIP => {
                return self.all.named(namespace, [name]);
            }
            (Some(name), _) => {
                let place = (namespace.to_owned(), name.clone());
                self.by_machine.get(&place)
            }
            (None, Some(ip)) => {
                let place = ip.parse().ok().map(|ip| (namespace.to_owned(), ip));
                place.and_then(|place| self.by_address.get(&place))
            }
            (None, None) => None,
        };
        self.all.named(namespace, names.unwrap_or(&none))
    }
}

/// What a VNic is found by, besides name and labels. Those of Pods and nodes are not looked for so.
#[derive(Debug, Default, PartialEq, Eq)]
struct Indices {
    machine: Option<String>,
    addresses: Vec<IpAddr>,
}

impl Indices {
    fn of(vnic: &VNic) -> Self {
        let attachment = &vnic.spec.attachment;
        let machine = match attachment.kind {
            AttachmentKind::Pod | AttachmentKind::Node => return Self::default(),
            AttachmentKind::VM | AttachmentKind::BM => attachment.name.clone(),
            AttachmentKind::None => None,
        };
        let links = vnic.status.iter().flat_map(|status| status.links());
        Self {
            machine,
            addresses: links.filter_map(|link| link.ip.parse().ok()).collect(),
        }
    }
}
