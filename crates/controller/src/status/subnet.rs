//! The status of a `Subnet`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::address::Family;
use ycloud_api::condition::{self, IN_USE, READY};
use ycloud_api::subnet::{Addresses, SubnetIpv6Status};
use ycloud_api::{Subnet, SubnetStatus};
use ycloud_compiler::{Snapshot, usage};

use super::RowState;

/// What a Subnet's status says of the network that is in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// The IPv4 range.
    pub cidr: Option<String>,
    /// The router's IPv4 address.
    pub gateway: Option<String>,
    /// Counts of IPv4 addresses.
    pub addresses: Option<Addresses>,
    /// The same of IPv6.
    pub ipv6: Option<SubnetIpv6Status>,
    /// Addresses never given out.
    pub exclude_ips: Vec<String>,
}

impl Figures {
    /// Of a Subnet as it is in the snapshot; all empty if it was never accepted.
    pub fn of(snapshot: &Snapshot, subnet: &str) -> Self {
        let Some(network) = snapshot.network(subnet) else {
            return Self::default();
        };
        let of = |family| {
            let cidr = network.cidr(family)?;
            let addresses = usage(snapshot, subnet, family);
            Some((cidr.range.to_string(), cidr.gateway.to_string(), addresses))
        };
        let (cidr, gateway, addresses) = match of(Family::Ipv4) {
            Some((cidr, gateway, addresses)) => (Some(cidr), Some(gateway), addresses),
            None => (None, None, None),
        };
        Self {
            cidr,
            gateway,
            addresses,
            ipv6: of(Family::Ipv6).map(|(cidr, gateway, addresses)| SubnetIpv6Status {
                cidr: Some(cidr),
                gateway: Some(gateway),
                addresses,
            }),
            exclude_ips: network.exclude_ips.clone(),
        }
    }

    /// The counts of a family.
    pub fn addresses(&self, family: Family) -> Option<Addresses> {
        match family {
            Family::Ipv4 => self.addresses,
            Family::Ipv6 => self.ipv6.as_ref().and_then(|ipv6| ipv6.addresses),
        }
    }
}

/// The status of `subnet`. `figures`: the network that is in force; `users`: who uses it.
pub fn status(
    subnet: &Subnet,
    state: &RowState,
    figures: Figures,
    users: &[String],
    now: &Time,
) -> SubnetStatus {
    let former = subnet.status.clone().unwrap_or_default();
    let deleting = subnet.metadata.deletion_timestamp.is_some();
    let generation = subnet.metadata.generation;
    let mut conditions = former.conditions;
    if let Some(verdict) = super::ready_or_leaving(deleting, state) {
        condition::set(&mut conditions, READY, &verdict, generation, now);
    }
    match super::in_use(deleting, users) {
        Some(verdict) => condition::set(&mut conditions, IN_USE, &verdict, generation, now),
        None => conditions.retain(|c| c.type_ != IN_USE),
    }
    SubnetStatus {
        cidr: figures.cidr,
        gateway: figures.gateway,
        addresses: figures.addresses,
        ipv6: figures.ipv6,
        exclude_ips: figures.exclude_ips,
        conditions,
    }
}
