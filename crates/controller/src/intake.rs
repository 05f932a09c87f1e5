//! The watches of ycloud-controller: every kind that rows follow from, into one channel.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::watcher::Config;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use ycloud_api::{Eip, EipGateway, NetworkProbe, Subnet, VNic, Vpc, key};
use ycloud_client::Supervisor;
use ycloud_client::supervisor::LIMIT;
use ycloud_compiler::{Event, Object, ObjectKey, ObjectRef};

use crate::watch::{Change, Closed, Key, watch};

/// What the watches tell.
#[derive(Debug, Clone)]
pub enum Input {
    /// An object changed.
    Event(Event),
    /// The Lease of a prober changed.
    Lease(Box<Lease>),
    /// The Lease of this name is gone.
    LeaseGone(String),
    /// One more kind was listed completely.
    Listed,
}

/// How many [`Input::Listed`] there will be.
pub const KINDS: usize = 13;

/// Changes that wait in the channel before the watches are held up.
const CAPACITY: usize = 1024;

/// Pods that may need an address: scheduled, not on the host network, not finished. A Pod that finishes leaves the
/// selection, which the API server tells as a deletion.
const PODS: &str =
    "spec.nodeName!=,spec.hostNetwork=false,status.phase!=Succeeded,status.phase!=Failed";

/// Starts all watches. They end with `stop`, or when the receiver is dropped.
pub fn start(
    client: &Client,
    supervisor: &Supervisor,
    stop: &CancellationToken,
) -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let start = Start {
        client,
        supervisor,
        stop,
        sender,
    };
    let all = Config::default;
    start.watch::<Vpc>(all(), |_| {}, Object::Vpc, |k| ObjectRef::Vpc(k.name));
    start.watch::<Subnet>(all(), |_| {}, Object::Subnet, |k| ObjectRef::Subnet(k.name));
    start.watch::<VNic>(
        all(),
        |_| {},
        Object::VNic,
        |k| ObjectRef::VNic(namespaced(k)),
    );
    start.watch::<EipGateway>(
        all(),
        |_| {},
        Object::EipGateway,
        |k| ObjectRef::EipGateway(k.name),
    );
    start.watch::<Eip>(
        all(),
        |_| {},
        Object::Eip,
        |k| ObjectRef::Eip(namespaced(k)),
    );
    start.watch::<Node>(all(), reduce_node, Object::Node, |k| {
        ObjectRef::Node(k.name)
    });
    start.watch::<Namespace>(
        all(),
        |_| {},
        Object::Namespace,
        |k| ObjectRef::Namespace(k.name),
    );
    start.watch::<Pod>(all().fields(PODS), reduce_pod, Object::Pod, |k| {
        ObjectRef::Pod(namespaced(k))
    });
    start.watch::<Service>(
        all(),
        |_| {},
        Object::Service,
        |k| ObjectRef::Service(namespaced(k)),
    );
    start.watch::<EndpointSlice>(
        all(),
        |_| {},
        Object::EndpointSlice,
        |k| ObjectRef::EndpointSlice(namespaced(k)),
    );
    start.watch::<ServiceCIDR>(
        all(),
        |_| {},
        Object::ServiceCidr,
        |k| ObjectRef::ServiceCidr(k.name),
    );
    start.watch::<NetworkProbe>(
        all(),
        |_| {},
        Object::NetworkProbe,
        |k| ObjectRef::NetworkProbe(namespaced(k)),
    );
    start.watch_leases();
    receiver
}

struct Start<'a> {
    client: &'a Client,
    supervisor: &'a Supervisor,
    stop: &'a CancellationToken,
    sender: mpsc::Sender<Input>,
}

impl Start<'_> {
    fn watch<K>(
        &self,
        config: Config,
        reduce: fn(&mut K),
        object: fn(Arc<K>) -> Object,
        reference: fn(Key) -> ObjectRef,
    ) where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::all(self.client.clone());
        self.run(api, config, reduce, move |change| match change {
            Change::Apply(k) => Input::Event(Event::Apply(object(Arc::new(k)))),
            Change::Delete(key) => Input::Event(Event::Delete(reference(key))),
            Change::Synced => Input::Listed,
        });
    }

    /// The Leases by which chassis say that they ask NetworkProbes.
    fn watch_leases(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), key::PROBER_NAMESPACE);
        let config = Config::default().labels(key::PROBER);
        self.run(
            api,
            config,
            |_| {},
            |change| match change {
                Change::Apply(lease) => Input::Lease(Box::new(lease)),
                Change::Delete(key) => Input::LeaseGone(key.name),
                Change::Synced => Input::Listed,
            },
        );
    }

    fn run<K>(
        &self,
        api: Api<K>,
        config: Config,
        reduce: fn(&mut K),
        input: impl Fn(Change<K>) -> Input + Send + Sync + 'static,
    ) where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        let (sender, stop) = (self.sender.clone(), self.stop.clone());
        let name = format!("watch of {}", K::kind(&K::DynamicType::default()));
        self.supervisor.spawn(name, LIMIT, |heartbeat| async move {
            let deliver = move |change: Change<K>| {
                let input = input(change);
                let sender = sender.clone();
                heartbeat.beat();
                async move { sender.send(input).await.map_err(|_| Closed) }
            };
            tokio::select! {
                () = watch(api, config, reduce, deliver) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn namespaced(key: Key) -> ObjectKey {
    ObjectKey::new(key.namespace.unwrap_or_default(), key.name)
}

/// Keeps what an address follows from.
fn reduce_pod(pod: &mut Pod) {
    pod.annotations_mut()
        .retain(|name, _| name == key::SUBNET || name == key::IP);
    pod.metadata.owner_references = None;
    pod.metadata.labels = None;
    if let Some(spec) = pod.spec.as_mut() {
        let node_name = spec.node_name.take();
        let host_network = spec.host_network;
        *spec = Default::default();
        spec.node_name = node_name;
        spec.host_network = host_network;
    }
    if let Some(status) = pod.status.as_mut() {
        let phase = status.phase.take();
        *status = Default::default();
        status.phase = phase;
    }
}

/// Takes away the list of images, the longest part of a Node.
fn reduce_node(node: &mut Node) {
    if let Some(status) = node.status.as_mut() {
        status.images = None;
        status.volumes_in_use = None;
        status.volumes_attached = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ycloud_compiler::PodFacts;

    #[test]
    fn a_reduced_pod_tells_the_same_facts() {
        let yaml = "
metadata:
  name: p
  namespace: ns
  uid: 0a1b
  labels: {app: a}
  annotations: {iaas.yusur.io/ip: 10.0.1.9, iaas.yusur.io/subnet: s1, other: x}
spec:
  nodeName: node-1
  hostNetwork: false
  containers: [{name: c, image: i}]
status:
  phase: Running
  podIP: 10.0.1.9
";
        let pod: Pod = serde_yaml::from_str(yaml).unwrap();
        let mut reduced = pod.clone();
        reduce_pod(&mut reduced);
        assert_eq!(PodFacts::of(&reduced), PodFacts::of(&pod));
        assert!(reduced.spec.unwrap().containers.is_empty());
    }
}
