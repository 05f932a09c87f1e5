//! Which VNics must exist, and which addresses they get. Pure: a VNic is the only record of its address
//! (`status.ip`), so that nothing can leak between deciding and writing.

use std::net::Ipv4Addr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ycloud_api::condition::reason;
use ycloud_api::subnet::Addresses;
use ycloud_api::vnic::{Attachment, AttachmentKind};
use ycloud_api::{VNic, VNicSpec, key};

use crate::compile::Rejection;
use crate::eip;
use crate::owner::{ObjectKey, Owner};
use crate::snapshot::{PodFacts, Pool, Snapshot, Source};
use crate::validate;
use crate::validate::subnet::Network;

/// An address for a VNic, to be written into its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub ip: Ipv4Addr,
    /// Prefix length of the Subnet, 8..=30.
    pub prefix_length: u8,
    /// The router's address on the Subnet.
    pub gateway: Ipv4Addr,
    /// The MAC address, six lower-case hexadecimal pairs.
    pub mac: String,
    /// The Subnet's Vpc.
    pub vpc: String,
}

/// An address for a VNic that has none: `spec.ip` if it names one, else the next free one of the Subnet behind the one
/// that was taken last, passing over addresses that somebody on the same chassis has in another Vpc. Of a VNic that
/// has one already: that one, with what the Subnet says of it now.
///
/// The snapshot must be told of the result (by applying the VNic with its status) before the next call.
///
/// # Errors
/// No such Subnet or Vpc, not permitted, address taken or outside, addresses exhausted.
pub fn allocate(snapshot: &Snapshot, vnic: &VNic) -> Result<Allocation, Rejection> {
    let key = ObjectKey::new(
        vnic.metadata.namespace.clone().unwrap_or_default(),
        vnic.metadata.name.clone().unwrap_or_default(),
    );
    let network = validate::vnic::network(snapshot, &key, vnic)?;
    let held = vnic.status.as_ref().and_then(|status| status.ip.as_deref());
    let ip = match (held, &vnic.spec.ip) {
        (Some(held), _) => held.parse().map_err(|_| {
            Rejection::new(
                reason::INVALID,
                format!("VNic {key}: status.ip {held:?} is no IPv4 address; delete the VNic and make it anew"),
            )
        })?,
        (None, Some(fixed)) => fixed_address(snapshot, &key, vnic, &network, fixed)?,
        (None, None) => free_address(snapshot, vnic, &network)?,
    };
    let mac = match &vnic.spec.mac {
        Some(mac) => mac.clone(),
        None => derived_mac(0x0a, &network.vpc, ip),
    };
    Ok(Allocation {
        ip,
        prefix_length: network.cidr.prefix_len(),
        gateway: network.gateway,
        mac,
        vpc: network.vpc,
    })
}

