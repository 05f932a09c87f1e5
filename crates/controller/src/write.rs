//! Writes to the API server: what can be written, and how each is done.
//!
//! # Guarantees
//! * Every patch carries the resource version of the object that it was computed from; if that is not the newest one,
//!   nothing is written and the newest object is returned instead.
//! * Every write ends, within [`LIMIT`] a request.

use k8s_openapi::api::core::v1::{Pod, PodCondition, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use ycloud_api::{Eip, NetworkProbe, Subnet, VNic, Vpc};
use ycloud_compiler::{Event, Object, ObjectKey, Owner};

mod request;

pub use request::LIMIT;
use request::{answer, change, create, delete, failed, has_code, limited};

use crate::events::Events;
pub use crate::events::Report;

/// Field manager of every write.
pub const FIELD_MANAGER: &str = "ycloud-controller";

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes a Vpc.
    CreateVpc(Box<Vpc>),
    /// Makes a Subnet.
    CreateSubnet(Box<Subnet>),
    /// Makes a VNic.
    CreateVNic(Box<VNic>),
    /// Makes an Eip.
    CreateEip(Box<Eip>),
    /// Makes a NetworkProbe.
    CreateProbe(Box<NetworkProbe>),
    /// Changes the owner's object by a merge patch, RFC 7386.
    Patch {
        /// What changes, without metadata, unless `subresource` is none.
        patch: Value,
        /// Part of the object that is written: `status`, or the object itself but for its status.
        subresource: Option<&'static str>,
        /// The version that the patch was computed from.
        version: Option<String>,
    },
    /// Sets the conditions in the status of the owner's object, and nothing else of it.
    Conditions {
        /// All of them.
        conditions: Vec<Condition>,
        /// The version that they were computed from.
        version: Option<String>,
    },
    /// Sets this controller's conditions of a Service, all of them, by server-side apply.
    ServiceConditions(Vec<Condition>),
    /// Sets one condition of the Pod that the owner's VNic is for, by server-side apply.
    PodCondition {
        /// The Pod.
        pod: ObjectKey,
        /// Its UID, so that no later one of the same name is told.
        uid: String,
        /// The condition.
        condition: Box<PodCondition>,
    },
    /// Deletes the owner's Eip.
    DeleteEip {
        /// UID of the Eip, so that no later one of the same name is deleted.
        uid: Option<String>,
    },
    /// Deletes the owner's NetworkProbe.
    DeleteProbe {
        /// UID of the NetworkProbe, so that no later one of the same name is deleted.
        uid: Option<String>,
    },
    /// Deletes the owner's VNic.
    DeleteVNic {
        /// UID of the VNic, so that no later one of the same name is deleted.
        uid: Option<String>,
        /// The Pod it was made for; if that exists (with this UID) and is not finished, nothing is deleted.
        pod: Option<(ObjectKey, String)>,
    },
    /// Lets the owner's VNic, which is being deleted, go.
    ReleaseVNic {
        /// The finalizers that stay.
        finalizers: Vec<String>,
        /// The version that they were computed from.
        version: Option<String>,
        /// As in [`Action::DeleteVNic`].
        pod: Option<(ObjectKey, String)>,
    },
}

impl Action {
    /// Whether it only tells how the object is, or another one: the object needs more than that.
    pub fn tells(&self) -> bool {
        matches!(
            self,
            Action::ServiceConditions(_) | Action::PodCondition { .. } | Action::Conditions { .. }
        )
    }
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// Done. The object as it is now, if it exists.
    Done(Option<Event>),
    /// Not done, since it was computed from an object that changed; this is the object as it is now.
    Stale(Option<Event>),
    /// Not done, since the object does not exist any more.
    Gone,
    /// Not done; a watch has yet to tell something that the API server knows.
    TooSoon,
    /// Not done, and not to be done as long as nobody changes something: the API server's words.
    Refused(String),
    /// Not done; in words.
    Failed(String),
}

impl Written {
    /// One word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Written::Done(_) => "done",
            Written::Stale(_) => "stale",
            Written::Gone => "gone",
            Written::TooSoon => "too soon",
            Written::Refused(_) => "refused",
            Written::Failed(_) => "failed",
        }
    }
}

/// Writes to the API server. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    events: Events,
}

impl Writer {
    /// `identity`: name of this replica, for Events.
    pub fn new(client: Client, identity: &str) -> Self {
        Self {
            events: Events::new(client.clone(), FIELD_MANAGER, identity),
            client,
        }
    }

