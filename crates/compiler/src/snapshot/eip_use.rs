//! Services that take an EIP: which Eip each means, and who is concerned when one changes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ycloud_api::key;

use super::apply::{Owners, insert, remove};
use super::eip::{Backend, asked_address, held_address};
use super::{Event, Object, ObjectRef, Snapshot, age_of};
use crate::desired::service;
use crate::owner::{ObjectKey, Owner};
use crate::validate::permits;

/// Which Eip of its namespace a Service means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// The one of this name.
    Name(String),
    /// The one that holds this address, or asks for it.
    Address(Ipv4Addr),
}

/// What a Service with an EIP asks for: all of it that others look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EipUse {
    pub wish: Wish,
    /// The EipGateway that it asks for, by annotation.
    pub gateway: Option<String>,
    /// Its backends may be in several Vpcs.
    pub several: bool,
    /// The Vpcs of its backends, of those that permit it.
    pub vpcs: BTreeSet<String>,
    /// The Vpcs of its backends that do not permit it, or are not there.
    pub barred: BTreeSet<String>,
    /// Protocol and port.
    pub ports: BTreeSet<(String, i32)>,
    /// Its backends, if they may be in several Vpcs.
    pub backends: BTreeSet<Backend>,
    /// Whole seconds since 1970.
    pub created: i64,
}

/// What an event is about, as far as EIPs go.
pub(super) enum Concern {
    /// These Services may have changed.
    Services(BTreeSet<ObjectKey>),
    /// Permissions or attachments of Services may have changed.
    Permissions,
    /// Addresses of nodes may have changed, or how they are reached.
    Nodes,
    /// The service range may have changed.
    ServiceRange,
    Nothing,
}

impl Snapshot {
    pub(super) fn concern(&self, event: &Event) -> Concern {
        match event {
            Event::Apply(Object::Service(service)) => Concern::Services(
                super::apply::key_of(&service.metadata)
                    .into_iter()
                    .collect(),
            ),
            Event::Delete(ObjectRef::Service(key)) => Concern::Services([key.clone()].into()),
            Event::Apply(Object::EndpointSlice(slice)) => {
                let key = super::apply::key_of(&slice.metadata);
                let before = key.and_then(|key| self.slice_service.get(&key).cloned());
                let after = super::Slice::of(slice).map(|slice| slice.service);
                Concern::Services(before.into_iter().chain(after).collect())
            }
            Event::Delete(ObjectRef::EndpointSlice(key)) => {
                Concern::Services(self.slice_service.get(key).into_iter().cloned().collect())
            }
            Event::Apply(Object::Vpc(_) | Object::Subnet(_) | Object::Namespace(_))
            | Event::Delete(ObjectRef::Vpc(_) | ObjectRef::Subnet(_) | ObjectRef::Namespace(_)) => {
                Concern::Permissions
            }
            Event::Apply(Object::Node(_) | Object::VNic(_))
            | Event::Delete(ObjectRef::Node(_) | ObjectRef::VNic(_)) => Concern::Nodes,
            Event::Apply(Object::ServiceCidr(_)) | Event::Delete(ObjectRef::ServiceCidr(_)) => {
                Concern::ServiceRange
            }
            _ => Concern::Nothing,
        }
    }

    /// Whether a Subnet's range in force, as it is now, has to do with that of an EipGateway.
    fn meets_gateways(&self, subnet: &str) -> bool {
        let network = self.network(subnet);
        self.elastic.verdicts.values().any(|verdict| match verdict {
            Ok(gateway) => {
                let mut ranges = gateway.ranges();
                network.is_some_and(|network| ranges.any(|range| network.meets(range)))
            }
            Err(_) => true,
        })
    }

    /// Whom else an event concerns that concerned `owners` and by which the networks of these Subnets are others.
    pub(super) fn follow(
        &mut self,
        concern: Concern,
        owners: &Owners,
        moved: &BTreeSet<(String, String)>,
    ) -> Owners {
        let mut more = self.follow_concern(concern, owners);
        if moved.iter().any(|(subnet, _)| self.meets_gateways(subnet)) {
            more.extend(self.rejudge());
        }
        more
    }

