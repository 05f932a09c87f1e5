//! The Kubernetes objects that rows follow from, with the indexes that make one object's change cheap.
//!
//! Owned by the reconcile task: events change it between reconciles, compiling borrows it. Pods, Nodes, Namespaces,
//! ServiceCIDRs and EndpointSlices are kept as the few facts that matter; the other kinds whole, but for their managed
//! fields.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::address::Family;
use ycloud_api::{Eip, EipGateway, NetworkProbe, Subnet, VNic, Vpc, key};

use crate::address;
use crate::compile::Rejection;
use crate::owner::{ObjectKey, Owner};
use crate::validate::network::Network;
use crate::validate::subnet::Standing;

mod apply;
mod asked;
mod attach;
mod dead;
mod eip;
mod eip_entry;
mod eip_rest;
mod eip_use;
mod external;
mod facts;
mod machines;
mod pool;
mod probe;
mod slices;

pub use eip::{Chassis, Claim};
pub(crate) use eip::{asked_address, held_address, recorded};
pub(crate) use eip_entry::EipEntry;
pub(crate) use eip_rest::{rest_end, rest_span};
pub(crate) use eip_use::{EipUse, Wish};
pub(crate) use external::external_ips;
pub(crate) use facts::{Endpoint, Slice};
pub use facts::{NodeFacts, PodFacts};
pub(crate) use pool::{Held, Pool};
pub use probe::{Leaving, Prober};

/// What a snapshot is told of the cluster besides its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The range from which ycloud takes its own networks; no other Subnet may overlap it. Default 100.64.0.0/10.
    pub system_cidr: Ipv4Net,
    /// The range of the default Subnet. Default 10.16.0.0/16.
    pub default_subnet_cidr: Ipv4Net,
    /// As `system_cidr`, of IPv6; prefix length at most 64. Default fd00:100:64::/48.
    pub system_ipv6_cidr: Ipv6Net,
    /// The IPv6 range of the default Subnet. With it the join switch has IPv6 too. Default: none, these are IPv4 only.
    pub default_subnet_ipv6_cidr: Option<Ipv6Net>,
    /// MTU of Pods, bytes: what the tunnels carry. Default 1400.
    pub mtu: u32,
    /// Which routers answer packets larger than that. Default [`MtuCheck::Outside`].
    pub mtu_check: MtuCheck,
}

/// Which routers answer a packet that is larger than the tunnels carry with an ICMP error, so that its sender learns the MTU
/// of the path (RFC 1191, RFC 8201), and do not send it on to be lost. Flows with that check stay with Open vSwitch: a
/// card does not take them over, as their other branch leads to ovn-controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MtuCheck {
    /// None.
    Off,
    /// Those of EipGateways, for all but TCP that comes in from the physical network: TCP's segments are as small as the
    /// backend's MTU makes them.
    Outside,
    /// Those of EipGateways for all, and those of Vpcs for what comes from and goes to their Subnets.
    Everywhere,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            system_cidr: Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
            default_subnet_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 16, 0, 0), 16),
            system_ipv6_cidr: Ipv6Net::new_assert(
                Ipv6Addr::new(0xfd00, 0x100, 0x64, 0, 0, 0, 0, 0),
                48,
            ),
            default_subnet_ipv6_cidr: None,
            mtu: 1400,
            mtu_check: MtuCheck::Outside,
        }
    }
}

impl Settings {
    /// The range of the join switch: the first /16 of the system range, or all of it if it is smaller.
    pub fn join_cidr(&self) -> Ipv4Net {
        let length = self.system_cidr.prefix_len().max(16);
        Ipv4Net::new_assert(self.system_cidr.network(), length)
    }

    /// The IPv6 range of the join switch, where it has one: the first /64 of the system range.
    pub fn join_ipv6_cidr(&self) -> Ipv6Net {
        let length = self.system_ipv6_cidr.prefix_len().max(64);
        Ipv6Net::new_assert(self.system_ipv6_cidr.network(), length)
    }

    /// The system range of a family.
    pub fn system_range(&self, family: Family) -> IpNet {
        match family {
            Family::Ipv4 => self.system_cidr.into(),
            Family::Ipv6 => self.system_ipv6_cidr.into(),
        }
    }

