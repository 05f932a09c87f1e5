//! What is kept of Pods, Nodes and EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use ycloud_api::address::Family;
use ycloud_api::condition::OURS_ACCEPTED;
use ycloud_api::key;
use ycloud_api::made::{self, SERVICE_NAME, made_for, slice_made_for};
use ycloud_api::vnic::pod_vnic_name;

use crate::address::listed;
use crate::owner::ObjectKey;

/// What is kept of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID; empty if it has none yet.
    pub uid: String,
    /// The node it is scheduled to.
    pub node: Option<String>,
    /// Annotation [`key::SUBNET`].
    pub subnet: Option<String>,
    /// Annotation [`key::IP`].
    pub ip: Option<String>,
    /// It uses the node's own network.
    pub host_network: bool,
    /// It ended (phase Succeeded or Failed) and will not run again.
    pub finished: bool,
    /// Reason and message of its condition [`OURS_ACCEPTED`], if that is False.
    pub refused: Option<(String, String)>,
}

impl PodFacts {
    /// What matters of a Pod. `None` without a name.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let annotation = |name| {
            meta.annotations
                .as_ref()
                .and_then(|all| all.get(name))
                .cloned()
        };
        let spec = pod.spec.as_ref();
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        Some(Self {
            key: ObjectKey::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone()?,
            ),
            uid: meta.uid.clone().unwrap_or_default(),
            node: spec
                .and_then(|spec| spec.node_name.clone())
                .filter(|node| !node.is_empty()),
            subnet: annotation(key::SUBNET),
            ip: annotation(key::IP),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            refused: refusal(pod),
        })
    }

    /// Whether it must have a VNic: scheduled, on a network of its own, not finished.
    pub fn wants_vnic(&self) -> bool {
        self.node.is_some() && !self.host_network && !self.finished
    }

    /// The key of its VNic.
    pub fn vnic_key(&self) -> ObjectKey {
        let name = pod_vnic_name(&self.key.name, &self.uid);
        ObjectKey::new(self.key.namespace.clone(), name)
    }
}

/// Why a Pod has no address, as its condition says.
fn refusal(pod: &Pod) -> Option<(String, String)> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.find(|c| c.type_ == OURS_ACCEPTED && c.status == "False")?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some((text(&found.reason), text(&found.message)))
}

/// What is kept of a Node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// UID, for owner references.
    pub uid: String,
    /// Its addresses of type InternalIP, of either family.
    pub addresses: Vec<IpAddr>,
    /// Condition Ready is True: it counts as living.
    pub ready: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl NodeFacts {
    /// What matters of a Node.
    pub fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_ref());
        let internal = addresses
            .into_iter()
            .flatten()
            .filter(|a| a.type_ == "InternalIP");
        let conditions = status.and_then(|status| status.conditions.as_ref());
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: internal.filter_map(|a| a.address.parse().ok()).collect(),
            ready: conditions
                .into_iter()
                .flatten()
                .any(|c| c.type_ == "Ready" && c.status == "True"),
        }
    }
}

/// What is kept of an EndpointSlice: the endpoints that could take traffic, as addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub service: ObjectKey,
    /// UID of the YusurService that it was made for.
    pub made_for: Option<String>,
    /// The Vpc of its addresses; `None`: that of the Service.
    pub vpc: Option<String>,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
    /// Sorted: backends whose open connections end although they may live, [`key::ENDED`].
    pub ended: Vec<IpAddr>,
}

/// A port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Empty: the unnamed port.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    pub port: u16,
}

/// An endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// True: takes new connections. False: terminating and still serving, used if nobody is ready.
    pub ready: bool,
    /// The node it is on.
    pub node: Option<Arc<str>>,
}

impl Slice {
    /// What matters of a slice. `None` if it has names instead of addresses, or belongs to no Service.
    pub fn of(slice: &EndpointSlice) -> Option<Self> {
        let family = Family::named(&slice.address_type)?;
        let meta = &slice.metadata;
        let value = |map: &Option<BTreeMap<String, String>>, name| {
            map.as_ref().and_then(|all| all.get(name)).cloned()
        };
        let service = value(&meta.labels, SERVICE_NAME)?;
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port
                    .port
                    .and_then(|port| u16::try_from(port).ok())
                    .filter(|port| *port > 0)?,
            })
        });
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            // Source of the defaults: discovery.k8s.io/v1 EndpointConditions.
            let ready = conditions.ready.unwrap_or(true);
            let serving = conditions.serving.unwrap_or(ready);
            let terminating = conditions.terminating.unwrap_or(false);
            // The addresses of one endpoint are interchangeable, and clients use the first one.
            let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let node = endpoint.node_name.as_deref().map(Arc::from);
            let takes = Family::of(ip) == family && (ready || (serving && terminating));
            takes.then_some(Endpoint { ip, ready, node })
        });
        let annotations = meta.annotations.as_ref();
        let ended = annotations.and_then(|all| all.get(key::ENDED));
        let mut ended: Vec<IpAddr> = listed(ended.map(String::as_str)).collect();
        ended.sort_unstable();
        Some(Self {
            ended,
            made_for: slice_made_for(meta).map(str::to_owned),
            service: ObjectKey::new(meta.namespace.clone().unwrap_or_default(), service),
            vpc: value(&meta.labels, key::VPC).or_else(|| value(&meta.annotations, key::VPC)),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }

    /// Whether it counts for a Service that it names.
    pub fn counts(&self, service: &Service) -> bool {
        made::counts(made_for(&service.metadata), self.made_for.as_deref())
    }
}
