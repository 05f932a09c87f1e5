//! What is written to Services: refusals, the address of a load balancer, and how far the hypervisors are.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use serde_json::json;
use ycloud_api::key;
use ycloud_compiler::desired::service::takes_eip;
use ycloud_compiler::validate::service::{ignored, is_nobodys_load_balancer};
use ycloud_compiler::{ObjectKey, Owner, eip_address};

use crate::objects::Need;
use crate::state::State;
use crate::status::{self, RowState};
use crate::write::{Action, Report};

/// Finalizer of a cloud provider's controller, which clears the status of its own. Source: KEP-980.
const LOAD_BALANCER_CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";

/// How long another load balancer than ycloud's may take to serve a Service of no class, before it is said that none does.
const OTHERS_LIMIT: Duration = Duration::from_secs(30);

impl State {
    /// The write that a Service needs next: its condition, its address, and what the hypervisors have of it.
    pub(crate) fn service_write(
        &mut self,
        key: &ObjectKey,
        owner: &Owner,
        now: &Time,
    ) -> Option<Need> {
        let service = self.snapshot.service(key)?;
        let state = self.said(owner);
        let refused = self.refusal_of_service(key).map(RowState::Refused);
        let told = refused.as_ref().unwrap_or(&state);
        let mut ignored = ignored(service);
        if is_nobodys_load_balancer(service)
            && let Some(created) = &service.metadata.creation_timestamp
            && let Ok(age) = Duration::try_from(now.0.duration_since(created.0))
            && let Some(left) = OTHERS_LIMIT.checked_sub(age)
        {
            self.objects.push_in(owner.clone(), left);
            ignored = None;
        }
        if let Some((all, news)) = status::service::conditions(service, told, ignored, now) {
            let good = |condition: &Condition| {
                condition.type_ == status::service::ACCEPTED && condition.status == "True"
            };
            let fault = news.into_iter().find(|condition| !good(condition));
            let report = fault.map(|condition| Report {
                regarding: service.object_ref(&()),
                warning: true,
                reason: condition.reason,
                action: "Programming",
                message: condition.message,
            });
            let action = Action::ServiceConditions(all);
            return Some(Need {
                report,
                ..Need::from(action)
            });
        }
        if let Some(action) = self.load_balancer(key, service, &state) {
            return Some(action.into());
        }
        self.programmed(key, owner, service, &state).map(Need::from)
    }

    /// Writes the Service's EIP where `kubectl get service` and others look for it, once the Eip has it for sure; takes it
    /// away from a Service that is no load balancer any more.
    fn load_balancer(
        &self,
        key: &ObjectKey,
        service: &Service,
        state: &RowState,
    ) -> Option<Action> {
        if !takes_eip(service) {
            return is_left_behind(service).then(|| ingress_patch(service, &[]));
        }
        let eip = self.snapshot.eip_of_service(key);
        let confirmed = eip.is_some_and(|eip| !self.unconfirmed_eips.contains(&eip));
        let address = eip_address(&self.snapshot, key).filter(|_| confirmed);
        let ingress = match (state, address) {
            (RowState::Pending, None) => return None,
            (RowState::Refused(_), _) | (_, None) => Vec::new(),
            (_, Some(address)) => vec![LoadBalancerIngress {
                ip: Some(address.to_string()),
                ip_mode: Some("VIP".to_owned()),
                ..LoadBalancerIngress::default()
            }],
        };
        let former = service.status.as_ref();
        let former = former.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        if former.map_or(&[][..], Vec::as_slice) == ingress {
            return None;
        }
        Some(ingress_patch(service, &ingress))
    }

    /// Writes the digest of what the hypervisors have. It goes while the Service is not done as it asks, or it would be
    /// believed as soon as the Service is accepted again, before its rows are there again.
    fn programmed(
        &self,
        key: &ObjectKey,
        owner: &Owner,
        service: &Service,
        state: &RowState,
    ) -> Option<Action> {
        let labels = service.metadata.labels.as_ref();
        let ours = labels.and_then(|all| all.get(key::SERVICE_PROXY_NAME));
        if ours.is_none_or(|name| name != key::PROXY) {
            return None;
        }
        let annotations = service.metadata.annotations.as_ref();
        let said = annotations.and_then(|all| all.get(key::PROGRAMMED));
        let said = said.map(String::as_str);
        let digest = match state {
            RowState::Refused(_) | RowState::Hindered(_) => None,
            _ => {
                let digest = self.tracker.programmed(owner)?;
                // Written only while it says something about the Service as it is now.
                Some(digest).filter(|new| self.snapshot.digest(key).as_deref() == Some(new))?;
                Some(digest)
            }
        };
        if said == digest {
            return None;
        }
        Some(Action::Patch {
            patch: json!({"metadata": {"annotations": {key::PROGRAMMED: digest}}}),
            subresource: None,
            version: service.metadata.resource_version.clone(),
        })
    }
}

fn ingress_patch(service: &Service, ingress: &[LoadBalancerIngress]) -> Action {
    Action::Patch {
        patch: json!({"status": {"loadBalancer": {"ingress": ingress}}}),
        subresource: Some("status"),
        version: service.metadata.resource_version.clone(),
    }
}

/// Whether a Service that is no load balancer shows an address from when it was one, and nobody else is to clear it up.
fn is_left_behind(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    let finalizers = service.metadata.finalizers.iter().flatten();
    let mut others = finalizers.filter(|name| *name == LOAD_BALANCER_CLEANUP);
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let mut shown = balancer
        .into_iter()
        .flat_map(|b| b.ingress.iter().flatten());
    kind != Some("LoadBalancer") && others.next().is_none() && shown.next().is_some()
}
