//! VNics: made and deleted for Pods and Nodes, given addresses (see [`crate::unconfirmed`]), and told how far they are.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use serde_json::json;
use ycloud_api::condition::{self, READY};
use ycloud_api::vnic::AttachmentKind;
use ycloud_api::{VNic, VNicStatus, key};
use ycloud_compiler::{
    Allocation, Event, Object, ObjectKey, Owner, Rejection, allocate, wanted_vnic,
};

use crate::objects::{Need, refusal, status_patch};
use crate::state::{State, is_made_here};
use crate::status;
use crate::status::vnic::Port;
use crate::unconfirmed::Addressed;
use crate::write::{Action, Report};

/// How long a VNic rests after its status was written: time for its port to be bound, so that most VNics go from an
/// address to `Up` in a single step.
const VNIC_REST: Duration = Duration::from_millis(400);

/// How long after its deletion a VNic waits for its node to let go of the port. Longer than the agent needs to come back
/// from a restart.
const PORT_WAIT: Duration = Duration::from_secs(30);

/// How long after its deletion a machine's VNic waits to be taken out of Services: the longest `spec.drainSeconds` of a
/// YusurService, and a minute for its controller. Then it goes all the same.
const DRAIN_WAIT: Duration = Duration::from_secs(3660);

/// How long the VNic of a chassis without a Node stays after the chassis is gone from OVN: an ovn-controller that is stopped in
/// good order takes its row along, and is back when the package is upgraded or the machine has booted. Its address is that of
/// the machine's prober and of all that is asked from it, which would all move.
const CHASSIS_WAIT: Duration = Duration::from_secs(600);

