//! EipGateways and Eips: made for Services, given addresses (see [`crate::unconfirmed`]), and told how far they are.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use serde_json::json;
use ycloud_api::eip::EipPort;
use ycloud_api::eip_gateway::ReleasedAddress;
use ycloud_api::made::is_yusur_service;
use ycloud_api::selector::matches;
use ycloud_api::{Eip, EipGateway, EipGatewayStatus, key};
use ycloud_compiler::{
    Event, Object, ObjectKey, Owner, Recorded, active_node, allocate_eip, eip_binding,
    eip_gateway_address, eip_gateway_cidr, eip_usage, eligible_nodes, is_outdated, released,
    resting_place, service_gateways, users, wanted_eip, with_whom_it_goes,
};

use crate::objects::{COUNTER_REST, Need, finalizer, gone, refusal, status_patch};
use crate::state::State;
use crate::status::eip::Use;
use crate::status::eip_gateway::Knowledge;
use crate::status::{self, RowState};
use crate::unconfirmed::Addressed;
use crate::write::{Action, Report};

/// How long an Eip rests after its status was written.
const EIP_REST: Duration = Duration::from_millis(100);

/// How long an Eip of a YusurService stays that its Service does not want any more.
const UNWANTED_REST: Duration = Duration::from_secs(10);

impl State {
    /// The write that an EipGateway needs next.
    pub(crate) fn eip_gateway_write(
        &mut self,
        name: &str,
        owner: &Owner,
        now: &Time,
    ) -> Option<Need> {
        let gateway = self.snapshot.eip_gateway(name).cloned()?;
        let deleting = gateway.metadata.deletion_timestamp.is_some();
        let users = match deleting {
            true => users(&self.snapshot, owner),
            false => Vec::new(),
        };
        if let Some(action) = finalizer(&gateway.metadata, !users.is_empty()) {
            return Some(action.into());
        }
        if gone(&gateway.metadata) {
            return None;
        }
        let released = self.released(name, owner, now);
        let state = self.said(owner);
        if matches!(state, RowState::Pending) && !deleting {
            return recorded(&gateway, released);
        }
        let default = self.snapshot.default_eip_gateway();
        let known = Knowledge {
            cidr: eip_gateway_cidr(&self.snapshot, name),
            address: eip_gateway_address(&self.snapshot, name),
            active_node: active_node(&self.snapshot, name),
            nodes: eligible_nodes(&self.snapshot, name),
            without_network: self.without_network(&gateway),
            service_gateways: service_gateways(&self.snapshot, name),
            addresses: eip_usage(&self.snapshot, name),
            released,
            default: default == Some(name),
            other_default: default
                .filter(|default| gateway.spec.default && *default != name)
                .map(str::to_owned),
            users,
        };
        let status = status::eip_gateway::status(&gateway, &state, known, now);
        let former = gateway.status.clone().unwrap_or_default();
        let report = refusal(
            &*gateway,
            "Programming",
            &former.conditions,
            &status.conditions,
        )
        .or_else(|| moved(&*gateway, &former, &status));
        let old = gateway.status.as_ref();
        status_patch(&gateway.metadata, old, &status, COUNTER_REST, report)
    }

    /// The addresses that are to rest, by an EipGateway's record. It is looked at again when the first of them has rested.
    fn released(&mut self, name: &str, owner: &Owner, now: &Time) -> Vec<ReleasedAddress> {
        let sure = |eip: &ObjectKey| !self.unconfirmed_eips.contains(eip);
        let released = released(&self.snapshot, name, now, sure);
        if let Some(due) = released.due {
            let wait = Duration::try_from(due.duration_since(now.0)).unwrap_or_default();
            self.objects.push_in(owner.clone(), wait);
        }
        released.addresses
    }

    /// Whether an Eip that is being deleted and that nothing uses waits until its EipGateway's status has its address as
    /// given up. That EipGateway is looked at if its record is not what the Eip's state asks for.
    fn awaits_rest(&mut self, key: &ObjectKey, eip: &Eip, used: bool) -> bool {
        let Some(place) = resting_place(&self.snapshot, key) else {
            return false;
        };
        let leaving = eip.metadata.deletion_timestamp.is_some() && !used;
        let differs = match leaving {
            true => place.recorded != Recorded::Now,
            false => place.recorded != Recorded::Not && !self.unconfirmed_eips.contains(key),
        };
        if differs {
            self.objects.push(Owner::EipGateway(place.eip_gateway));
        }
        leaving && differs
    }