    /// The join address of a family that nobody ever gets, the last but one of the range: next hop of the default Vpc's
    /// default route. It exists because a policy's `reroute` runs only if some route matched first (ovn-northd(8),
    /// logical router ingress table "Policy").
    pub fn unused_join_address(&self, family: Family) -> IpAddr {
        let last = match family {
            Family::Ipv4 => IpAddr::V4(self.join_cidr().broadcast()),
            Family::Ipv6 => IpAddr::V6(self.join_ipv6_cidr().broadcast()),
        };
        address::previous(last).unwrap_or(last)
    }
}

/// A change of one object.
#[derive(Debug, Clone)]
pub enum Event {
    /// The object is there, in this form.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectRef),
}

/// An object that a snapshot takes in.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant is the kind that its name says")]
pub enum Object {
    Vpc(Arc<Vpc>),
    Subnet(Arc<Subnet>),
    VNic(Arc<VNic>),
    Node(Arc<Node>),
    Namespace(Arc<Namespace>),
    Pod(Arc<Pod>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    ServiceCidr(Arc<ServiceCIDR>),
    EipGateway(Arc<EipGateway>),
    Eip(Arc<Eip>),
    NetworkProbe(Arc<NetworkProbe>),
    Claim(Claim),
    Chassis(Chassis),
    Prober(Prober),
    Leaving(Leaving),
}

/// Which object is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the kind that its name says")]
pub enum ObjectRef {
    Vpc(String),
    Subnet(String),
    VNic(ObjectKey),
    Node(String),
    Namespace(String),
    Pod(ObjectKey),
    Service(ObjectKey),
    EndpointSlice(ObjectKey),
    ServiceCidr(String),
    EipGateway(String),
    Eip(ObjectKey),
    /// By the name of the group.
    Claim(String),
    Chassis(String),
    NetworkProbe(ObjectKey),
    /// By the name of the chassis.
    Prober(String),
    Leaving(Leaving),
}

/// Why a VNic that nobody made by hand must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Pod(ObjectKey),
    /// A Node, or a chassis without one.
    Node(String),
}

/// The objects and their indexes; see the module's head.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    settings: Settings,
    vpcs: BTreeMap<String, Arc<Vpc>>,
    subnets: BTreeMap<String, Arc<Subnet>>,
    vnics: BTreeMap<ObjectKey, Arc<VNic>>,
    nodes: BTreeMap<String, NodeFacts>,
    /// Labels by namespace.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pods: BTreeMap<ObjectKey, PodFacts>,
    services: BTreeMap<ObjectKey, Arc<Service>>,
    service_cidrs: BTreeMap<String, Vec<IpNet>>,
    /// Slices by Service, then by name.
    slices: BTreeMap<ObjectKey, BTreeMap<String, Slice>>,
    /// The Service that a slice belongs to.
    slice_service: BTreeMap<ObjectKey, ObjectKey>,
    /// Slices by the addresses of their endpoints.
    slices_of_address: slices::SlicesOfAddress,
    /// Services whose cluster address leads only to the client's own node.
    local_services: BTreeSet<ObjectKey>,

    /// Each Subnet's spec, read; or what is wrong with it.
    asked_networks: BTreeMap<String, Result<Network, Rejection>>,
    /// The networks that the statuses of Subnets record as in force.
    recorded_networks: BTreeMap<String, Network>,
    /// What came of each Subnet's spec.
    standings: BTreeMap<String, Standing>,
    /// Subnets whose network in force is another one by the event that is being taken in, and their Vpcs.
    moved: BTreeSet<(String, String)>,
    subnets_of_vpc: BTreeMap<String, BTreeSet<String>>,
    services_of_vpc: BTreeMap<String, BTreeSet<ObjectKey>>,
    vnics_of_subnet: BTreeMap<String, BTreeSet<ObjectKey>>,
    vnics_of_chassis: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// VNics that lack an address, see [`Self::lacking`].
    addressless: BTreeSet<ObjectKey>,
    /// VNics that Pods and Nodes must have.
    wanted: BTreeMap<ObjectKey, Source>,
    /// Of those, the ones that do not exist.
    unattached: BTreeSet<ObjectKey>,
    /// Subnets that name a namespace, oldest first.
    claims: BTreeMap<String, BTreeSet<Age>>,
    /// Addresses by Subnet.
    pools: BTreeMap<String, Pool>,
    /// Addresses by chassis, of all Vpcs.
    chassis_addresses: BTreeMap<String, BTreeMap<IpAddr, BTreeSet<ObjectKey>>>,
    /// Names of the nodes that have the address.
    node_addresses: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Addresses of the API server.
    api_server: BTreeSet<IpAddr>,
    /// Services by their `spec.externalIPs`.
    external: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    elastic: eip::Elastic,
    eip_entry: Option<EipEntry>,
    probing: probe::Probing,
}

