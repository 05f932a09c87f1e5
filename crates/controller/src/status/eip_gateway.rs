//! The status of an `EipGateway`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::condition::{self, IN_USE, READY, Verdict};
use ycloud_api::eip_gateway::{ReleasedAddress, ServiceGatewayStatus};
use ycloud_api::subnet::Addresses;
use ycloud_api::{EipGateway, EipGatewayStatus};

use super::RowState;

/// How many nodes a message names.
const NAMED_NODES: usize = 5;

/// What is known of an EipGateway besides its rows.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// Its range.
    pub cidr: Option<String>,
    /// Its own address, with the prefix length of the link.
    pub address: Option<String>,
    /// The node that carries it.
    pub active_node: Option<String>,
    /// The nodes that can carry it, sorted.
    pub nodes: Vec<String>,
    /// The nodes that are selected, and whose chassis lacks the physical network; sorted.
    pub without_network: Vec<String>,
    /// The nodes of its service gateways, by number.
    pub service_gateways: Vec<(u32, Option<String>)>,
    /// How many EIPs there are.
    pub addresses: Addresses,
    /// The addresses that rest.
    pub released: Vec<ReleasedAddress>,
    /// It is the default one.
    pub default: bool,
    /// The older EipGateway that is the default although this one is marked too.
    pub other_default: Option<String>,
    /// What a deletion waits for, as [`ycloud_compiler::users`] names it.
    pub users: Vec<String>,
}

/// The status of `gateway`.
pub fn status(
    gateway: &EipGateway,
    state: &RowState,
    known: Knowledge,
    now: &Time,
) -> EipGatewayStatus {
    let former = gateway.status.clone().unwrap_or_default();
    let generation = gateway.metadata.generation;
    let mut conditions = former.conditions.clone();
    if let Some(mut verdict) = super::ready(state) {
        if verdict.status == Some(true) {
            remark(gateway, &known, &mut verdict);
        }
        condition::set(&mut conditions, READY, &verdict, generation, now);
    }
    // Its record stays, whatever is said of it.
    let released = known.released.clone();
    let deleting = gateway.metadata.deletion_timestamp.is_some();
    match super::in_use(deleting, &known.users) {
        Some(verdict) => condition::set(&mut conditions, IN_USE, &verdict, generation, now),
        None => conditions.retain(|c| c.type_ != IN_USE),
    }
    let figures = match state {
        // Its rows stay as they were, and so does what is said of them.
        RowState::Refused(rejection) if rejection.keep => former,
        RowState::Refused(_) => EipGatewayStatus::default(),
        _ => figures(known),
    };
    EipGatewayStatus {
        released,
        conditions,
        ..figures
    }
}

fn figures(known: Knowledge) -> EipGatewayStatus {
    let service_gateways = known.service_gateways.into_iter();
    let service_gateways = service_gateways.filter_map(|(index, node)| {
        let index = index.try_into().ok()?;
        Some(ServiceGatewayStatus { index, node })
    });
    EipGatewayStatus {
        cidr: known.cidr,
        address: known.address,
        active_node: known.active_node,
        nodes: known.nodes,
        service_gateways: service_gateways.collect(),
        addresses: Some(known.addresses),
        released: Vec::new(),
        conditions: Vec::new(),
    }
}

/// Adds to the message what an operator would wonder about.
fn remark(gateway: &EipGateway, known: &Knowledge, verdict: &mut Verdict) {
    let without = &known.without_network;
    if !without.is_empty() {
        let named = without[..without.len().min(NAMED_NODES)].join(", ");
        let more = match without.len().saturating_sub(NAMED_NODES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        verdict.message.push_str(&format!(
            "; selected, but without a bridge for physical network {} \
             (external_ids:ovn-bridge-mappings of Open vSwitch): {named}{more}",
            gateway.spec.physical_network
        ));
    }
    if gateway.spec.allowed_namespaces.is_none() {
        verdict.message.push_str(match known.default {
            true => "; as the default EipGateway without spec.allowedNamespaces it permits every namespace",
            false => "; it permits no new Eips: name namespaces in spec.allowedNamespaces",
        });
    }
    if let Some(other) = &known.other_default {
        verdict.message.push_str(&format!(
            "; spec.default has no effect: EipGateway {other} is older and the default"
        ));
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

    fn known() -> Knowledge {
        Knowledge {
            cidr: Some("198.51.100.0/24".to_owned()),
            address: Some("198.51.100.2/24".to_owned()),
            active_node: Some("n1".to_owned()),
            nodes: vec!["n1".to_owned(), "n2".to_owned()],
            without_network: vec!["n3".to_owned()],
            service_gateways: vec![(1, Some("n1".to_owned())), (2, None)],
            addresses: Addresses::new(1, 251),
            released: Vec::new(),
            default: false,
            other_default: Some("old".to_owned()),
            users: Vec::new(),
        }
    }

    #[test]
    fn a_gateway_says_where_it_is_and_which_nodes_cannot_carry_it() {
        let mut gateway = EipGateway::default();
        gateway.spec.physical_network = "ext".to_owned();
        let good = status(&gateway, &RowState::Settled, known(), &now());
        assert_eq!(good.active_node.as_deref(), Some("n1"));
        assert_eq!(good.service_gateways.len(), 2);
        let message = &good.conditions[0].message;
        assert!(
            message.contains("network ext") && message.contains(": n3;"),
            "{message}"
        );
        assert!(message.contains("EipGateway old"), "{message}");
        gateway.status = Some(good.clone());
        assert_eq!(status(&gateway, &RowState::Settled, known(), &now()), good);
    }

    #[test]
    fn a_refused_gateway_shows_figures_only_if_it_keeps_its_rows() {
        let mut gateway = EipGateway::default();
        let good = status(&gateway, &RowState::Settled, known(), &now());
        gateway.status = Some(good);
        let mut rejection = Rejection::new(reason::NO_NODES, "spec.nodeSelector matches no node");
        let refused = RowState::Refused(rejection.clone());
        let gone = status(&gateway, &refused, known(), &now());
        assert_eq!((gone.active_node, gone.nodes.len()), (None, 0));
        rejection.keep = true;
        let kept = status(&gateway, &RowState::Refused(rejection), known(), &now());
        assert_eq!(kept.active_node.as_deref(), Some("n1"));
        assert_eq!(kept.cidr.as_deref(), Some("198.51.100.0/24"));
        assert!(!condition::is_true(&kept.conditions, READY));
    }
}