    /// The nodes that are selected, and whose chassis lacks the physical network.
    fn without_network(&self, gateway: &EipGateway) -> Vec<String> {
        let spec = &gateway.spec;
        let lacks = |name: &str| {
            let chassis = self.chassis.get(name);
            chassis.is_some_and(|c| !c.physical_networks.contains(&spec.physical_network))
        };
        let nodes = self.snapshot.nodes().filter(|(name, node)| {
            let selector = spec.node_selector.as_ref();
            selector.is_none_or(|selector| matches(selector, &node.labels)) && lacks(name)
        });
        nodes.map(|(name, _)| name.to_owned()).collect()
    }

    /// The write that an Eip needs next, or the Eip that a Service needs.
    pub(crate) fn eip_write(&mut self, key: &ObjectKey, owner: &Owner, now: &Time) -> Option<Need> {
        let Some(eip) = self.snapshot.eip(key).cloned() else {
            let mut eip = wanted_eip(&self.snapshot, key)?;
            eip.metadata.finalizers = Some(vec![key::IN_USE_FINALIZER.to_owned()]);
            return Some(Action::CreateEip(Box::new(eip)).into());
        };
        let users = users(&self.snapshot, owner);
        let used = !users.is_empty();
        let awaits_rest = self.awaits_rest(key, &eip, used);
        if let Some(action) = finalizer(&eip.metadata, used || awaits_rest) {
            return Some(action.into());
        }
        if gone(&eip.metadata) {
            return None;
        }
        let deleting = eip.metadata.deletion_timestamp.is_some();
        let binding = eip_binding(&self.snapshot, key);
        // It has the name of its Service.
        let wanted = self.snapshot.eip_of_service(key).as_ref() == Some(key)
            && !is_outdated(&self.snapshot, key);
        if !deleting && let Some(need) = self.eip_made_here_write(key, &eip, owner, wanted, now) {
            return Some(need);
        }
        if let Some(status) = self.unconfirmed_eips.status(key) {
            // Not confirmed yet: compared with an Eip without status, everything is written again.
            return status_patch(&eip.metadata, None, status, EIP_REST, None);
        }
        if !eip.has_address() {
            return match deleting {
                true => None,
                false => self.give_eip_address(key, eip, now),
            };
        }
        let mut bound_to: Vec<String> = binding
            .services
            .iter()
            .map(|service| format!("Service/{}", service.name))
            .collect();
        bound_to.sort();
        let ports = binding.ports.into_iter();
        let ports = ports.map(|((protocol, port), service)| EipPort {
            port,
            protocol,
            service: service.name,
        });
        let mut ports: Vec<EipPort> = ports.collect();
        ports.sort();
        let gateway = self.snapshot.eip_gateway_of_eip(&eip);
        let behind = gateway.filter(|_| binding.several);
        let behind = behind.map(|name| service_gateways(&self.snapshot, name));
        let mut behind: Vec<String> = behind
            .into_iter()
            .flatten()
            .filter_map(|(_, n)| n)
            .collect();
        behind.sort();
        behind.dedup();
        let uses = Use {
            node: gateway.and_then(|name| active_node(&self.snapshot, name)),
            service_gateways: behind,
            bound_to,
            ports,
            vpc: binding.vpc,
            users,
        };
        let status = status::eip::status(&eip, self.row_state(owner), uses, now);
        let former = eip.status.clone().unwrap_or_default();
        let report = refusal(&*eip, "Addressing", &former.conditions, &status.conditions);
        status_patch(
            &eip.metadata,
            eip.status.as_ref(),
            &status,
            EIP_REST,
            report,
        )
    }