/// Order of objects: by creation time (whole seconds since 1970; 0 if unknown), then by name.
pub(crate) type Age = (i64, String);

pub(crate) fn age(subnet: &str, object: &Subnet) -> Age {
    age_of(subnet, &object.metadata)
}

pub(crate) fn age_of(name: &str, meta: &ObjectMeta) -> Age {
    let created = meta.creation_timestamp.as_ref();
    (created.map_or(0, |t| t.0.as_second()), name.to_owned())
}

impl Snapshot {
    /// A snapshot without objects.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Takes in a change and returns the owners to reconcile: those whose rows, address or status may change by it.
    /// For a VNic that a Pod or a Node must have, its owner stands here too, whether it exists or not
    /// ([`crate::wanted_vnic`]).
    ///
    /// A VNic in an older `resourceVersion` than the one held, or in the same one without the address that the held
    /// one has, is not taken: it is an echo from before an allocation.
    pub fn apply(&mut self, event: Event) -> BTreeSet<Owner> {
        let concern = self.concern(&event);
        let before = self.before(&event);
        let mut owners = match event {
            Event::Apply(object) => self.apply_object(object),
            Event::Delete(object) => self.delete_object(object),
        };
        let moved = std::mem::take(&mut self.moved);
        let more = self.follow(concern, &owners, &moved);
        owners.extend(more);
        let more = self.keep_gateways(&owners);
        owners.extend(more);
        let more = self.follow_eip_entry(&owners);
        owners.extend(more);
        owners.extend(self.follow_probes(before, &moved));
        owners
    }

    /// The owners of all objects, of the VNics that Pods, Nodes and chassis must have, and of the Nodes whose chassis live.
    pub fn owners(&self) -> BTreeSet<Owner> {
        let mut owners: BTreeSet<Owner> = BTreeSet::new();
        owners.extend(self.gateway_owners());
        owners.extend(self.vpcs.keys().cloned().map(Owner::Vpc));
        owners.extend(self.subnets.keys().cloned().map(Owner::Subnet));
        owners.extend(self.nodes.keys().cloned().map(Owner::Node));
        owners.extend(self.chassis_names().map(Owner::Node));
        owners.extend(self.vnics.keys().cloned().map(Owner::VNic));
        owners.extend(self.wanted.keys().cloned().map(Owner::VNic));
        owners.extend(self.eips().map(|(key, _)| Owner::Eip(key.clone())));
        owners.extend(self.services.keys().cloned().map(Owner::Service));
        owners.extend(
            self.probes()
                .map(|(key, _)| Owner::NetworkProbe(key.clone())),
        );
        owners.extend(self.chassis_probes().map(Owner::NetworkProbe));
        owners
    }

