//! The status of an `Eip`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::condition::{self, IN_USE, READY, Verdict, reason};
use ycloud_api::eip::{EipPhase, EipPort};
use ycloud_api::{Eip, EipStatus};
use ycloud_compiler::{EipAllocation, Rejection};

use super::RowState;

/// Who uses an Eip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Use {
    /// What is bound to it, as `<Kind>/<name>`, sorted.
    pub bound_to: Vec<String>,
    /// The ports at which it serves, sorted.
    pub ports: Vec<EipPort>,
    /// The one Vpc that its traffic goes to.
    pub vpc: Option<String>,
    /// The node that carries its EipGateway.
    pub node: Option<String>,
    /// The nodes of the service gateways, if its traffic goes to several Vpcs.
    pub service_gateways: Vec<String>,
    /// What a deletion waits for, as [`ycloud_compiler::users`] names it.
    pub users: Vec<String>,
}

/// The status of an Eip that just got an address.
pub fn addressed(eip: &Eip, allocation: &EipAllocation, now: &Time) -> EipStatus {
    let mut status = eip.status.clone().unwrap_or_default();
    status.address = Some(allocation.address.to_string());
    status.eip_gateway = Some(allocation.eip_gateway.clone());
    status.phase = EipPhase::Allocated;
    set_ready(eip, &mut status, &held(), now);
    status
}

/// The status of an Eip that gets no address.
pub fn refused(eip: &Eip, rejection: &Rejection, now: &Time) -> EipStatus {
    let mut status = eip.status.clone().unwrap_or_default();
    status.phase = EipPhase::Failed;
    let verdict = Verdict::no(rejection.reason, &rejection.message);
    set_ready(eip, &mut status, &verdict, now);
    status
}

/// The status of an Eip that has an address.
pub fn status(eip: &Eip, state: &RowState, uses: Use, now: &Time) -> EipStatus {
    let mut status = eip.status.clone().unwrap_or_default();
    let verdict = match state {
        RowState::Pending => None,
        RowState::Settled => {
            status.phase = match uses.bound_to.is_empty() {
                true => EipPhase::Allocated,
                false => EipPhase::Bound,
            };
            Some(held())
        }
        RowState::Refused(_) | RowState::Failing(_) | RowState::Hindered(_) => {
            status.phase = EipPhase::Failed;
            super::ready(state)
        }
    };
    if let Some(verdict) = verdict {
        status.summary = super::summary(&uses.bound_to);
        status.bound_to = uses.bound_to;
        status.ports = uses.ports;
        status.vpc = uses.vpc;
        status.node = uses.node.filter(|_| status.phase == EipPhase::Bound);
        status.service_gateways = super::summary(&uses.service_gateways);
        set_ready(eip, &mut status, &verdict, now);
    }
    let deleting = eip.metadata.deletion_timestamp.is_some();
    let generation = eip.metadata.generation;
    match super::in_use(deleting, &uses.users) {
        Some(verdict) => {
            condition::set(&mut status.conditions, IN_USE, &verdict, generation, now);
        }
        None => status.conditions.retain(|c| c.type_ != IN_USE),
    }
    status
}

fn held() -> Verdict {
    Verdict::yes(reason::READY, "it holds its address")
}

fn set_ready(eip: &Eip, status: &mut EipStatus, verdict: &Verdict, now: &Time) {
    let generation = eip.metadata.generation;
    condition::set(&mut status.conditions, READY, verdict, generation, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn now() -> Time {
        Time(Timestamp::from_second(1).unwrap())
    }

    #[test]
    fn an_eip_is_allocated_then_bound_and_keeps_its_address_when_it_is_refused() {
        let mut eip = Eip::default();
        let allocation = EipAllocation {
            address: "198.51.100.9".parse().unwrap(),
            eip_gateway: "gw".to_owned(),
        };
        eip.status = Some(addressed(&eip, &allocation, &now()));
        let free = status(&eip, &RowState::Settled, Use::default(), &now());
        assert_eq!(
            (free.phase, free.address.as_deref()),
            (EipPhase::Allocated, Some("198.51.100.9"))
        );
        let uses = Use {
            bound_to: vec!["Service/web".to_owned()],
            ports: vec![EipPort {
                port: 80,
                protocol: "TCP".to_owned(),
                service: "web".to_owned(),
            }],
            vpc: Some("vpc1".to_owned()),
            node: Some("node-1".to_owned()),
            service_gateways: ["node-2", "node-3"].map(str::to_owned).into(),
            users: vec!["Service ns/web".to_owned()],
        };
        let bound = status(&eip, &RowState::Settled, uses.clone(), &now());
        assert_eq!(
            (bound.phase, bound.vpc.as_deref()),
            (EipPhase::Bound, Some("vpc1"))
        );
        assert!(condition::is_true(&bound.conditions, READY));
        assert_eq!(
            (bound.node.as_deref(), bound.service_gateways.as_deref()),
            (Some("node-1"), Some("node-2,node-3"))
        );
        let rejection = Rejection::new(reason::ADDRESS_TAKEN, "Eip ns/old holds it");
        let refused = status(&eip, &RowState::Refused(rejection), uses.clone(), &now());
        assert_eq!(refused.phase, EipPhase::Failed);
        assert!(refused.address.is_some());
        eip.metadata.deletion_timestamp = Some(now());
        let waiting = status(&eip, &RowState::Settled, uses, &now());
        assert!(condition::is_true(&waiting.conditions, IN_USE));
    }
}
