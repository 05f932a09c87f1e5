//! VNics, and the Pods that need one: Subnet, Vpc, permission, address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::address::Family;
use ycloud_api::condition::reason;
use ycloud_api::vnic::AttachmentKind;
use ycloud_api::{VNic, key};

use crate::compile::Rejection;
use crate::ipam::{PORT_MAC, derived_mac};
use crate::owner::ObjectKey;
use crate::snapshot::{PodFacts, Snapshot};
use crate::validate::network::Network;
use crate::validate::{permits, subnet, vpc};

/// What a VNic's port must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `status.ip` and `status.ipv6.ip`, of those that it holds; at least one.
    pub ips: Vec<IpAddr>,
    /// `status.mac`.
    pub mac: String,
    /// The Vpc.
    pub vpc: String,
    /// The node whose port group the port is in: Pods of the default Vpc, if there is such a Node.
    pub egress_node: Option<String>,
}

/// The address of a VNic; `None` while it has none.
///
/// # Errors
/// Its Subnet or Vpc is missing or refused, the namespace is not permitted, or an older holder has the same address.
pub fn check(
    snapshot: &Snapshot,
    key: &ObjectKey,
    vnic: &VNic,
) -> Result<Option<Address>, Rejection> {
    let network = subnet::check(snapshot, &vnic.spec.subnet);
    let network = network.map_err(|rejection| subnet_refused(key, rejection))?;
    let vpc = network.vpc.clone();
    permitted(snapshot, &format!("VNic {key}"), vnic, &vpc, &key.namespace)?;
    let status = vnic.status.as_ref();
    let ips = held(key, vnic)?;
    let Some(first) = ips.first().copied() else {
        return Ok(None);
    };
    for ip in &ips {
        first_holder(snapshot, key, vnic, *ip)?;
    }
    let mac = status.and_then(|status| status.mac.clone());
    let node = vnic.spec.attachment.chassis.as_deref();
    let node = node.filter(|node| {
        vpc == key::DEFAULT_VPC
            && vnic.spec.attachment.kind == AttachmentKind::Pod
            && snapshot.node(node).is_some()
    });
    Ok(Some(Address {
        ips,
        mac: mac.unwrap_or_else(|| derived_mac(PORT_MAC, &vpc, first)),
        egress_node: node.map(str::to_owned),
        vpc,
    }))
}

/// The network in which a VNic may be given an address.
///
/// # Errors
/// As [`check`], and if the Subnet is refused, or it or its Vpc is being deleted.
pub fn network<'a>(
    snapshot: &'a Snapshot,
    key: &ObjectKey,
    vnic: &VNic,
) -> Result<&'a Network, Rejection> {
    let name = &vnic.spec.subnet;
    let network =
        subnet::check(snapshot, name).map_err(|rejection| subnet_refused(key, rejection))?;
    permitted(
        snapshot,
        &format!("VNic {key}"),
        vnic,
        &network.vpc,
        &key.namespace,
    )?;
    let leaves = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
    if snapshot
        .subnet(name)
        .is_some_and(|subnet| leaves(&subnet.metadata))
    {
        return Err(Rejection::new(
            reason::DELETING,
            format!(
                "VNic {key}: Subnet {name} is being deleted and takes no newcomers; use another Subnet"
            ),
        ));
    }
    if snapshot
        .vpc(&network.vpc)
        .is_some_and(|vpc| leaves(&vpc.metadata) && network.vpc != key::DEFAULT_VPC)
    {
        return Err(vpc::leaving(&network.vpc, &format!("VNic {key}")));
    }
    Ok(network)
}

/// The Subnet that a Pod lands in: its annotation, else the Subnet that names its namespace, else the default one.
///
/// # Errors
/// An invalid annotation, or a Subnet that is missing, refused or not permitted.
pub fn subnet_of_pod<'a>(snapshot: &'a Snapshot, pod: &'a PodFacts) -> Result<&'a str, Rejection> {
    let name = match &pod.subnet {
        Some(name) => name,
        None => snapshot.default_subnet(&pod.key.namespace),
    };
    let source = match &pod.subnet {
        Some(_) => format!("annotation {}", key::SUBNET),
        None => "by default".to_owned(),
    };
    let network = subnet::check(snapshot, name).map_err(|rejection| {
        Rejection::new(
            rejection.reason,
            format!(
                "Pod {} is to be in Subnet {name} ({source}): {}",
                pod.key, rejection.message
            ),
        )
    })?;
    if is_join(name, &network.vpc) {
        return Err(join_refused(&format!("Pod {} ({source})", pod.key)));
    }
    let vpc = snapshot.vpc(&network.vpc);
    if !vpc.is_some_and(|vpc| permits(snapshot, vpc, &pod.key.namespace)) {
        return Err(not_permitted(
            &format!("Pod {} (Subnet {name}, {source})", pod.key),
            &network.vpc,
            &pod.key.namespace,
        ));
    }
    Ok(name)
}

