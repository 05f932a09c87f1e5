//! VNics: made and deleted for Pods and Nodes, given addresses, and told how far they are.
//!
//! An address is decided here and stands in the snapshot from then on, so that the next decision sees it. It counts
//! for others (rows, the node agent) only once the API server has it: until then its VNic has no rows.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use ycloud_api::VNic;
use ycloud_api::condition::READY;
use ycloud_api::vnic::AttachmentKind;
use ycloud_compiler::{
    Event, Object, ObjectKey, Owner, PodFacts, Rejection, allocate, wanted_vnic,
};

use crate::objects::{Need, status_patch};
use crate::state::{State, Unconfirmed, is_made_here};
use crate::status;
use crate::write::{Action, Report};

/// How long a VNic rests after its status was written: time for its port to be bound, so that most VNics go from an
/// address to `Up` in a single step.
const VNIC_REST: Duration = Duration::from_millis(400);

impl State {
    /// The write that a VNic needs next, or the VNic that a Pod or Node needs.
    pub(crate) fn vnic_write(
        &mut self,
        key: &ObjectKey,
        owner: &Owner,
        now: &Time,
    ) -> Option<Need> {
        let wanted = wanted_vnic(&self.snapshot, key);
        let Some(vnic) = self.snapshot.vnic(key).cloned() else {
            return self.missing_vnic(key, wanted);
        };
        self.reported.remove(key);
        if vnic.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let addressed = vnic
            .status
            .as_ref()
            .is_some_and(|status| status.ip.is_some());
        if is_made_here(&vnic) {
            match wanted {
                Ok(None) => return Some(deletion(&vnic).into()),
                // It was made before the Pod's Subnet changed, and nobody can have used it.
                Ok(Some(wanted)) if !addressed && wanted.spec != vnic.spec => {
                    return Some(deletion(&vnic).into());
                }
                _ => {}
            }
        }
        if let Some(unconfirmed) = self.unconfirmed.get(key) {
            // Not confirmed yet: compared with a VNic without status, everything is written again.
            return status_patch(&vnic.metadata, None, &unconfirmed.status, VNIC_REST, None);
        }
        if !addressed {
            return self.give_address(key, vnic, now);
        }
        let up = self.is_up(owner);
        let status = status::vnic::status(&vnic, self.row_state(owner), up, now);
        status_patch(
            &vnic.metadata,
            vnic.status.as_ref(),
            &status,
            VNIC_REST,
            None,
        )
    }

    fn missing_vnic(
        &mut self,
        key: &ObjectKey,
        wanted: Result<Option<VNic>, Rejection>,
    ) -> Option<Need> {
        match wanted {
            Ok(Some(vnic)) => Some(Action::CreateVNic(Box::new(vnic)).into()),
            Ok(None) => {
                self.reported.remove(key);
                None
            }
            Err(rejection) => {
                if self.reported.get(key) != Some(&rejection) {
                    let pod = self.snapshot.pod_of_vnic(key)?;
                    let report = no_address(pod, rejection.reason, &rejection.message);
                    self.notes.push(report);
                    self.reported.insert(key.clone(), rejection);
                }
                None
            }
        }
    }

    fn give_address(&mut self, key: &ObjectKey, vnic: Arc<VNic>, now: &Time) -> Option<Need> {
        match allocate(&self.snapshot, &vnic) {
            Ok(address) => {
                let status = status::vnic::addressed(&vnic, &address, now);
                let need = status_patch(
                    &vnic.metadata,
                    vnic.status.as_ref(),
                    &status,
                    VNIC_REST,
                    None,
                );
                let uid = vnic.metadata.uid.clone();
                let mut held = Arc::unwrap_or_clone(vnic);
                held.status = Some(status.clone());
                let held = Event::Apply(Object::VNic(Arc::new(held)));
                let owners = self.snapshot.apply(held);
                for owner in &owners {
                    self.objects.push(owner.clone());
                }
                let unconfirmed = Unconfirmed {
                    uid,
                    status,
                    owners,
                };
                self.unconfirmed.insert(key.clone(), unconfirmed);
                need
            }
            Err(rejection) => {
                let status = status::vnic::refused(&vnic, &rejection, now);
                let conditions = |status: Option<&ycloud_api::VNicStatus>| {
                    not_ready(status.map_or(&[], |status| &status.conditions))
                };
                let news = conditions(vnic.status.as_ref()) != conditions(Some(&status));
                let pod = self.snapshot.pod_of_vnic(key);
                let report = pod.filter(|_| news);
                let report =
                    report.map(|pod| no_address(pod, rejection.reason, &rejection.message));
                status_patch(
                    &vnic.metadata,
                    vnic.status.as_ref(),
                    &status,
                    VNIC_REST,
                    report,
                )
            }
        }
    }
}

fn not_ready(conditions: &[Condition]) -> Option<(String, String)> {
    let ready = conditions
        .iter()
        .find(|c| c.type_ == READY && c.status == "False");
    ready.map(|c| (c.reason.clone(), c.message.clone()))
}

fn deletion(vnic: &VNic) -> Action {
    let attachment = &vnic.spec.attachment;
    let pod = match (attachment.kind, &attachment.name, &attachment.uid) {
        (AttachmentKind::Pod, Some(name), Some(uid)) => {
            let namespace = vnic.metadata.namespace.clone().unwrap_or_default();
            Some((ObjectKey::new(namespace, name.clone()), uid.clone()))
        }
        _ => None,
    };
    Action::DeleteVNic {
        uid: vnic.metadata.uid.clone(),
        pod,
    }
}

/// The Event on a Pod that gets no address.
fn no_address(pod: &PodFacts, reason: &str, message: &str) -> Report {
    Report {
        regarding: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.key.namespace.clone()),
            name: Some(pod.key.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        },
        warning: true,
        reason: reason.to_owned(),
        action: "Addressing",
        message: message.to_owned(),
    }
}