    fn follow_concern(&mut self, concern: Concern, owners: &Owners) -> Owners {
        match concern {
            Concern::Services(services) => services
                .iter()
                .flat_map(|service| self.follow_service(service))
                .collect(),
            Concern::Permissions => {
                let mut more = Owners::new();
                if owners
                    .iter()
                    .any(|o| matches!(o, Owner::Vpc(_) | Owner::Service(_)))
                {
                    // Which Vpcs they use depends on which permit them.
                    let several: Vec<ObjectKey> = self.elastic.several.iter().cloned().collect();
                    for service in several {
                        more.extend(self.follow_service(&service));
                        let used = self.elastic.uses.get(&service);
                        let mut barred = used.into_iter().flat_map(|used| &used.barred);
                        // What it is told of them may change.
                        if barred.any(|vpc| owners.contains(&Owner::Vpc(vpc.clone()))) {
                            more.extend(self.around_service(&service));
                            more.insert(Owner::Service(service));
                        }
                    }
                }
                let services = owners.iter().filter_map(|owner| match owner {
                    Owner::Service(key) => Some(key),
                    _ => None,
                });
                more.extend(services.flat_map(|service| self.around_service(service)));
                more
            }
            Concern::Nodes if owners.iter().any(|o| matches!(o, Owner::Node(_))) => {
                let mut all = self.around_nodes();
                all.extend(self.rejudge());
                // Backends on nodes are reached at join addresses.
                let several = |owner: &Owner| match owner {
                    Owner::Service(key) => self.elastic.several.contains(key),
                    _ => false,
                };
                if owners.iter().any(several) {
                    all.insert(Owner::Vpc(key::DEFAULT_VPC.to_owned()));
                }
                all
            }
            Concern::ServiceRange if !owners.is_empty() => self.rejudge(),
            Concern::Nodes | Concern::ServiceRange | Concern::Nothing => Owners::new(),
        }
    }

    fn follow_service(&mut self, key: &ObjectKey) -> Owners {
        let new = self.read_use(key);
        if self.elastic.uses.get(key) == new.as_ref() {
            return Owners::new();
        }
        let mut owners = self.around_service(key);
        let old = self.elastic.uses.remove(key);
        if let Some(old) = &old {
            let wish = (key.namespace.clone(), old.wish.clone());
            remove(&mut self.elastic.uses_by_wish, &wish, key);
            for vpc in &old.vpcs {
                remove(&mut self.elastic.uses_of_vpc, vpc, key);
            }
            self.elastic.several.remove(key);
        }
        let none = BTreeSet::new();
        let before = old.as_ref().map_or(&none, |old| &old.backends).clone();
        let after = new.as_ref().map_or(&none, |new| &new.backends).clone();
        if let Some(new) = new {
            let wish = (key.namespace.clone(), new.wish.clone());
            insert(&mut self.elastic.uses_by_wish, &wish, key.clone());
            for vpc in &new.vpcs {
                insert(&mut self.elastic.uses_of_vpc, vpc, key.clone());
            }
            if new.several {
                self.elastic.several.insert(key.clone());
            }
            self.elastic.uses.insert(key.clone(), new);
        }
        owners.extend(self.follow_aliases(key, &before, &after));
        owners.extend(self.around_service(key));
        owners
    }

    /// The backends of a Service over several Vpcs changed; names those whose aliases moved by it.
    fn follow_aliases(
        &mut self,
        service: &ObjectKey,
        before: &BTreeSet<Backend>,
        after: &BTreeSet<Backend>,
    ) -> Owners {
        let mut moved = Vec::new();
        for gone in before.difference(after) {
            remove(&mut self.elastic.alias_users, gone, service);
            if !self.elastic.alias_users.contains_key(gone) {
                moved.extend(self.elastic.aliases.remove(gone));
            }
        }
        for come in after.difference(before) {
            insert(&mut self.elastic.alias_users, come, service.clone());
            moved.extend(self.elastic.aliases.insert(come.clone()));
        }
        let mut owners = Owners::new();
        for backend in moved {
            let users = self.elastic.alias_users.get(&backend).into_iter().flatten();
            owners.extend(users.cloned().map(Owner::Service));
            owners.insert(Owner::Vpc(backend.0));
        }
        owners
    }