/// A locally administered unicast MAC address: `first`, a byte of the Vpc's name, the four bytes of `ip`. Unique within
/// the Vpc, as addresses are; equal in two Vpcs only where their byte is, which does no harm.
pub(crate) fn derived_mac(first: u8, vpc: &str, ip: Ipv4Addr) -> String {
    let name = uuid::Uuid::new_v5(&crate::owner::UUID_NAMESPACE, vpc.as_bytes());
    let [a, b, c, d] = ip.octets();
    let second = name.as_bytes()[0];
    format!("{first:02x}:{second:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn fixed_address(
    snapshot: &Snapshot,
    key: &ObjectKey,
    vnic: &VNic,
    network: &Network,
    fixed: &str,
) -> Result<Ipv4Addr, Rejection> {
    let subnet = &vnic.spec.subnet;
    let ip: Ipv4Addr = fixed.parse().map_err(|_| {
        Rejection::new(
            reason::INVALID,
            format!("VNic {key}: spec.ip {fixed:?} is no IPv4 address"),
        )
    })?;
    if let Some(why) = network.reserved(ip) {
        return Err(Rejection::new(
            reason::ADDRESS_NOT_IN_SUBNET,
            format!(
                "VNic {key}: address {ip} {why} Subnet {subnet} ({}); choose another one",
                network.cidr
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
    let pool = snapshot.pool(subnet);
    let mut holders = pool.into_iter().flat_map(|pool| pool.holders(ip));
    if let Some(holder) = holders.find(|holder| *holder != key) {
        return Err(taken(holder, format!("in Subnet {subnet}")));
    }
    if let Some(chassis) = shared_chassis(vnic)
        && let Some(holder) = snapshot
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

fn free_address(
    snapshot: &Snapshot,
    vnic: &VNic,
    network: &Network,
) -> Result<Ipv4Addr, Rejection> {
    let subnet = &vnic.spec.subnet;
    let unused = Pool::default();
    let pool = snapshot.pool(subnet).unwrap_or(&unused);
    let (first, last) = network.usable();
    let behind = pool
        .last()
        .and_then(|ip| ip.to_bits().checked_add(1))
        .map(Ipv4Addr::from_bits);
    let start = behind
        .filter(|ip| first <= *ip && *ip <= last)
        .unwrap_or(first);
    let found = search(snapshot, vnic, network, pool, start, last);
    let before_start = || {
        let end = start.to_bits().checked_sub(1).map(Ipv4Addr::from_bits)?;
        search(snapshot, vnic, network, pool, first, end)
    };
    found.or_else(before_start).ok_or_else(|| {
        let total = usage(snapshot, subnet).total;
        Rejection::new(
            reason::EXHAUSTED,
            format!(
                "Subnet {subnet} ({}) has no free address: all {total} are in use; delete VNics or Pods of it, \
                 widen spec.cidr, or use another Subnet",
                network.cidr
            ),
        )
    })
}

fn search(
    snapshot: &Snapshot,
    vnic: &VNic,
    network: &Network,
    pool: &Pool,
    first: Ipv4Addr,
    last: Ipv4Addr,
) -> Option<Ipv4Addr> {
    let chassis = shared_chassis(vnic);
    let mut candidate = first;
    loop {
        candidate = pool.free_from(candidate)?;
        if candidate > last {
            return None;
        }
        let elsewhere =
            chassis.is_some_and(|chassis| snapshot.on_chassis(chassis, candidate).next().is_some());
        let skip_to = match network.excluded_until(candidate) {
            Some(end) => end,
            None if elsewhere => candidate,
            None => return Some(candidate),
        };
        candidate = Ipv4Addr::from_bits(skip_to.to_bits().checked_add(1)?);
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
            ip: pod.ip.clone(),
            ipv6: None,
            mac: None,
            attachment: Attachment {
                kind: AttachmentKind::Pod,
                name: Some(pod.key.name.clone()),
                uid: Some(pod.uid.clone()),
                chassis: pod.node.clone(),
            },
        },
        status: None,
    };
    Ok(Some(vnic))
}

/// The VNic of a Node on the join switch; `None` if there is no such Node.
pub fn node_vnic(snapshot: &Snapshot, node: &str) -> Option<VNic> {
    let facts = snapshot.node(node)?;
    Some(VNic {
        metadata: ObjectMeta {
            namespace: Some(key::SYSTEM_NAMESPACE.to_owned()),
            name: Some(node.to_owned()),
            owner_references: Some(vec![reference("Node", node, &facts.uid)]),
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
/// address of it, Vpcs that name it) or an Eip (Services, unless it was made for one), as `<Kind> <name>`, sorted. Empty
/// for other owners.
pub fn users(snapshot: &Snapshot, owner: &Owner) -> Vec<String> {
    match owner {
        Owner::Vpc(vpc) => {
            let subnets = snapshot
                .subnets_of(vpc)
                .map(|subnet| format!("Subnet {subnet}"));
            let services = snapshot
                .services_of(vpc)
                .map(|service| format!("Service {service}"));
            let several = snapshot.eip_uses_of(vpc);
            let several = several
                .filter(|service| snapshot.eip_use(service).is_some_and(|used| used.several));
            let several = several.map(|service| format!("Service {service}"));
            subnets.chain(services).chain(several).collect()
        }
        Owner::Subnet(subnet) => {
            let everything = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
            let pool = snapshot.pool(subnet).into_iter();
            let held = pool.flat_map(|pool| pool.held_within(everything.0, everything.1));
            held.map(|(ip, vnic)| format!("VNic {vnic} ({ip})"))
                .collect()
        }
        Owner::EipGateway(_) | Owner::Eip(_) => eip::users(snapshot, owner),
        Owner::VNic(_) | Owner::Node(_) | Owner::Service(_) => Vec::new(),
    }
}

/// The address counts of a Subnet; all zero if there is no such Subnet or its spec is invalid.
pub fn usage(snapshot: &Snapshot, subnet: &str) -> Addresses {
    let Some(Ok(network)) = snapshot.network(subnet) else {
        return Addresses::default();
    };
    let unused = Pool::default();
    let pool = snapshot.pool(subnet).unwrap_or(&unused);
    let (first, last) = network.usable();
    let size = i64::from(last.to_bits()) - i64::from(first.to_bits()) + 1;
    let excluded: i64 = network
        .excluded()
        .map(|(first, last)| i64::from(last.to_bits()) - i64::from(first.to_bits()) + 1)
        .sum();
    let distinct = |first, last| {
        let mut held: Vec<Ipv4Addr> = pool.held_within(first, last).map(|(ip, _)| ip).collect();
        held.dedup();
        held.len() as i64
    };
    let held_excluded: i64 = network
        .excluded()
        .map(|(first, last)| distinct(first, last))
        .sum();
    let used = pool.held() as i64;
    let free = (size - excluded - (distinct(first, last) - held_excluded)).max(0);
    Addresses {
        total: used + free,
        used,
        free,
    }
}