    /// The owners whose rows may be members of `owner`'s rows, and so wait for them to exist.
    pub fn dependents(&self, owner: &Owner) -> BTreeSet<Owner> {
        let mut owners = BTreeSet::new();
        match owner {
            Owner::Vpc(vpc) => {
                for subnet in self.subnets_of(vpc) {
                    owners.insert(Owner::Subnet(subnet.to_owned()));
                    owners.extend(self.vnics_of(subnet).cloned().map(Owner::VNic));
                }
                owners.extend(self.services_of(vpc).cloned().map(Owner::Service));
                for service in self.eip_uses_of(vpc) {
                    owners.extend(self.around_service(service));
                }
                if vpc == key::DEFAULT_VPC {
                    owners.extend(self.nodes.keys().cloned().map(Owner::Node));
                }
            }
            Owner::Subnet(subnet) => {
                owners.extend(self.vnics_of(subnet).cloned().map(Owner::VNic));
            }
            Owner::Node(node) => {
                let vnics = self.vnics_of_chassis.get(node).into_iter().flatten();
                owners.extend(vnics.cloned().map(Owner::VNic));
            }
            Owner::EipGateway(gateway) => {
                for vpc in self.vpcs.keys() {
                    if self.eip_gateway_of(vpc) == Some(gateway) {
                        owners.insert(Owner::Vpc(vpc.clone()));
                        owners.extend(self.subnets_of(vpc).map(|s| Owner::Subnet(s.to_owned())));
                        for service in self.eip_uses_of(vpc) {
                            owners.extend(self.around_service(service));
                        }
                    }
                }
                for (key, eip) in self.eips() {
                    if self.eip_gateway_of_eip(eip) == Some(gateway) {
                        owners.extend(self.around_eip(key));
                    }
                }
            }
            Owner::VNic(_) | Owner::Eip(_) | Owner::Service(_) | Owner::NetworkProbe(_) => {}
        }
        owners
    }

    /// The settings given to [`Self::new`].
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A Vpc.
    pub fn vpc(&self, name: &str) -> Option<&Arc<Vpc>> {
        self.vpcs.get(name)
    }

    /// A Subnet.
    pub fn subnet(&self, name: &str) -> Option<&Arc<Subnet>> {
        self.subnets.get(name)
    }

    /// A VNic.
    pub fn vnic(&self, key: &ObjectKey) -> Option<&Arc<VNic>> {
        self.vnics.get(key)
    }

    /// A Node.
    pub fn node(&self, name: &str) -> Option<&NodeFacts> {
        self.nodes.get(name)
    }

    /// All Nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeFacts)> {
        self.nodes.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// A Pod.
    pub fn pod(&self, key: &ObjectKey) -> Option<&PodFacts> {
        self.pods.get(key)
    }

    /// The Pod that must have this VNic.
    pub fn pod_of_vnic(&self, vnic: &ObjectKey) -> Option<&PodFacts> {
        match self.wanted.get(vnic)? {
            Source::Pod(pod) => self.pods.get(pod),
            Source::Node(_) => None,
        }
    }

    /// A Service.
    pub fn service(&self, key: &ObjectKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All Services by key.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Service>)> {
        self.services.iter()
    }

    /// The digest of a Service and its EndpointSlices, see [`crate::digest()`]. `None` if there is no such Service.
    pub fn digest(&self, key: &ObjectKey) -> Option<String> {
        let service = self.services.get(key)?;
        Some(crate::digest::of_slices(service, self.slices(key)))
    }

    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// Names of the Subnets that name this Vpc, accepted or not, sorted.
    pub fn subnets_of(&self, vpc: &str) -> impl Iterator<Item = &str> {
        let subnets = self.subnets_of_vpc.get(vpc).into_iter().flatten();
        subnets.map(String::as_str)
    }

    /// Names of the Subnets of this Vpc that are accepted, sorted: `Vpc.status.subnets`.
    pub fn accepted_subnets(&self, vpc: &str) -> Vec<String> {
        let accepted = |subnet: &&str| crate::validate::subnet::check(self, subnet).is_ok();
        self.subnets_of(vpc)
            .filter(accepted)
            .map(str::to_owned)
            .collect()
    }

    /// The VNics of a Subnet, with or without an address.
    pub fn vnics_of(&self, subnet: &str) -> impl Iterator<Item = &ObjectKey> {
        self.vnics_of_subnet.get(subnet).into_iter().flatten()
    }

    /// The Services of a Vpc; those over several Vpcs are of none.
    pub fn services_of(&self, vpc: &str) -> impl Iterator<Item = &ObjectKey> {
        self.services_of_vpc.get(vpc).into_iter().flatten()
    }