/// How often it is looked whether the Lease of such a chassis still holds.
const LEASE_LOOK: Duration = Duration::from_secs(30);

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
            return self.missing_vnic(key, wanted, now);
        };
        let addressed = vnic.has_address();
        let unwanted = is_made_here(&vnic)
            && match wanted {
                Ok(None) => true,
                // It was made before the Pod's Subnet changed, and nobody can have used it.
                Ok(Some(wanted)) => !addressed && wanted.spec != vnic.spec,
                Err(_) => false,
            };
        if !unwanted {
            self.chassis_gone.remove(key);
        }
        let deleting = vnic.metadata.deletion_timestamp.is_some();
        match (deleting, is_held(&vnic)) {
            // Its port and device stay for as long as it has connections.
            (true, true) if !is_made_here(&vnic) => {
                let wait = left(&vnic, DRAIN_WAIT, now);
                match wait.filter(|_| self.snapshot.is_endpoint(&vnic)) {
                    Some(wait) => self.objects.push_in(owner.clone(), wait),
                    None => return Some(release(&vnic).into()),
                }
            }
            (true, true) if unwanted => {
                if let Some(wait) = self.port_ends_in(&vnic, owner, now) {
                    self.objects.push_in(owner.clone(), wait);
                    return None;
                }
                return Some(release(&vnic).into());
            }
            (true, false) => return None,
            (false, _) if unwanted => match self.lingers(key, &vnic, now) {
                Some(wait) => self.objects.push_in(owner.clone(), wait),
                None => {
                    self.chassis_gone.remove(key);
                    return Some(deletion(&vnic).into());
                }
            },
            (false, false) if is_of_pod(&vnic) => return Some(hold(&vnic).into()),
            _ => {}
        }
        if let Some(status) = self.unconfirmed.status(key) {
            // Not confirmed yet: compared with a VNic without status, everything is written again.
            return status_patch(&vnic.metadata, None, status, VNIC_REST, None);
        }
        if !deleting && addressed && drains(&vnic) && !is_held(&vnic) {
            return Some(hold(&vnic).into());
        }
        let lack = match self.snapshot.lacks_address(&vnic) {
            true => match allocate(&self.snapshot, &vnic) {
                Ok(allocation) => return self.give_address(key, vnic, &allocation, now),
                Err(rejection) => Some(rejection),
            },
            false => None,
        };
        if let (false, Some(rejection)) = (addressed, lack.clone()) {
            let told = self.tell_pod(key, Some(rejection.clone()), now);
            return told.or_else(|| refuse_address(&vnic, &rejection, now));
        }
        if let Some(need) = self.tell_pod(key, None, now) {
            return Some(need);
        }
        let chassis = vnic.spec.attachment.chassis.as_deref();
        let no_node = chassis.is_some_and(|chassis| self.snapshot.node(chassis).is_none());
        let port = match self.is_up(owner) {
            true => Port::Up,
            false if no_node && is_made_here(&vnic) && !is_of_pod(&vnic) => Port::OfNoNode,
            false if chassis.is_some_and(|name| !self.chassis.contains_key(name)) => {
                Port::OfNoChassis(self.chassis.keys().cloned().collect())
            }
            false => Port::Down,
        };
        let users = self.users_of_vnic(&vnic);
        let state = self.row_state(owner);
        let status = status::vnic::status(&vnic, state, port, lack.as_ref(), &users, now);
        let old = vnic.status.as_ref();
        let report = told(&vnic, &status);
        status_patch(&vnic.metadata, old, &status, VNIC_REST, report)
    }

    /// What a deletion of a VNic waits for: what it was made for, or the YusurServices whose clients it still has.
    fn users_of_vnic(&self, vnic: &VNic) -> Vec<String> {
        let namespace = vnic.metadata.namespace.as_deref().unwrap_or_default();
        let name = vnic.spec.attachment.name.as_deref().unwrap_or_default();
        match vnic.spec.attachment.kind {
            AttachmentKind::Pod => vec![format!("Pod {namespace}/{name}")],
            AttachmentKind::Node => vec![format!("Node {name}")],
            AttachmentKind::VM | AttachmentKind::BM | AttachmentKind::None => {
                let services = self.snapshot.services_of_endpoint(vnic).into_iter();
                services.map(|key| format!("YusurService {key}")).collect()
            }
        }
    }

    /// How long the port of a VNic that is being deleted may still stay; `None`: it can go. While OVN has it bound it
    /// stays, as an ovn-controller that sees interface and port end together may end with a failed assertion
    /// (`row->new_datum != NULL`: it writes `Port_Binding:up` of a row that is gone). A node that is dead lets go of nothing,
    /// and one that lives has [`PORT_WAIT`] for it.
    fn port_ends_in(&self, vnic: &VNic, owner: &Owner, now: &Time) -> Option<Duration> {
        let chassis = vnic.spec.attachment.chassis.as_ref()?;
        let node = self.snapshot.node(chassis)?;
        if !node.ready || !self.is_up(owner) {
            return None;
        }
        left(vnic, PORT_WAIT, now)
    }

    /// How long the VNic of a chassis that is gone from OVN stays at least; `None`: it goes, or it is another's. It stays for
    /// [`CHASSIS_WAIT`], and as long as the Lease of its agent holds. With a Node it goes with that.
    fn lingers(&mut self, key: &ObjectKey, vnic: &VNic, now: &Time) -> Option<Duration> {
        let owned = vnic.metadata.owner_references.iter().flatten();
        if vnic.spec.attachment.kind != AttachmentKind::Node || owned.count() > 0 {
            return None;
        }
        let since = self.chassis_gone.entry(key.clone());
        let since = since.or_insert_with(|| now.clone()).clone();
        let passed = Duration::try_from(now.0.duration_since(since.0)).unwrap_or_default();
        let left = CHASSIS_WAIT.checked_sub(passed);
        let holds = self.snapshot.is_prober(&key.name);
        left.filter(|left| !left.is_zero())
            .or(holds.then_some(LEASE_LOOK))
    }

    fn missing_vnic(
        &mut self,
        key: &ObjectKey,
        wanted: Result<Option<VNic>, Rejection>,
        now: &Time,
    ) -> Option<Need> {
        self.chassis_gone.remove(key);
        match wanted {
            Ok(Some(mut vnic)) => {
                if is_of_pod(&vnic) {
                    vnic.metadata.finalizers = Some(vec![key::IN_USE_FINALIZER.to_owned()]);
                }
                Some(Action::CreateVNic(Box::new(vnic)).into())
            }
            Ok(None) => {
                self.reported.remove(key);
                None
            }
            Err(rejection) => self.tell_pod(key, Some(rejection), now),
        }
    }

    fn give_address(
        &mut self,
        key: &ObjectKey,
        vnic: Arc<VNic>,
        allocation: &Allocation,
        now: &Time,
    ) -> Option<Need> {
        let status = status::vnic::addressed(&vnic, allocation, now);
        let need = status_patch(
            &vnic.metadata,
            vnic.status.as_ref(),
            &status,
            VNIC_REST,
            None,
        );
        let mut held = Arc::unwrap_or_clone(vnic.clone());
        held.status = Some(status.clone());
        let held = Event::Apply(Object::VNic(Arc::new(held)));
        let owners = self.snapshot.apply(held);
        for owner in &owners {
            self.objects.push(owner.clone());
        }
        self.unconfirmed.give(key.clone(), &vnic, status, owners);
        need
    }
}

