//! Which VNics must exist, and which addresses they get. Pure: a VNic is the only record of its address
//! (`status.ip`), so that nothing can leak between deciding and writing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ycloud_api::address::{Family, Range};
use ycloud_api::condition::reason;
use ycloud_api::subnet::Addresses;
use ycloud_api::vnic::{Attachment, AttachmentKind};
use ycloud_api::{VNic, VNicSpec, key};

use crate::address::{count, everything, next, previous};
use crate::compile::Rejection;
use crate::eip;
use crate::owner::{ObjectKey, Owner};
use crate::snapshot::{Held, PodFacts, Pool, Snapshot, Source};
use crate::validate;
use crate::validate::network::{Cidr, Network, field};

/// The addresses of a VNic, to be written into its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// One of each of the VNic's families, IPv4 first.
    pub addresses: Vec<Allocated>,
    /// The MAC address, six lower-case hexadecimal pairs.
    pub mac: String,
    /// The Subnet's Vpc.
    pub vpc: String,
}

/// One address of a VNic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length of the Subnet's range: IPv4 8..=30, IPv6 64..=126.
    pub prefix_length: u8,
    /// The router's address on the Subnet.
    pub gateway: IpAddr,
}

impl Allocation {
    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<&Allocated> {
        let mut all = self.addresses.iter();
        all.find(|address| Family::of(address.ip) == family)
    }
}

/// The addresses of a VNic that lacks some ([`Snapshot::lacks_address`]): of each family that its Subnet has, the one that
/// the spec names, else the next free one of the Subnet behind the one that was taken last, passing over addresses that
/// somebody on the same chassis has in another Vpc. Those that it has already stay, with what the Subnet says of them now.
///
/// The snapshot must be told of the result (by applying the VNic with its status) before the next call.
///
/// # Errors
/// No such Subnet or Vpc, not permitted, address taken or outside, addresses exhausted. A VNic never gets a part of what
/// it lacks.
pub fn allocate(snapshot: &Snapshot, vnic: &VNic) -> Result<Allocation, Rejection> {
    let key = ObjectKey::new(
        vnic.metadata.namespace.clone().unwrap_or_default(),
        vnic.metadata.name.clone().unwrap_or_default(),
    );
    let network = validate::vnic::network(snapshot, &key, vnic)?;
    validate::vnic::held(&key, vnic)?;
    let asking = Asking {
        snapshot,
        key: &key,
        vnic,
    };
    let held: Vec<IpAddr> = Held::all(vnic).into_iter().map(|held| held.ip).collect();
    let missing = snapshot.missing(vnic);
    let mut addresses = Vec::new();
    for cidr in network.cidrs() {
        let family = cidr.family();
        let ip = match held.iter().find(|ip| Family::of(**ip) == family) {
            Some(held) => *held,
            None if !missing.contains(&family) => continue,
            None => match asking.fixed(family)? {
                Some(fixed) => asking.fixed_address(cidr, fixed)?,
                None => asking.free_address(cidr)?,
            },
        };
        addresses.push(Allocated {
            ip,
            prefix_length: cidr.range.prefix_len(),
            gateway: cidr.gateway,
        });
    }
    if held.is_empty() {
        asking.no_other_family(network)?;
    }
    let first = addresses.first().map(|address| address.ip);
    let recorded = vnic.status.as_ref().and_then(|status| status.mac.clone());
    let kept = recorded.filter(|_| !held.is_empty());
    let mac = match (&vnic.spec.mac, kept, first) {
        (Some(mac), Some(kept), _) if *mac == kept => kept,
        (Some(mac), ..) => asking.free_mac(network, mac)?,
        (None, Some(kept), _) => kept,
        (None, None, Some(ip)) => asking.own_mac(network, ip),
        (None, None, None) => String::new(),
    };
    Ok(Allocation {
        addresses,
        mac,
        vpc: network.vpc.clone(),
    })
}

/// First byte of the MAC addresses of VNics, see [`derived_mac`].
pub(crate) const PORT_MAC: u8 = 0x0a;
/// First byte of the MAC addresses of routers' ports, see [`derived_mac`].
pub(crate) const ROUTER_MAC: u8 = 0x0e;