    /// What an Eip needs because it was made for a Service: to go with whom it goes now, or to go. `wanted`: its Service
    /// means it.
    fn eip_made_here_write(
        &mut self,
        key: &ObjectKey,
        eip: &Eip,
        owner: &Owner,
        wanted: bool,
        now: &Time,
    ) -> Option<Need> {
        let service = self.snapshot.service(key).cloned();
        let with_service = goes_with(eip, "v1", "Service");
        let maker = service.as_deref().map(with_whom_it_goes);
        // It was made when all Eips went with Services.
        if let Some(maker) = maker.filter(is_yusur_service).filter(|_| with_service) {
            let action = Action::Patch {
                patch: json!({"metadata": {"ownerReferences": [maker]}}),
                subresource: None,
                version: eip.metadata.resource_version.clone(),
            };
            return Some(action.into());
        }
        // One that goes with a YusurService outlives the Service between them.
        let orphan = service.is_none() && !with_service;
        let used = !eip_binding(&self.snapshot, key).services.is_empty();
        if !is_made_here(eip) || wanted || orphan || used {
            self.unwanted_eips.remove(key);
            return None;
        }
        if !with_service && let Some(wait) = self.stays_unwanted(key, now) {
            self.objects.push_in(owner.clone(), wait);
            return None;
        }
        self.unwanted_eips.remove(key);
        let uid = eip.metadata.uid.clone();
        Some(Action::DeleteEip { uid }.into())
    }

    /// How long an Eip of a YusurService still stays that its Service does not want; `None`: it can go. Somebody may have
    /// edited the Service by hand, which yusurservice-controller takes back.
    fn stays_unwanted(&mut self, key: &ObjectKey, now: &Time) -> Option<Duration> {
        let since = self.unwanted_eips.entry(key.clone());
        let since = since.or_insert_with(|| now.clone());
        let stood = now.0.duration_since(since.0).unsigned_abs();
        UNWANTED_REST
            .checked_sub(stood)
            .filter(|left| !left.is_zero())
    }

    fn give_eip_address(&mut self, key: &ObjectKey, eip: Arc<Eip>, now: &Time) -> Option<Need> {
        let former = eip.status.clone().unwrap_or_default();
        let old = eip.status.as_ref();
        match allocate_eip(&self.snapshot, &eip) {
            Ok(allocation) => {
                let status = status::eip::addressed(&eip, &allocation, now);
                let need = status_patch(&eip.metadata, old, &status, EIP_REST, None);
                let mut held = Eip::clone(&eip);
                held.status = Some(status.clone());
                let held = Event::Apply(Object::Eip(Arc::new(held)));
                let owners = self.snapshot.apply(held);
                for owner in &owners {
                    self.objects.push(owner.clone());
                }
                self.unconfirmed_eips
                    .give(key.clone(), &eip, status, owners);
                need
            }
            Err(rejection) => {
                let status = status::eip::refused(&eip, &rejection, now);
                let report = refusal(&*eip, "Addressing", &former.conditions, &status.conditions);
                status_patch(&eip.metadata, old, &status, EIP_REST, report)
            }
        }
    }
}

/// The write of the addresses that rest alone, of an EipGateway of which nothing else can be said yet.
fn recorded(gateway: &EipGateway, released: Vec<ReleasedAddress>) -> Option<Need> {
    let former = gateway.status.as_ref();
    if released == former.map_or(Vec::new(), |former| former.released.clone()) {
        return None;
    }
    let status = EipGatewayStatus {
        released,
        ..former.cloned().unwrap_or_default()
    };
    status_patch(&gateway.metadata, former, &status, COUNTER_REST, None)
}

/// Whether an Eip was made for a Service by this controller, and not by somebody else.
fn is_made_here(eip: &Eip) -> bool {
    let mut references = eip.metadata.owner_references.iter().flatten();
    goes_with(eip, "v1", "Service") || references.any(is_yusur_service)
}

/// Whether an object of this kind owns an Eip.
fn goes_with(eip: &Eip, api_version: &str, kind: &str) -> bool {
    let mut references = eip.metadata.owner_references.iter().flatten();
    references.any(|owner| owner.kind == kind && owner.api_version == api_version)
}

/// The Event of a gateway that another node carries now.
fn moved<K: Resource<DynamicType = ()>>(
    gateway: &K,
    old: &EipGatewayStatus,
    new: &EipGatewayStatus,
) -> Option<Report> {
    let (Some(from), Some(to)) = (&old.active_node, &new.active_node) else {
        return None;
    };
    (from != to).then(|| Report {
        regarding: gateway.object_ref(&()),
        warning: false,
        reason: "Moved".to_owned(),
        action: "Moving",
        message: format!("node {to} carries the gateway now, in the place of {from}"),
    })
}
