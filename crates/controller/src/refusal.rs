//! What the API server refuses of this controller's own writes (a quota, a webhook, its validation): told on the object that the
//! write is about, in the API server's words, by a condition and a Warning Event. The write is tried again as any other.

use k8s_openapi::api::core::v1::{ObjectReference, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use ycloud_api::condition::{self, OURS_ACCEPTED, READY, Verdict, reason};
use ycloud_api::key;
use ycloud_compiler::{Object, ObjectKey, Owner, PodFacts, Rejection};

use crate::objects::Need;
use crate::state::State;
use crate::write::{Action, Report};

/// What was being done, for Events.
const ACTION: &str = "Writing";

impl State {
    /// The API server refused a write that the object of `owner` needs, for this reason. Returns the write that tells it; where
    /// there is none, an Event tells it, or the Service that an Eip is for.
    pub fn refuse(&mut self, owner: &Owner, why: &str, now: &Time) -> Option<Need> {
        let former = self.refusals.insert(owner.clone(), why.to_owned());
        let words = self.words(owner, why);
        match owner {
            Owner::VNic(key) if self.snapshot.pod_of_vnic(key).is_some() && !self.exists(owner) => {
                return self.tell_pod(key, Some(Rejection::new(reason::REFUSED, words)), now);
            }
            // By its own condition, see `State::service_write`.
            Owner::Eip(key) if !self.exists(owner) => {
                self.objects.push(Owner::Service(key.clone()));
                return None;
            }
            Owner::Service(_) => return None,
            _ => {}
        }
        let regarding = self.reference(owner)?;
        let report = Report {
            regarding,
            warning: true,
            reason: reason::REFUSED.to_owned(),
            action: ACTION,
            message: words.clone(),
        };
        let report = Some(report).filter(|_| former.as_deref() != Some(why));
        match self.refused_conditions(owner, &words, now) {
            Some(action) => Some(Need {
                action,
                report,
                rest: None,
            }),
            None => {
                self.notes.extend(report);
                None
            }
        }
    }

    /// The API server refuses nothing of `owner` any more.
    pub fn refused_no_more(&mut self, owner: &Owner) {
        if self.refusals.remove(owner).is_none() {
            return;
        }
        match owner {
            Owner::Eip(key) => self.objects.push(Owner::Service(key.clone())),
            Owner::Service(_) => self.objects.push(owner.clone()),
            _ => {}
        }
    }

    /// A write that was to tell how `owner` is failed: it is to be told again.
    pub fn untold(&mut self, owner: &Owner) {
        if let Owner::VNic(key) = owner {
            self.reported.remove(key);
        }
    }

    /// Whether the API server refuses what the object of `owner` needs.
    pub fn is_refused(&self, owner: &Owner) -> bool {
        self.refusals.contains_key(owner)
    }

    /// What the API server refuses of a Service: a write to itself, or the Eip that is made for it.
    pub(crate) fn refusal_of_service(&self, key: &ObjectKey) -> Option<Rejection> {
        let mut owners = [Owner::Service(key.clone()), Owner::Eip(key.clone())].into_iter();
        let (owner, why) = owners.find_map(|owner| {
            let why = self.refusals.get(&owner)?;
            Some((owner, why))
        })?;
        Some(Rejection::new(reason::REFUSED, self.words(&owner, why)))
    }

    /// Tells the Pod of a VNic why it has no address, or that it has one, if it was told otherwise.
    pub(crate) fn tell_pod(
        &mut self,
        vnic: &ObjectKey,
        refused: Option<Rejection>,
        now: &Time,
    ) -> Option<Need> {
        let pod = self.snapshot.pod_of_vnic(vnic)?;
        let words = refused.map(|rejection| (rejection.reason.to_owned(), rejection.message));
        if self.reported.get(vnic).unwrap_or(&pod.refused) == &words {
            return None;
        }
        let (status, (reason, message)) = match &words {
            Some(words) => ("False", words.clone()),
            None => {
                let text = "it has an address".to_owned();
                ("True", (reason::ACCEPTED.to_owned(), text))
            }
        };
        let report = words.is_some().then(|| no_address(pod, &reason, &message));
        let action = Action::PodCondition {
            pod: pod.key.clone(),
            uid: pod.uid.clone(),
            condition: Box::new(PodCondition {
                type_: OURS_ACCEPTED.to_owned(),
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_transition_time: Some(now.clone()),
                ..PodCondition::default()
            }),
        };
        self.reported.insert(vnic.clone(), words);
        Some(Need {
            action,
            report,
            rest: None,
        })
    }

    /// What is said of a refused write.
    fn words(&self, owner: &Owner, why: &str) -> String {
        let verb = match self.exists(owner) {
            true => "change",
            false => "create",
        };
        format!(
            "ycloud-controller may not {verb} {owner}, and tries again; the API server says: {why}"
        )
    }

    /// The write that says it in the object's own condition; `None`: it says so, or has no such condition.
    fn refused_conditions(&self, owner: &Owner, words: &str, now: &Time) -> Option<Action> {
        let object = self.object(owner)?;
        let (meta, conditions) = match &object {
            Object::Vpc(vpc) => (&vpc.metadata, vpc.status.as_ref().map(|s| &s.conditions)),
            Object::Subnet(subnet) => {
                let status = subnet.status.as_ref();
                (&subnet.metadata, status.map(|s| &s.conditions))
            }
            Object::VNic(vnic) => (&vnic.metadata, vnic.status.as_ref().map(|s| &s.conditions)),
            Object::Eip(eip) => (&eip.metadata, eip.status.as_ref().map(|s| &s.conditions)),
            Object::EipGateway(gateway) => {
                let status = gateway.status.as_ref();
                (&gateway.metadata, status.map(|s| &s.conditions))
            }
            _ => return None,
        };
        let old: Vec<Condition> = conditions.cloned().unwrap_or_default();
        let mut new = old.clone();
        let verdict = Verdict::no(reason::REFUSED, words);
        condition::set(&mut new, READY, &verdict, meta.generation, now);
        (new != old).then(|| Action::Conditions {
            conditions: new,
            version: meta.resource_version.clone(),
        })
    }

    /// The object to which an Event about `owner` belongs: its own, or the Node that is to have the VNic.
    fn reference(&self, owner: &Owner) -> Option<ObjectReference> {
        if let Owner::VNic(key) = owner
            && !self.exists(owner)
            && key.namespace == key::SYSTEM_NAMESPACE
        {
            let node = self.snapshot.node(&key.name)?;
            return Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(key.name.clone()),
                uid: Some(node.uid.clone()),
                ..ObjectReference::default()
            });
        }
        Some(match self.object(owner)? {
            Object::Vpc(vpc) => vpc.object_ref(&()),
            Object::Subnet(subnet) => subnet.object_ref(&()),
            Object::VNic(vnic) => vnic.object_ref(&()),
            Object::Eip(eip) => eip.object_ref(&()),
            Object::EipGateway(gateway) => gateway.object_ref(&()),
            Object::NetworkProbe(probe) => probe.object_ref(&()),
            Object::Service(service) => service.object_ref(&()),
            _ => return None,
        })
    }

    /// The object of `owner`, if it exists.
    fn object(&self, owner: &Owner) -> Option<Object> {
        let snapshot = &self.snapshot;
        Some(match owner {
            Owner::Vpc(name) => Object::Vpc(snapshot.vpc(name)?.clone()),
            Owner::Subnet(name) => Object::Subnet(snapshot.subnet(name)?.clone()),
            Owner::VNic(key) => Object::VNic(snapshot.vnic(key)?.clone()),
            Owner::Eip(key) => Object::Eip(snapshot.eip(key)?.clone()),
            Owner::EipGateway(name) => Object::EipGateway(snapshot.eip_gateway(name)?.clone()),
            Owner::NetworkProbe(key) => Object::NetworkProbe(snapshot.probe(key)?.clone()),
            Owner::Service(key) => Object::Service(snapshot.service(key)?.clone()),
            Owner::Node(_) => return None,
        })
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