/// A locally administered unicast MAC address: `first`, a byte of a hash, four bytes of `ip`, which is the first address
/// of the port.
///
/// IPv4: the hash is of the Vpc's name, so that it is unique within the Vpc, as addresses are; equal in two Vpcs only
/// where their byte is, which does no harm. IPv6: the first byte is another one (02 for 0a, 06 for 0e), the hash is of
/// the Vpc's name and the upper 96 bits of the address, and the lower 32 bits follow: unique among addresses that differ
/// in those alone, as all do that are given out by turns.
pub(crate) fn derived_mac(first: u8, vpc: &str, ip: impl Into<IpAddr>) -> String {
    let (first, text, [a, b, c, d]) = match ip.into() {
        IpAddr::V4(ip) => (first, vpc.to_owned(), ip.octets()),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            let upper = ip.to_bits() >> 32;
            (first & !0x08, format!("{vpc}/{upper:x}"), [a, b, c, d])
        }
    };
    let hash = uuid::Uuid::new_v5(&crate::owner::UUID_NAMESPACE, text.as_bytes());
    let second = hash.as_bytes()[0];
    format!("{first:02x}:{second:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A VNic that is to get addresses.
struct Asking<'a> {
    snapshot: &'a Snapshot,
    key: &'a ObjectKey,
    vnic: &'a VNic,
}

