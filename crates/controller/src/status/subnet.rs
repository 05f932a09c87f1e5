//! The status of a `Subnet`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::address::Family;
use ycloud_api::condition::{self, IN_USE, READY};
use ycloud_api::subnet::{Addresses, SubnetIpv6Status};
use ycloud_api::{Subnet, SubnetStatus};
use ycloud_compiler::{Snapshot, gateway, usage};

use super::RowState;

/// What a Subnet's status says of its ranges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// The router's IPv4 address.
    pub gateway: Option<String>,
    /// Counts of IPv4 addresses.
    pub addresses: Option<Addresses>,
    /// The same of IPv6.
    pub ipv6: Option<SubnetIpv6Status>,
}

impl Figures {
    /// Of a Subnet as it is in the snapshot.
    pub fn of(snapshot: &Snapshot, subnet: &str) -> Self {
        let gateway = |family| gateway(snapshot, subnet, family).map(|ip| ip.to_string());
        let addresses = |family| usage(snapshot, subnet, family);
        let ipv6 = addresses(Family::Ipv6).map(|addresses| SubnetIpv6Status {
            gateway: gateway(Family::Ipv6),
            addresses: Some(addresses),
        });
        Self {
            gateway: gateway(Family::Ipv4),
            addresses: addresses(Family::Ipv4),
            ipv6,
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

/// The status of `subnet`. `figures`: gateways and counts of its ranges; `users`: who uses it.
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
    if let Some(verdict) = super::ready(state) {
        condition::set(&mut conditions, READY, &verdict, generation, now);
    }
    match super::in_use(deleting, users) {
        Some(verdict) => condition::set(&mut conditions, IN_USE, &verdict, generation, now),
        None => conditions.retain(|c| c.type_ != IN_USE),
    }
    let figures = match state {
        // Its rows stay as they were, and so does what is said of them.
        RowState::Refused(rejection) if rejection.keep => Figures {
            gateway: former.gateway,
            addresses: former.addresses,
            ipv6: former.ipv6,
        },
        RowState::Refused(_) => Figures::default(),
        _ => figures,
    };
    SubnetStatus {
        gateway: figures.gateway,
        addresses: figures.addresses,
        ipv6: figures.ipv6,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use ycloud_api::condition::reason;
    use ycloud_compiler::Rejection;

    fn now() -> Time {
        Time(Timestamp::from_second(1).unwrap())
    }

    #[test]
    fn a_refused_subnet_that_keeps_its_rows_keeps_its_figures() {
        let counts = Addresses {
            total: 253,
            used: 4,
            free: 249,
        };
        let ipv6 = SubnetIpv6Status {
            gateway: Some("fd00::1".to_owned()),
            addresses: Some(counts),
        };
        let figures = Figures {
            gateway: Some("10.0.1.1".to_owned()),
            addresses: Some(counts),
            ipv6: Some(ipv6),
        };
        let shown = |status: &SubnetStatus| Figures {
            gateway: status.gateway.clone(),
            addresses: status.addresses,
            ipv6: status.ipv6.clone(),
        };
        let mut subnet = Subnet::default();
        let good = status(&subnet, &RowState::Settled, figures.clone(), &[], &now());
        assert_eq!(shown(&good), figures);
        subnet.status = Some(good);
        let mut rejection = Rejection::new(reason::INVALID, "spec.cidr shrank below its users");
        rejection.keep = true;
        let nothing = Figures::default;
        let refused = RowState::Refused(rejection.clone());
        let kept = status(&subnet, &refused, nothing(), &[], &now());
        assert_eq!(shown(&kept), figures);
        assert!(!condition::is_true(&kept.conditions, READY));
        rejection.keep = false;
        let refused = RowState::Refused(rejection);
        let gone = status(&subnet, &refused, nothing(), &[], &now());
        assert_eq!(shown(&gone), nothing());
    }
}