    fn read_use(&self, key: &ObjectKey) -> Option<EipUse> {
        let object = self
            .services
            .get(key)
            .filter(|object| service::takes_eip(object))?;
        let several = service::several(object);
        let slices = || self.slices(key).filter(|_| several);
        let permitted = |vpc: &String| {
            let object = self.vpcs.get(vpc);
            object.is_some_and(|vpc| permits(self, vpc, &key.namespace))
        };
        let of = |vpc: &Option<String>| vpc.clone().unwrap_or_else(|| key::DEFAULT_VPC.to_owned());
        let (vpcs, barred) = match several {
            true => slices()
                .map(|slice| of(&slice.vpc))
                .partition(|vpc| permitted(vpc)),
            false => (
                BTreeSet::from([service::vpc(object).to_owned()]),
                BTreeSet::new(),
            ),
        };
        let backends = slices().filter(|slice| permitted(&of(&slice.vpc)));
        let backends = backends.flat_map(|slice| {
            let endpoints = slice.endpoints.iter();
            endpoints.filter_map(move |endpoint| match endpoint.ip {
                IpAddr::V4(ip) => Some((of(&slice.vpc), ip)),
                // EIPs are IPv4, and so is what is behind them.
                IpAddr::V6(_) => None,
            })
        });
        let ports = object
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten());
        let ports = ports.map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (protocol, port.port)
        });
        Some(EipUse {
            wish: service::wish(object),
            gateway: service::asked_gateway(object).map(str::to_owned),
            several,
            vpcs,
            barred,
            ports: ports.collect(),
            backends: backends.collect(),
            created: age_of("", &object.metadata).0,
        })
    }

    pub(crate) fn eip_use(&self, service: &ObjectKey) -> Option<&EipUse> {
        self.elastic.uses.get(service)
    }

    /// The Services with an EIP that have backends in a Vpc.
    pub(crate) fn eip_uses_of(&self, vpc: &str) -> impl Iterator<Item = &ObjectKey> {
        self.elastic.uses_of_vpc.get(vpc).into_iter().flatten()
    }

    /// The Services over several Vpcs.
    pub(crate) fn services_over_several(&self) -> impl Iterator<Item = &ObjectKey> {
        self.elastic.several.iter()
    }

    /// The backends in a Vpc that have an alias, and its slot.
    pub(crate) fn aliases_of(&self, vpc: &str) -> impl Iterator<Item = (Ipv4Addr, u32)> {
        let first = (vpc.to_owned(), Ipv4Addr::UNSPECIFIED);
        let last = (vpc.to_owned(), Ipv4Addr::BROADCAST);
        let all = self.elastic.alias_users.range(first..=last);
        all.filter_map(|(backend, _)| Some((backend.1, self.elastic.aliases.get(backend)?)))
    }

    /// The slot of the alias of a backend.
    pub(crate) fn alias(&self, backend: &Backend) -> Option<u32> {
        self.elastic.aliases.get(backend)
    }

    /// The Eip that a Service means; `None` if there is no such one (yet), or the Service takes none.
    pub fn eip_of_service(&self, service: &ObjectKey) -> Option<ObjectKey> {
        match &self.elastic.uses.get(service)?.wish {
            Wish::Name(name) => {
                let key = ObjectKey::new(service.namespace.clone(), name.clone());
                self.elastic.eips.contains_key(&key).then_some(key)
            }
            Wish::Address(ip) => {
                let here = |eip: &&ObjectKey| eip.namespace == service.namespace;
                let oldest = |all: &mut dyn Iterator<Item = &ObjectKey>| {
                    all.filter(here)
                        .min_by_key(|eip| self.eip_age(eip))
                        .cloned()
                };
                let holder = oldest(&mut self.eips_holding(*ip));
                holder.or_else(|| oldest(&mut self.eips_asking(*ip)))
            }
        }
    }

    /// Order of Eips: by creation time, then by namespace and name.
    pub(crate) fn eip_age(&self, key: &ObjectKey) -> (i64, ObjectKey) {
        let eip = self.elastic.eips.get(key);
        (
            eip.map_or(0, |eip| age_of("", &eip.metadata).0),
            key.clone(),
        )
    }

    /// The Services that may mean an Eip, accepted or not; and the one of its name, for which it could have been made.
    pub(crate) fn services_wishing(&self, eip: &ObjectKey) -> BTreeSet<ObjectKey> {
        let object = self.elastic.eips.get(eip);
        let addresses = object.into_iter().flat_map(|object| {
            held_address(object)
                .into_iter()
                .chain(asked_address(object))
        });
        let wishes = addresses
            .map(Wish::Address)
            .chain([Wish::Name(eip.name.clone())]);
        wishes
            .filter_map(|wish| {
                self.elastic
                    .uses_by_wish
                    .get(&(eip.namespace.clone(), wish))
            })
            .flatten()
            .chain(self.elastic.uses.get_key_value(eip).map(|(key, _)| key))
            .cloned()
            .collect()
    }

    /// An Eip and all whose rows or status depend on it.
    pub(super) fn around_eip(&self, eip: &ObjectKey) -> Owners {
        let mut owners = Owners::from([Owner::Eip(eip.clone())]);
        for service in self.services_wishing(eip) {
            let Some(used) = self.elastic.uses.get(&service) else {
                continue;
            };
            owners.extend(used.vpcs.iter().cloned().map(Owner::Vpc));
            if used.several {
                // Its service gateways have the address.
                owners.extend(self.gateway_owners());
            }
            owners.insert(Owner::Service(service));
        }
        owners
    }

    /// What depends on how a Service uses an EIP.
    pub(super) fn around_service(&self, service: &ObjectKey) -> Owners {
        let Some(used) = self.elastic.uses.get(service) else {
            return Owners::new();
        };
        let mut owners = match self.eip_of_service(service) {
            Some(eip) => self.around_eip(&eip),
            // The one to be made for it.
            None => Owners::from([Owner::Eip(service.clone())]),
        };
        if self.elastic.eips.contains_key(service) {
            // It may have been made for the Service, which means another one now.
            owners.insert(Owner::Eip(service.clone()));
        }
        owners.extend(used.vpcs.iter().cloned().map(Owner::Vpc));
        owners.insert(Owner::Service(service.clone()));
        owners
    }
}