impl Asking<'_> {
    /// The address of a family that the spec names.
    fn fixed(&self, family: Family) -> Result<Option<IpAddr>, Rejection> {
        let (field, text) = match family {
            Family::Ipv4 => ("spec.ip", &self.vnic.spec.ip),
            Family::Ipv6 => ("spec.ipv6", &self.vnic.spec.ipv6),
        };
        let Some(text) = text else {
            return Ok(None);
        };
        let parsed: Option<IpAddr> = text.parse().ok();
        let parsed = parsed.filter(|ip| Family::of(*ip) == family);
        parsed.map(Some).ok_or_else(|| {
            Rejection::new(
                reason::INVALID,
                format!("VNic {}: {field} {text:?} is no {family} address", self.key),
            )
        })
    }

    /// A VNic that names an address of a family which its Subnet has not would never get it.
    fn no_other_family(&self, network: &Network) -> Result<(), Rejection> {
        for family in Family::ALL {
            if let (Some(ip), None) = (self.fixed(family)?, network.cidr(family)) {
                let subnet = &self.vnic.spec.subnet;
                return Err(Rejection::new(
                    reason::ADDRESS_NOT_IN_SUBNET,
                    format!(
                        "VNic {}: address {ip} lies outside Subnet {subnet} ({network}), which has no {family}; leave it \
                         out, or set {} there",
                        self.key,
                        field(family, "cidr")
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Another VNic of the Subnet that has this MAC.
    fn holder_of_mac(&self, mac: &str) -> Option<&ObjectKey> {
        let pool = self.snapshot.pool(&self.vnic.spec.subnet)?;
        let mut holders = pool.holders_of_mac(mac);
        holders.find(|holder| *holder != self.key)
    }

    /// The MAC that the spec names: the Subnet's router and its other VNics have others. Who has theirs would get their packets.
    fn free_mac(&self, network: &Network, mac: &str) -> Result<String, Rejection> {
        let (key, subnet) = (self.key, &self.vnic.spec.subnet);
        let taken = |by: String| {
            Rejection::new(
                reason::ADDRESS_TAKEN,
                format!(
                    "VNic {key}: MAC {mac} is that of {by} in Subnet {subnet}; choose another spec.mac, or leave it out"
                ),
            )
        };
        let mut gateways = network.cidrs().map(|cidr| cidr.gateway);
        if gateways.any(|gateway| derived_mac(ROUTER_MAC, &network.vpc, gateway) == mac) {
            return Err(taken("the router".to_owned()));
        }
        match self.holder_of_mac(mac) {
            Some(holder) => Err(taken(format!("VNic {holder}"))),
            None => Ok(mac.to_owned()),
        }
    }

    /// The MAC of a VNic whose spec names none: where somebody named the one that follows from its address, one that differs in the
    /// first byte.
    fn own_mac(&self, network: &Network, ip: IpAddr) -> String {
        let derived = |n: u8| derived_mac(PORT_MAC | n << 4, &network.vpc, ip);
        let mut all = (0..=0xf).map(derived);
        let free = all.find(|mac| self.holder_of_mac(mac).is_none());
        free.unwrap_or_else(|| derived(0))
    }

    fn fixed_address(&self, cidr: &Cidr, ip: IpAddr) -> Result<IpAddr, Rejection> {
        let (key, subnet) = (self.key, &self.vnic.spec.subnet);
        if let Some(why) = cidr.reserved(ip) {
            return Err(Rejection::new(
                reason::ADDRESS_NOT_IN_SUBNET,
                format!(
                    "VNic {key}: address {ip} {why} Subnet {subnet} ({}); choose another one",
                    cidr.range
                ),
            ));
        }
        let taken = |holder: &ObjectKey, place: String| {
            Rejection::new(
                reason::ADDRESS_TAKEN,
                format!(
                    "VNic {key}: address {ip} is held by VNic {holder} {place}; choose another one or delete that VNic"
                ),
            )
        };
        let pool = self.snapshot.pool(subnet);
        let mut holders = pool.into_iter().flat_map(|pool| pool.holders(ip));
        if let Some(holder) = holders.find(|holder| *holder != key) {
            return Err(taken(holder, format!("in Subnet {subnet}")));
        }
        if let Some(chassis) = shared_chassis(self.vnic)
            && let Some(holder) = self
                .snapshot
                .on_chassis(chassis, ip)
                .find(|holder| *holder != key)
        {
            return Err(taken(
                holder,
                format!("of another Vpc on node {chassis}, where an address names one Pod"),
            ));
        }
        Ok(ip)
    }

    fn free_address(&self, cidr: &Cidr) -> Result<IpAddr, Rejection> {
        let subnet = &self.vnic.spec.subnet;
        let unused = Pool::default();
        let pool = self.snapshot.pool(subnet).unwrap_or(&unused);
        let hosts = cidr.usable();
        let behind = pool.last(cidr.family()).and_then(next);
        let start = behind.filter(|ip| hosts.contains(*ip));
        let start = start.unwrap_or(hosts.first);
        let found = self.search(cidr, pool, start, hosts.last);
        let before_start = || self.search(cidr, pool, hosts.first, previous(start)?);
        found.or_else(before_start).ok_or_else(|| {
            let counts = usage(self.snapshot, subnet, cidr.family()).unwrap_or_default();
            let total = counts.total.unwrap_or(counts.used);
            Rejection::new(
                reason::EXHAUSTED,
                format!(
                    "Subnet {subnet} ({}) has no free address: all {total} are in use; delete VNics or Pods of it, \
                     widen {}, or use another Subnet",
                    cidr.range,
                    field(cidr.family(), "cidr")
                ),
            )
        })
    }

    fn search(&self, cidr: &Cidr, pool: &Pool, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        let chassis = shared_chassis(self.vnic);
        let mut candidate = first;
        loop {
            candidate = pool.free_from(candidate)?;
            if candidate > last {
                return None;
            }
            let elsewhere = chassis.is_some_and(|chassis| {
                let mut there = self.snapshot.on_chassis(chassis, candidate);
                there.next().is_some()
            });
            let skip_to = match cidr.excluded_until(candidate) {
                Some(end) => end,
                None if elsewhere => candidate,
                None => return Some(candidate),
            };
            candidate = next(skip_to)?;
        }
    }
}

/// The chassis on which the address must be unique across Vpcs: that of a Pod, whose node tells Pods apart by address.
fn shared_chassis(vnic: &VNic) -> Option<&str> {
    let attachment = &vnic.spec.attachment;
    (attachment.kind == AttachmentKind::Pod)
        .then_some(attachment.chassis.as_deref())
        .flatten()
}

/// The VNic that must exist under this key because of a Pod or a Node, as it is to be created. `None`: nobody needs
/// it; one with that key and attachment kind Pod or Node is to be deleted. One that exists without an address and with
/// another `spec` is to be made anew.
///
/// # Errors
/// The Pod's annotations are invalid, or the Subnet that it is to be in is missing, refused, or not permitted.
pub fn wanted_vnic(snapshot: &Snapshot, key: &ObjectKey) -> Result<Option<VNic>, Rejection> {
    match snapshot.source(key) {
        Some(Source::Pod(pod)) => match snapshot.pod(pod) {
            Some(pod) => pod_vnic(snapshot, pod),
            None => Ok(None),
        },
        Some(Source::Node(node)) => Ok(node_vnic(snapshot, node)),
        None => Ok(None),
    }
}

/// The VNic that a Pod must have; `None` if it is not scheduled, uses the node's network, or has finished.
///
/// # Errors
/// As [`wanted_vnic`].
pub fn pod_vnic(snapshot: &Snapshot, pod: &PodFacts) -> Result<Option<VNic>, Rejection> {
    if !pod.wants_vnic() {
        return Ok(None);
    }
    let subnet = validate::vnic::subnet_of_pod(snapshot, pod)?;
    let asked = validate::vnic::fixed_of_pod(snapshot, pod, subnet)?;
    let fixed = |family| {
        let mut asked = asked.iter().filter(|ip| Family::of(**ip) == family);
        asked.next().map(IpAddr::to_string)
    };
    let key = pod.vnic_key();
    let vnic = VNic {
        metadata: ObjectMeta {
            namespace: Some(key.namespace),
            name: Some(key.name),
            owner_references: Some(vec![reference("Pod", &pod.key.name, &pod.uid)]),
            ..ObjectMeta::default()
        },
        spec: VNicSpec {
            subnet: subnet.to_owned(),
            ip: fixed(Family::Ipv4),
            ipv6: fixed(Family::Ipv6),
            mac: None,
            attachment: Attachment {
                kind: AttachmentKind::Pod,
                name: Some(pod.key.name.clone()),
                uid: Some(pod.uid.clone()),
                chassis: pod.node.clone(),
                device: None,
            },
        },
        status: None,
    };
    Ok(Some(vnic))
}

/// The VNic on the join switch of a Node, or of a chassis that has no Node (a DPU, a bare-metal server's chassis): there
/// it has no owner reference, and goes with the chassis. `None` if there is neither.
pub fn node_vnic(snapshot: &Snapshot, node: &str) -> Option<VNic> {
    let facts = snapshot.node(node);
    if facts.is_none() && !snapshot.has_chassis(node) {
        return None;
    }
    Some(VNic {
        metadata: ObjectMeta {
            namespace: Some(key::SYSTEM_NAMESPACE.to_owned()),
            name: Some(node.to_owned()),
            owner_references: facts.map(|facts| vec![reference("Node", node, &facts.uid)]),
            ..ObjectMeta::default()
        },
        spec: VNicSpec {
            subnet: key::JOIN_SUBNET.to_owned(),
            ip: None,
            ipv6: None,
            mac: None,
            attachment: Attachment {
                kind: AttachmentKind::Node,
                name: Some(node.to_owned()),
                uid: None,
                chassis: Some(node.to_owned()),
                device: None,
            },
        },
        status: None,
    })
}

fn reference(kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

/// Who uses a Vpc (its Subnets and Services), a Subnet (its VNics that hold an address), an EipGateway (Eips that hold an
/// address of it, Vpcs that name it) or an Eip (Services), as `<Kind> <name>`, sorted. Empty for other owners.
pub fn users(snapshot: &Snapshot, owner: &Owner) -> Vec<String> {
    match owner {
        Owner::Vpc(vpc) => {
            let object = snapshot.vpc(vpc);
            let late = |meta: Option<&ObjectMeta>| {
                let parts = object.zip(meta);
                parts.is_some_and(|(vpc, meta)| validate::vpc::is_late(vpc, meta))
            };
            let subnets = snapshot.subnets_of(vpc).filter(|name| {
                let meta = snapshot.subnet(name).map(|subnet| &subnet.metadata);
                snapshot.network(name).is_some() || !late(meta)
            });
            let subnets = subnets.map(|subnet| format!("Subnet {subnet}"));
            let services = snapshot.services_of(vpc);
            let several = snapshot.eip_uses_of(vpc);
            let several = several
                .filter(|service| snapshot.eip_use(service).is_some_and(|used| used.several));
            // Who may not use it, or came too late, does not hold it.
            let may = |service: &&ObjectKey| {
                let meta = snapshot.service(service).map(|service| &service.metadata);
                object.is_some_and(|vpc| validate::permits(snapshot, vpc, &service.namespace))
                    && !late(meta)
            };
            let services = services.chain(several).filter(may);
            let services = services.map(|service| format!("Service {service}"));
            subnets.chain(services).collect()
        }
        Owner::Subnet(subnet) => {
            let pool = snapshot.pool(subnet).into_iter();
            let held = pool.flat_map(|pool| {
                let all = Family::ALL.into_iter().map(everything);
                all.flat_map(|all| pool.held_in(all))
            });
            let mut seen = BTreeSet::new();
            held.filter(|(_, vnic)| seen.insert(*vnic))
                .map(|(ip, vnic)| format!("VNic {vnic} ({ip})"))
                .collect()
        }
        Owner::EipGateway(_) | Owner::Eip(_) => eip::users(snapshot, owner),
        Owner::VNic(_) | Owner::Node(_) | Owner::Service(_) | Owner::NetworkProbe(_) => Vec::new(),
    }
}

/// The address counts of a Subnet in a family; `None` if there is no such Subnet, it was never accepted, or it has no range
/// of the family.
pub fn usage(snapshot: &Snapshot, subnet: &str, family: Family) -> Option<Addresses> {
    let network = snapshot.network(subnet)?;
    let cidr = network.cidr(family)?;
    let unused = Pool::default();
    let pool = snapshot.pool(subnet).unwrap_or(&unused);
    let hosts = cidr.usable();
    let held = |range: &Range| pool.count_in(*range) as u128;
    let excluded: u128 = cidr.excluded().map(count).sum();
    let held_excluded: u128 = cidr.excluded().map(held).sum();
    let given_out = held(&hosts) - held_excluded;
    let free = (count(&hosts) - excluded).saturating_sub(given_out);
    Some(Addresses::new(held(&everything(family)), free))
}