/// The addresses that a Pod's annotation asks for: none, one, or one of each family.
///
/// # Errors
/// The annotation is something else.
pub fn fixed_of_pod(
    snapshot: &Snapshot,
    pod: &PodFacts,
    subnet: &str,
) -> Result<Vec<IpAddr>, Rejection> {
    let Some(text) = &pod.ip else {
        return Ok(Vec::new());
    };
    let parsed: Result<Vec<IpAddr>, _> = text.split(',').map(|ip| ip.trim().parse()).collect();
    let families = |ips: &[IpAddr]| {
        ips.iter()
            .map(|ip| Family::of(*ip))
            .collect::<BTreeSet<_>>()
    };
    let distinct = |ips: &Vec<IpAddr>| families(ips).len() == ips.len();
    parsed.ok().filter(distinct).ok_or_else(|| {
        let network = snapshot.network(subnet);
        let ranges = network.map(|network| format!(" ({network})"));
        Rejection::new(
            reason::INVALID,
            format!(
                "Pod {}: annotation {} {text:?} is no address; write one of Subnet {subnet}{}, or one of each family with \
                 a comma between",
                pod.key,
                key::IP,
                ranges.unwrap_or_default()
            ),
        )
    })
}

/// The addresses in a VNic's status, IPv4 first.
///
/// # Errors
/// One is none, which comes about only if somebody writes a status by hand.
pub(crate) fn held(key: &ObjectKey, vnic: &VNic) -> Result<Vec<IpAddr>, Rejection> {
    let links = vnic.status.iter().flat_map(|status| status.links());
    let fields = links.map(|link| {
        link.ip.parse().map_err(|_| {
            Rejection::new(
                reason::INVALID,
                format!(
                    "VNic {key}: {:?} in its status is no address; delete the VNic and make it anew",
                    link.ip
                ),
            )
        })
    });
    fields.collect()
}

fn subnet_refused(key: &ObjectKey, rejection: Rejection) -> Rejection {
    Rejection::new(
        rejection.reason,
        format!("VNic {key}: spec.subnet: {}", rejection.message),
    )
}

/// Whether a Subnet is the join network, which is the nodes' own.
fn is_join(subnet: &str, vpc: &str) -> bool {
    subnet == key::JOIN_SUBNET && vpc == key::DEFAULT_VPC
}

fn join_refused(who: &str) -> Rejection {
    Rejection::new(
        reason::NOT_PERMITTED,
        format!(
            "{who}: Subnet {} joins the nodes to the network and permits nobody else; use another Subnet, such as {}",
            key::JOIN_SUBNET,
            key::DEFAULT_SUBNET
        ),
    )
}

/// The VNics of nodes are ycloud's own, and need no permission.
fn permitted(
    snapshot: &Snapshot,
    who: &str,
    vnic: &VNic,
    vpc: &str,
    namespace: &str,
) -> Result<(), Rejection> {
    let own =
        vnic.spec.attachment.kind == AttachmentKind::Node && namespace == key::SYSTEM_NAMESPACE;
    if !own && is_join(&vnic.spec.subnet, vpc) {
        return Err(join_refused(who));
    }
    if own
        || snapshot
            .vpc(vpc)
            .is_some_and(|vpc| permits(snapshot, vpc, namespace))
    {
        return Ok(());
    }
    Err(not_permitted(who, vpc, namespace))
}

fn not_permitted(who: &str, vpc: &str, namespace: &str) -> Rejection {
    Rejection::new(
        reason::NOT_PERMITTED,
        format!(
            "{who}: Vpc {vpc} does not permit namespace {namespace}; use another Subnet, or add the namespace to \
             spec.allowedNamespaces of Vpc {vpc}"
        ),
    )
}

/// Two holders of one address come about only if somebody writes a status by hand: the older VNic keeps it.
fn first_holder(
    snapshot: &Snapshot,
    key: &ObjectKey,
    vnic: &VNic,
    ip: IpAddr,
) -> Result<(), Rejection> {
    let age = |key: &ObjectKey| {
        let vnic = snapshot.vnic(key);
        let created = vnic.and_then(|vnic| vnic.metadata.creation_timestamp.clone());
        (created.map_or(0, |time| time.0.as_second()), key.clone())
    };
    let pool = snapshot.pool(&vnic.spec.subnet).into_iter();
    let first = pool.flat_map(|pool| pool.holders(ip)).map(age).min();
    match first {
        Some((_, holder)) if holder != *key => Err(Rejection::new(
            reason::ADDRESS_TAKEN,
            format!(
                "VNic {key}: {ip} of its status is held by VNic {holder}; delete one of them and make it anew"
            ),
        )),
        _ => Ok(()),
    }
}
