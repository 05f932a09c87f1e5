//! What the agent counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    /// `ADD`, `DEL`, `CHECK`, `STATUS` or `GC`.
    pub command: &'static str,
    /// `success` or `failure`.
    pub outcome: &'static str,
}

/// The agent's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Seconds that requests took.
    pub requests: Family<Labels, Histogram, fn() -> Histogram>,
    /// Ports of Pods in Open vSwitch.
    pub ports: Gauge,
    /// Those of them that ovn-controller has installed.
    pub ports_installed: Gauge,
    /// Ports of Pods that the node cannot probe: their address is one that it uses itself.
    pub ports_not_probed: Gauge,
    /// VNics of this node, its own included.
    pub vnics: Gauge,
    /// 1 while the connection to Open vSwitch stands, else 0.
    pub ovs_connected: Gauge,
    /// 1 while the node interface is as it shall be, else 0.
    pub node_interface_ready: Gauge,
    /// 1 if the kernel has nft_socket, else 0: Services do not reach servers that listen at the node's own address alone.
    pub nft_socket: Gauge,
    /// Ports and addresses of Services that the node's own rules serve.
    pub frontends: Gauge,
    /// 1 while those rules are as they shall be, else 0.
    pub services_applied: Gauge,
    /// Flows of session affinity in the bridge.
    pub affinity_flows: Gauge,
    /// 1 while those flows are as they shall be, else 0: clients of Services with an affinity timeout may fail to connect.
    pub affinity_applied: Gauge,
    /// 1 while an ADD could be served, else 0: what `/readyz` says.
    pub ready: Gauge,
    /// Of the prober.
    pub prober: super::prober::metrics::Metrics,
    /// Of flushes.
    pub ct_flush: super::ct_flush::metrics::Metrics,
    /// Of devices.
    pub devices: super::devices::metrics::Metrics,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]);
        let metrics = Self {
            requests: Family::new_with_constructor(seconds as fn() -> Histogram),
            ports: Gauge::default(),
            ports_installed: Gauge::default(),
            ports_not_probed: Gauge::default(),
            vnics: Gauge::default(),
            ovs_connected: Gauge::default(),
            node_interface_ready: Gauge::default(),
            nft_socket: Gauge::default(),
            frontends: Gauge::default(),
            services_applied: Gauge::default(),
            affinity_flows: Gauge::default(),
            affinity_applied: Gauge::default(),
            ready: Gauge::default(),
            prober: super::prober::metrics::Metrics::new(registry),
            ct_flush: super::ct_flush::metrics::Metrics::new(registry),
            devices: super::devices::metrics::Metrics::new(registry),
        };
        registry.register_with_unit(
            "ycloud_cni_request_duration",
            "Time that a request of the CNI plugin took",
            Unit::Seconds,
            metrics.requests.clone(),
        );
        for (name, help, gauge) in metrics.gauges() {
            registry.register(name, help, gauge.clone());
        }
        metrics
    }

    fn gauges(&self) -> [(&'static str, &'static str, &Gauge); 12] {
        [
            (
                "ycloud_cni_ports",
                "Ports of Pods in Open vSwitch",
                &self.ports,
            ),
            (
                "ycloud_cni_ports_installed",
                "Ports of Pods whose flows ovn-controller has installed",
                &self.ports_installed,
            ),
            (
                "ycloud_cni_ports_not_probed",
                "Ports of Pods that the kubelet cannot probe, as the node uses their address itself",
                &self.ports_not_probed,
            ),
            (
                "ycloud_cni_vnics",
                "VNics of this node, its own included",
                &self.vnics,
            ),
            (
                "ycloud_cni_ovs_connected",
                "Whether the connection to Open vSwitch stands",
                &self.ovs_connected,
            ),
            (
                "ycloud_cni_node_interface_ready",
                "Whether the node interface is as it shall be",
                &self.node_interface_ready,
            ),
            (
                "ycloud_cni_nft_socket",
                "Whether the kernel has nft_socket, so that Services reach servers that listen at the node's own address alone",
                &self.nft_socket,
            ),
            (
                "ycloud_cni_frontends",
                "Ports and addresses of Services that the node's own rules serve",
                &self.frontends,
            ),
            (
                "ycloud_cni_services_applied",
                "Whether the node's own rules of Services are as they shall be",
                &self.services_applied,
            ),
            (
                "ycloud_cni_affinity_flows",
                "Flows of session affinity in the integration bridge",
                &self.affinity_flows,
            ),
            (
                "ycloud_cni_affinity_applied",
                "Whether the flows of session affinity are as they shall be",
                &self.affinity_applied,
            ),
            (
                "ycloud_cni_ready",
                "Whether an ADD could be served",
                &self.ready,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn names_begin_with_the_programs() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let labels = Labels {
            command: "ADD",
            outcome: "success",
        };
        metrics.requests.get_or_create(&labels).observe(0.1);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let mut names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        assert!(names.clone().count() > 20, "{text}");
        assert!(names.all(|name| name.starts_with("ycloud_cni_")), "{text}");
    }
}
