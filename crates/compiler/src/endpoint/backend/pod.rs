//! Pods as backends.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::address::Family;
use ycloud_api::{VNic, YusurService, key};

use super::super::scope::takes_host_network;

/// A Pod that may be a backend.
#[derive(Debug, Clone, Copy)]
pub struct PodBackend<'a> {
    /// The Pod.
    pub pod: &'a Pod,
    /// Its VNic; none before it has one, and for Pods on the node's own network.
    pub vnic: Option<&'a VNic>,
}

/// Whether the Pod ended and will not run again.
pub fn finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the Pod uses its node's own network.
pub fn host_network(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.host_network) == Some(true)
}

/// Whether its kubelet calls it ready.
pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| &s.conditions).flatten();
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True")
}

/// When its deletion began: the deletion timestamp is when its grace ends.
pub fn deleted(pod: &Pod) -> Option<Time> {
    let end = pod.metadata.deletion_timestamp.as_ref()?;
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let grace = std::time::Duration::from_secs(grace.max(0).unsigned_abs());
    Some(end.0.checked_sub(grace).map_or_else(|_| end.clone(), Time))
}

impl<'a> PodBackend<'a> {
    /// The Vpc that it is reached in: that of its VNic, if it has one. One on the node's network is reached in the default
    /// Vpc, where the scope takes such Pods.
    pub fn vpc(&self, ysvc: &YusurService) -> Option<&'a str> {
        if host_network(self.pod) {
            return takes_host_network(ysvc).then_some(key::DEFAULT_VPC);
        }
        self.vnic?.status.as_ref()?.vpc.as_deref()
    }

    /// The address of its VNic in a family, once it has one; that of its node, if it uses the node's network.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        if host_network(self.pod) {
            let of = |text: &str| text.parse().ok().filter(|ip| Family::of(*ip) == family);
            let status = self.pod.status.as_ref()?;
            let ips = status.pod_ips.iter().flatten().map(|pod| pod.ip.as_str());
            return status.pod_ip.as_deref().into_iter().chain(ips).find_map(of);
        }
        super::vnic::address(self.vnic?, family)
    }
}

/// The number of the container port `name`, of any container that runs beside the others for as long as the Pod does.
pub fn container_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let always = Some("Always");
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|c| c.restart_policy.as_deref() == always);
    let containers = spec.containers.iter().chain(sidecars);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    })?;
    Some(port.container_port)
}
