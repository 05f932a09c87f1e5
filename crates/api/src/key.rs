//! Annotations, labels, finalizers and well-known object names.

/// Pod annotation: the Subnet to attach to. Default: the Subnet that names the Pod's namespace, else [`DEFAULT_SUBNET`].
pub const SUBNET: &str = "iaas.yusur.io/subnet";

/// Pod annotation: a fixed address in the Pod's subnet, or one of each family with a comma between. Default: the first
/// free ones.
pub const IP: &str = "iaas.yusur.io/ip";

/// Service annotation: the Vpc that the Service's clients and endpoints are in. Default: [`DEFAULT_VPC`].
/// EndpointSlice label and annotation: the Vpc of the slice's addresses.
pub const VPC: &str = "iaas.yusur.io/vpc";

/// Annotation of an EndpointSlice of yusurservice-controller: addresses in the slice's Vpc, sorted, with commas between, of
/// backends whose open connections end although they live: their check fails, their guest halted, or their draining is
/// over. What leaves a Service otherwise, and lives, keeps its TCP connections.
pub const ENDED: &str = "iaas.yusur.io/ended";

/// Service annotation: the scope, as in `YusurService.spec.scope`. Default: `vpc`.
pub const SCOPE: &str = "iaas.yusur.io/scope";

/// Service annotation: name of an Eip of the Service's namespace, or an IPv4 address. Default: an Eip of the Service's
/// name, which ycloud-controller makes. An address that no Eip of the namespace holds or asks for: likewise, with it.
pub const EIP: &str = "iaas.yusur.io/eip";

/// Service annotation: name of the EipGateway of an Eip that is made for the Service. Default: the Vpc's.
pub const EIP_GATEWAY: &str = "iaas.yusur.io/eip-gateway";

/// `spec.loadBalancerClass` of the Services that take an EIP; with `spec.type` LoadBalancer.
pub const LOAD_BALANCER_CLASS: &str = "iaas.yusur.io/eip";

/// Service annotation, written by ycloud-controller: digest of the ports and endpoints that every living
/// hypervisor has in its flow tables. Equal to the digest of the Service and EndpointSlices as they are now
/// exactly when the data plane has caught up. Format: 16 lower-case hexadecimal digits.
pub const PROGRAMMED: &str = "iaas.yusur.io/programmed";

/// Namespace and name of the API server's own Service, whose endpoints kube-apiserver itself writes.
pub const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// Label of a Service that another proxy than kube-proxy serves.
/// Source: KEP-2447, `service.kubernetes.io/service-proxy-name`.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Label of a Service that no proxy serves, whatever its value; its address is left to somebody else. Kubernetes' own.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// Value of [`SERVICE_PROXY_NAME`] for Services that ycloud serves.
pub const PROXY: &str = "ycloud";

/// Finalizer on a Vpc, Subnet, EipGateway or Eip: taken away once nothing uses the object any more.
pub const IN_USE_FINALIZER: &str = "iaas.yusur.io/in-use";

/// The default Vpc. Exists from the start; its Pods are reached by every node.
pub const DEFAULT_VPC: &str = "ovn-cluster";

/// The default Subnet of [`DEFAULT_VPC`], for Pods that no other Subnet claims.
pub const DEFAULT_SUBNET: &str = "ovn-default";

/// The join switch: the Subnet of [`DEFAULT_VPC`] on which every node has its node interface.
pub const JOIN_SUBNET: &str = "subnet0";

/// The link that connects a node's host network to [`JOIN_SUBNET`].
pub const NODE_INTERFACE: &str = "node0";

/// Namespace of ycloud's own workloads and of the VNics of nodes.
pub const SYSTEM_NAMESPACE: &str = "ycloud-system";

/// `endpointslice.kubernetes.io/managed-by` of the EndpointSlices that yusurService-controller writes.
pub const ENDPOINTSLICE_MANAGED_BY: &str = "yusurservice-controller.iaas.yusur.io";

/// Namespace of the Leases of probers, apart from those by which controllers elect their leaders: each chassis may write there.
pub const PROBER_NAMESPACE: &str = "ycloud-probers";

/// Label of the Leases in [`PROBER_NAMESPACE`] by which each chassis' ycloud-cni says that it asks NetworkProbes. Its value is
/// `ycloud-cni`; the holder is the chassis; see [`prober_lease`].
pub const PROBER: &str = "iaas.yusur.io/prober";

/// Label of the NetworkProbes in [`SYSTEM_NAMESPACE`] by which ycloud-controller has each chassis asked whether it is there; see
/// [`crate::network_probe::chassis_probe`]. Its value is `ycloud-controller`.
pub const CHASSIS_PROBE: &str = "iaas.yusur.io/chassis-probe";

/// Name of the Lease of a chassis with the label [`PROBER`].
pub fn prober_lease(chassis: &str) -> String {
    format!("prober-{chassis}")
}

/// Seconds for which a Lease of [`prober_lease`] holds. It is renewed three times as often.
pub const PROBER_LEASE_SECONDS: i32 = 30;