/// The write that says that a VNic gets no address.
fn refuse_address(vnic: &VNic, rejection: &Rejection, now: &Time) -> Option<Need> {
    let status = status::vnic::refused(vnic, rejection, now);
    let old = vnic.status.as_ref();
    let report = told(vnic, &status);
    status_patch(&vnic.metadata, old, &status, VNIC_REST, report)
}

/// The Event of a VNic: what is wrong with it; and, of one that somebody made by hand, that it is ready. The steps in between are
/// as many as there are Pods.
fn told(vnic: &VNic, new: &VNicStatus) -> Option<Report> {
    let old = vnic.status.clone().unwrap_or_default().conditions;
    if let Some(fault) = refusal(vnic, "Attaching", &old, &new.conditions) {
        // Of those made here as many come at once as a chassis has Pods; their condition says it, and the Pod.
        return Some(fault).filter(|fault| fault.warning && !is_made_here(vnic));
    }
    let mut conditions = new.conditions.iter();
    let ready = conditions.find(|c| c.type_ == READY && c.status == "True")?;
    let news = !condition::is_true(&old, READY) && !is_made_here(vnic);
    news.then(|| Report {
        regarding: vnic.object_ref(&()),
        warning: false,
        reason: ready.reason.clone(),
        action: "Attaching",
        message: ready.message.clone(),
    })
}

/// What is left of `limit` since the deletion of a VNic; `None`: nothing, or it is not being deleted.
fn left(vnic: &VNic, limit: Duration, now: &Time) -> Option<Duration> {
    let deleted = vnic.metadata.deletion_timestamp.as_ref()?;
    let passed = Duration::try_from(now.0.duration_since(deleted.0)).unwrap_or_default();
    limit.checked_sub(passed).filter(|wait| !wait.is_zero())
}

/// Whether it was made for a Pod. Such a VNic has a finalizer while the Pod runs, so that neither the deletion of its
/// Namespace nor one by hand takes the port from under the Pod.
fn is_of_pod(vnic: &VNic) -> bool {
    vnic.spec.attachment.kind == AttachmentKind::Pod && is_made_here(vnic)
}

/// Whether it is a machine's or an address alone. Such a VNic has a finalizer while it has an address, so that it stays while it
/// is taken out of Services: it is gone once no EndpointSlice of yusurservice-controller has it.
fn drains(vnic: &VNic) -> bool {
    match vnic.spec.attachment.kind {
        AttachmentKind::VM | AttachmentKind::BM | AttachmentKind::None => true,
        AttachmentKind::Pod | AttachmentKind::Node => false,
    }
}

fn is_held(vnic: &VNic) -> bool {
    let finalizers = vnic.metadata.finalizers.iter().flatten();
    finalizers
        .into_iter()
        .any(|name| name == key::IN_USE_FINALIZER)
}

/// Adds the finalizer.
fn hold(vnic: &VNic) -> Action {
    let mut finalizers = vnic.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(key::IN_USE_FINALIZER.to_owned());
    Action::Patch {
        patch: json!({"metadata": {"finalizers": finalizers}}),
        subresource: None,
        version: vnic.metadata.resource_version.clone(),
    }
}

/// Takes the finalizer away.
fn release(vnic: &VNic) -> Action {
    let mut finalizers = vnic.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|name| name != key::IN_USE_FINALIZER);
    Action::ReleaseVNic {
        finalizers,
        version: vnic.metadata.resource_version.clone(),
        pod: pod_of(vnic),
    }
}

fn deletion(vnic: &VNic) -> Action {
    Action::DeleteVNic {
        uid: vnic.metadata.uid.clone(),
        pod: pod_of(vnic),
    }
}

/// Key and UID of the Pod that a VNic was made for, and that may be using it: none uses one without an address, so that it
/// can go while the Pod waits for another one.
fn pod_of(vnic: &VNic) -> Option<(ObjectKey, String)> {
    if !vnic.has_address() {
        return None;
    }
    let attachment = &vnic.spec.attachment;
    match (attachment.kind, &attachment.name, &attachment.uid) {
        (AttachmentKind::Pod, Some(name), Some(uid)) => {
            let namespace = vnic.metadata.namespace.clone().unwrap_or_default();
            Some((ObjectKey::new(namespace, name.clone()), uid.clone()))
        }
        _ => None,
    }
}
