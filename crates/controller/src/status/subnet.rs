//! The status of a `Subnet`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::condition::{self, IN_USE, READY};
use ycloud_api::subnet::Addresses;
use ycloud_api::{Subnet, SubnetStatus};

use super::RowState;

/// The status of `subnet`. `gateway` and `addresses`: those of its range; `users`: who uses it.
pub fn status(
    subnet: &Subnet,
    state: &RowState,
    gateway: Option<String>,
    addresses: Option<Addresses>,
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
    let (gateway, addresses) = match state {
        // Its rows stay as they were, and so does what is said of them.
        RowState::Refused(rejection) if rejection.keep => (former.gateway, former.addresses),
        RowState::Refused(_) => (None, None),
        _ => (gateway, addresses),
    };
    SubnetStatus {
        gateway,
        addresses,
        ipv6: former.ipv6,
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
        let gateway = Some("10.0.1.1".to_owned());
        let mut subnet = Subnet::default();
        let good = status(
            &subnet,
            &RowState::Settled,
            gateway.clone(),
            Some(counts),
            &[],
            &now(),
        );
        assert_eq!(good.addresses, Some(counts));
        subnet.status = Some(good);
        let mut rejection = Rejection::new(reason::INVALID, "spec.cidr shrank below its users");
        rejection.keep = true;
        let kept = status(
            &subnet,
            &RowState::Refused(rejection.clone()),
            None,
            None,
            &[],
            &now(),
        );
        assert_eq!((kept.gateway, kept.addresses), (gateway, Some(counts)));
        assert!(!condition::is_true(&kept.conditions, READY));
        rejection.keep = false;
        let gone = status(
            &subnet,
            &RowState::Refused(rejection),
            None,
            None,
            &[],
            &now(),
        );
        assert_eq!((gone.gateway, gone.addresses), (None, None));
    }
}