    /// Does one write on the object of `owner`.
    pub async fn write(&self, owner: &Owner, action: Action) -> Written {
        match action {
            Action::CreateVpc(vpc) => {
                create(&Api::all(self.client.clone()), *vpc, Object::Vpc).await
            }
            Action::CreateSubnet(subnet) => {
                create(&Api::all(self.client.clone()), *subnet, Object::Subnet).await
            }
            Action::CreateVNic(vnic) => {
                let namespace = vnic.metadata.namespace.clone().unwrap_or_default();
                let api = Api::namespaced(self.client.clone(), &namespace);
                create(&api, *vnic, Object::VNic).await
            }
            Action::CreateEip(eip) => {
                let namespace = eip.metadata.namespace.clone().unwrap_or_default();
                let api = Api::namespaced(self.client.clone(), &namespace);
                create(&api, *eip, Object::Eip).await
            }
            Action::CreateProbe(probe) => {
                let namespace = probe.metadata.namespace.clone().unwrap_or_default();
                let api = Api::namespaced(self.client.clone(), &namespace);
                create(&api, *probe, Object::NetworkProbe).await
            }
            Action::Patch {
                patch,
                subresource,
                version,
            } => self.patch(owner, patch, subresource, version).await,
            Action::Conditions {
                conditions,
                version,
            } => {
                let patch = json!({"status": {"conditions": conditions}});
                self.patch(owner, patch, Some("status"), version).await
            }
            Action::ServiceConditions(conditions) => match owner {
                Owner::Service(key) => self.service_conditions(key, conditions).await,
                _ => Written::Gone,
            },
            Action::PodCondition {
                pod,
                uid,
                condition,
            } => self.pod_condition(&pod, &uid, *condition).await,
            Action::DeleteEip { uid } => match owner {
                Owner::Eip(key) => {
                    let api: Api<Eip> = Api::namespaced(self.client.clone(), &key.namespace);
                    delete(&api, &key.name, uid).await
                }
                _ => Written::Gone,
            },
            Action::DeleteProbe { uid } => match owner {
                Owner::NetworkProbe(key) => {
                    let api: Api<NetworkProbe> =
                        Api::namespaced(self.client.clone(), &key.namespace);
                    delete(&api, &key.name, uid).await
                }
                _ => Written::Gone,
            },
            Action::DeleteVNic { uid, pod } => match owner {
                Owner::VNic(key) => self.delete_vnic(key, uid, pod).await,
                _ => Written::Gone,
            },
            Action::ReleaseVNic {
                finalizers,
                version,
                pod,
            } => {
                if let Some(reason) = self.still_runs(pod).await {
                    return reason;
                }
                let patch = json!({"metadata": {"finalizers": finalizers}});
                self.patch(owner, patch, None, version).await
            }
        }
    }

    async fn patch(
        &self,
        owner: &Owner,
        mut patch: Value,
        subresource: Option<&'static str>,
        version: Option<String>,
    ) -> Written {
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = Value::String(version);
        }
        let client = self.client.clone();
        let patch = Patch::Merge(patch);
        match owner {
            Owner::EipGateway(name) => {
                let api = Api::all(client);
                change(&api, name, patch, subresource, Object::EipGateway).await
            }
            Owner::Eip(key) => {
                let api = Api::namespaced(client, &key.namespace);
                change(&api, &key.name, patch, subresource, Object::Eip).await
            }
            Owner::Vpc(name) => {
                change(&Api::all(client), name, patch, subresource, Object::Vpc).await
            }
            Owner::Subnet(name) => {
                change(&Api::all(client), name, patch, subresource, Object::Subnet).await
            }
            Owner::VNic(key) => {
                let api = Api::namespaced(client, &key.namespace);
                change(&api, &key.name, patch, subresource, Object::VNic).await
            }
            Owner::Service(key) => {
                let api = Api::namespaced(client, &key.namespace);
                change(&api, &key.name, patch, subresource, Object::Service).await
            }
            Owner::NetworkProbe(key) => {
                let api = Api::namespaced(client, &key.namespace);
                change(&api, &key.name, patch, subresource, Object::NetworkProbe).await
            }
            Owner::Node(_) => Written::Gone,
        }
    }

    /// By apply, since a merge patch would replace the conditions of others.
    async fn service_conditions(&self, key: &ObjectKey, conditions: Vec<Condition>) -> Written {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let body = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": {"conditions": conditions},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(body);
        let request = api.patch_status(&key.name, &params, &patch);
        answer(&api, &key.name, limited(request).await, Object::Service).await
    }

    async fn pod_condition(&self, pod: &ObjectKey, uid: &str, condition: PodCondition) -> Written {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let body = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": uid},
            "status": {"conditions": [condition]},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(body);
        let request = api.patch_status(&pod.name, &params, &patch);
        match limited(request).await {
            Ok(_) => Written::Done(None),
            // It is gone, or another one by now; the owner of the write is not.
            Err(error) if has_code(&error, 404) || has_code(&error, 409) => Written::Done(None),
            Err(error) => failed(error),
        }
    }

    /// Why nothing must be taken from this Pod (key and UID); `None`: it is gone or finished.
    async fn still_runs(&self, pod: Option<(ObjectKey, String)>) -> Option<Written> {
        let (pod, uid) = pod?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        match limited(pods.get_opt(&pod.name)).await {
            Err(error) => Some(failed(error)),
            Ok(Some(found)) if found.metadata.uid.as_deref() == Some(&uid) && !finished(&found) => {
                // The watch of Pods is behind that of VNics.
                Some(Written::TooSoon)
            }
            Ok(_) => None,
        }
    }

    async fn delete_vnic(
        &self,
        key: &ObjectKey,
        uid: Option<String>,
        pod: Option<(ObjectKey, String)>,
    ) -> Written {
        if let Some(reason) = self.still_runs(pod).await {
            return reason;
        }
        let api: Api<VNic> = Api::namespaced(self.client.clone(), &key.namespace);
        delete(&api, &key.name, uid).await
    }

    /// Publishes an Event; a failure is logged only.
    pub async fn report(&self, report: Report) {
        self.events.publish(report).await;
    }
}

fn finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}