    /// Names of all Subnets.
    pub fn subnet_names(&self) -> impl Iterator<Item = &str> {
        self.subnets.keys().map(String::as_str)
    }

    /// Names of all Vpcs.
    pub fn vpc_names(&self) -> impl Iterator<Item = &str> {
        self.vpcs.keys().map(String::as_str)
    }

    /// The service ranges of both families, by the name of the ServiceCIDR.
    pub fn service_cidrs(&self) -> impl Iterator<Item = (&str, IpNet)> {
        let all = self.service_cidrs.iter();
        all.flat_map(|(name, ranges)| ranges.iter().map(|range| (name.as_str(), *range)))
    }

    /// The Subnet in which a Pod of `namespace` lands whose annotation names none.
    pub fn default_subnet(&self, namespace: &str) -> &str {
        let claim = self.claims.get(namespace).and_then(|claims| claims.first());
        claim.map_or(key::DEFAULT_SUBNET, |(_, subnet)| subnet)
    }

    /// The slices of a Service that count for it.
    pub(crate) fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &Slice> + Clone {
        let object = self.services.get(service);
        let all = self.slices.get(service).into_iter();
        all.flat_map(BTreeMap::values)
            .filter(move |slice| object.is_none_or(|object| slice.counts(object)))
    }

    /// Whether neither a Vpc nor a Subnet of it names a namespace, which leaves it closed, unless it is the default one.
    pub fn permits_nobody(&self, vpc: &str) -> bool {
        let nobody = |object: &Arc<Vpc>| {
            let allowed = object.spec.allowed_namespaces.as_ref();
            allowed.is_none_or(|allowed| allowed.names.is_empty() && allowed.selector.is_none())
        };
        let names = |subnet: &str| {
            let subnet = self.subnets.get(subnet);
            subnet.is_some_and(|subnet| !subnet.spec.namespaces.is_empty())
        };
        vpc != key::DEFAULT_VPC
            && self.vpcs.get(vpc).is_some_and(nobody)
            && !self.subnets_of(vpc).any(names)
    }

    /// Whether a Subnet of a Vpc names a namespace.
    pub(crate) fn names_namespace(&self, vpc: &str, namespace: &str) -> bool {
        let claims = self.claims.get(namespace).into_iter().flatten();
        let mut subnets = claims.filter_map(|(_, subnet)| self.subnets.get(subnet));
        subnets.any(|subnet| subnet.spec.vpc == vpc)
    }

    pub(crate) fn source(&self, vnic: &ObjectKey) -> Option<&Source> {
        self.wanted.get(vnic)
    }

    pub(crate) fn pool(&self, subnet: &str) -> Option<&Pool> {
        self.pools.get(subnet)
    }

    /// The network of a Subnet that is in force.
    pub fn network(&self, subnet: &str) -> Option<&Network> {
        self.standings.get(subnet)?.network.as_ref()
    }

    /// The network that the spec of a Subnet asks for, or what is wrong with it.
    pub(crate) fn asked_network(&self, subnet: &str) -> Option<&Result<Network, Rejection>> {
        self.asked_networks.get(subnet)
    }

    /// The network that was in force of a Subnet when its spec was judged last: as its status records it or, where that
    /// is silent or behind what the holders of its addresses were told, as they were.
    pub(crate) fn record(&self, subnet: &str) -> Option<Network> {
        let recorded = self.recorded_networks.get(subnet);
        let Some(pool) = self.pools.get(subnet) else {
            return recorded.cloned();
        };
        let of_holders = || {
            let spec = &self.subnets.get(subnet)?.spec;
            Network::of_holders(&self.settings, subnet, spec, pool)
        };
        let recorded = recorded.filter(|network| network.has_all(pool));
        recorded.cloned().or_else(of_holders)
    }

    pub(crate) fn standing(&self, subnet: &str) -> Option<&Standing> {
        self.standings.get(subnet)
    }

    /// Who has the address on this chassis.
    pub(crate) fn on_chassis(&self, chassis: &str, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let here = self.chassis_addresses.get(chassis);
        here.and_then(|all| all.get(&ip)).into_iter().flatten()
    }
}
