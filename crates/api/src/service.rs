//! `YusurService`: the one object that users must know.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::Family;
use crate::backend::{Backend, BackendKind};
use crate::probe::HealthCheck;

/// A service on the ycloud network: backends of any kind, reached from a Vpc, from the nodes, or from outside by an EIP.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io", version = "v1", kind = "YusurService", plural = "yusurservices", shortname = "ysvc",
    namespaced, status = "YusurServiceStatus", derive = "PartialEq", derive = "Default",
    doc = "A service on the ycloud network: backends of any kind, reached from a Vpc, from the nodes, or from outside by an EIP.",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.find('^[a-z][-a-z0-9]*$') != ''").message("metadata.name: at most 63 characters, lower-case letters, digits and '-', starting with a letter, because the Service made for it has the same name"),
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Scope","type":"string","jsonPath":".spec.scope"}"#,
    printcolumn = r#"{"name":"VPC","type":"string","jsonPath":".spec.vpc"}"#,
    printcolumn = r#"{"name":"Cluster-IP","type":"string","jsonPath":".status.clusterIP"}"#,
    printcolumn = r#"{"name":"EIP","type":"string","jsonPath":".status.eip"}"#,
    printcolumn = r#"{"name":"Ports","type":"string","jsonPath":".status.ports"}"#,
    printcolumn = r#"{"name":"Healthy","type":"string","jsonPath":".status.backends.summary"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Gateway-Nodes","type":"string","jsonPath":".status.gatewayNodes","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("self.scope != 'vpc' || has(self.vpc)").message("spec.vpc: required with scope vpc; name the Vpc of the clients and backends"))]
#[x_kube(validation = Rule::new("has(self.vpc) == has(oldSelf.vpc) && (!has(self.vpc) || self.vpc == oldSelf.vpc)").message("spec.vpc is immutable; make a new YusurService"))]
#[x_kube(validation = Rule::new("self.scope == oldSelf.scope").message("spec.scope is immutable; make a new YusurService"))]
#[x_kube(validation = Rule::new("self.scope != 'multiVpc' || self.type == 'LoadBalancer'").message("spec.scope: multiVpc needs type LoadBalancer"))]
#[x_kube(validation = Rule::new("self.type == 'LoadBalancer' || !(has(self.eip) || has(self.eipGateway) || has(self.loadBalancerSourceRanges) || self.externalTrafficPolicy == 'Local')").message("spec: eip, eipGateway, loadBalancerSourceRanges and externalTrafficPolicy Local need type LoadBalancer"))]
#[x_kube(validation = Rule::new("!has(self.healthCheck) || self.ports.exists(p, p.protocol == 'TCP') || !((has(self.healthCheck.tcp) && !has(self.healthCheck.tcp.port)) || (has(self.healthCheck.http) && !has(self.healthCheck.http.port)) || (has(self.healthCheck.https) && !has(self.healthCheck.https.port)) || (has(self.healthCheck.grpc) && !has(self.healthCheck.grpc.port)))").message("spec.healthCheck: no port of this YusurService is TCP; name the port in the check, or check by udp or icmp"))]
#[x_kube(validation = Rule::new("!has(self.healthCheck) || !has(self.healthCheck.udp) || has(self.healthCheck.udp.port) || self.ports.exists(p, p.protocol == 'UDP')").message("spec.healthCheck.udp: no port of this YusurService is UDP; name the port in the check"))]
#[x_kube(validation = Rule::new("!has(self.resetAfterSeconds) || self.onBackendFailure == 'Reset'").message("spec.resetAfterSeconds: only with onBackendFailure Reset; Keep resets nothing"))]
#[x_kube(validation = Rule::new("!has(self.sessionAffinityConfig) || self.sessionAffinity == 'ClientIP'").message("spec.sessionAffinityConfig: only with sessionAffinity ClientIP"))]
#[x_kube(validation = Rule::new("!has(self.clusterIP) || !has(self.clusterIPs) || self.clusterIPs.size() == 0 || self.clusterIPs[0] == self.clusterIP").message("spec.clusterIPs: the first one must be spec.clusterIP; leave one of both out"))]
#[x_kube(validation = Rule::new("!has(self.ipFamilyPolicy) || self.ipFamilyPolicy != 'SingleStack' || !((has(self.ipFamilies) && self.ipFamilies.size() > 1) || (has(self.clusterIPs) && self.clusterIPs.size() > 1))").message("spec.ipFamilyPolicy: two ipFamilies or clusterIPs need PreferDualStack or RequireDualStack"))]
#[x_kube(validation = Rule::new("!has(self.ipFamilies) || self.ipFamilies.size() == 0 || !has(self.clusterIP) || !isIP(self.clusterIP) || (ip(self.clusterIP).family() == 4) == (self.ipFamilies[0] == 'IPv4')").message("spec.clusterIP: not of the first family of spec.ipFamilies"))]
#[x_kube(validation = Rule::new("!has(self.ipFamilies) || self.ipFamilies.size() == 0 || !has(self.clusterIPs) || self.clusterIPs.size() == 0 || !isIP(self.clusterIPs[0]) || (ip(self.clusterIPs[0]).family() == 4) == (self.ipFamilies[0] == 'IPv4')").message("spec.clusterIPs: the first one is not of the first family of spec.ipFamilies"))]
#[serde(rename_all = "camelCase")]
pub struct YusurServiceSpec {
    /// ClusterIP: reached from inside only, by an address of the service range. LoadBalancer: also from outside, by an
    /// EIP. With scope multiVpc it is reached by the EIP alone: its cluster address leads nowhere. Default: ClusterIP.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Who the clients are and where the backends may be. vpc: both in the Vpc of `vpc`. cluster: clients on the nodes
    /// and in the default Vpc, backends in the default Vpc. multiVpc: clients outside, backends in several Vpcs.
    /// Immutable. Default: vpc.
    #[serde(default)]
    pub scope: Scope,
    /// Name of a Vpc, 1 to 63 characters. Scope vpc: that of clients and backends; required. Scope cluster: leave it
    /// out, or ovn-cluster. Scope multiVpc: that of the Pods of `selector`, and of `backends` that name none. The Vpc
    /// must permit this namespace, by its `allowedNamespaces` or by `namespaces` of one of its Subnets. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub vpc: Option<String>,
    /// The address that clients use, of the cluster's service range and not in use. Once the Service has an address
    /// it stays; to change it, delete and recreate the YusurService. Default: the API server allocates one.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isIP(self)").message("spec.clusterIP: an address of the service range; leave it out to have one allocated"))]
    #[schemars(length(max = 45))]
    pub cluster_ip: Option<String>,
    /// The addresses that clients use: at most one of each family, the first one the same as `clusterIP`, if that is set.
    /// Default: the API server allocates them.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::cluster_ips")]
    pub cluster_ips: Vec<String>,
    /// How many families of addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// The families of its addresses, the primary one first, which cannot change once the Service exists; a second one
    /// may come and go with `ipFamilyPolicy`. Type LoadBalancer needs IPv4 among them; scope multiVpc takes IPv4 alone.
    /// Default: those of `clusterIPs` or `clusterIP`; else IPv4 with SingleStack, or the cluster's own order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(validation = Rule::new("self.size() < 2 || self[0] != self[1]").message("spec.ipFamilies: a family occurs twice"))]
    #[schemars(length(max = 2))]
    pub ip_families: Vec<Family>,
    /// Name of an Eip of this namespace, which must exist, or an IPv4 address; 1 to 253 characters. For an address that
    /// no Eip of this namespace holds or asks for, an Eip of the YusurService's name is made. Only with type
    /// LoadBalancer. Default: the Eip of the YusurService's name, which is made if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub eip: Option<String>,
    /// Name of the EipGateway to allocate from, 1 to 253 characters. The Vpcs of the backends must hang on it
    /// (`Vpc.status.eipGateway`). An Eip that `eip` names must be of it. Else there is no EIP, and Accepted says why.
    /// Only with type LoadBalancer. Default: that of the Vpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub eip_gateway: Option<String>,
    /// What clients connect to: 1 to 1000 ports, no pair of port and protocol twice, no name twice; with several ports
    /// each needs a name.
    #[schemars(length(min = 1, max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into(), "protocol".into()]))]
    #[x_kube(validation = Rule::new("self.size() == 1 || self.all(p, has(p.name))").message("spec.ports: with several ports each needs a name"))]
    #[x_kube(validation = Rule::new("!self.all(p, has(p.name)) || self.transformMapEntry(i, p, {p.name: i}).size() == self.size()").message("spec.ports: a name occurs twice; give each port its own"))]
    pub ports: Vec<ServicePort>,
    /// Labels of the Pods of this namespace that are backends, as in a Service: a Pod needs all of them. At most 64.
    /// Scope multiVpc takes it only with `vpc`. Default: none, no Pod is selected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub selector: BTreeMap<String, String>,
    /// More backends, of any kind, added to those of `selector`; at most 64 sets. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub backends: Vec<Backend>,
    /// How each backend is checked, from inside its Vpc, at its own target port of the first of `ports` that has the
    /// check's protocol and that it has, unless the check names a port. Default: a TCP connect every 5 seconds; where
    /// no port is TCP, an ICMP echo; `disabled` switches it off. A backend becomes an endpoint with its first success,
    /// or with `successThreshold` in a row if it was unhealthy before. It stops being one when it fails, and stays what
    /// it was for up to 5 minutes while nobody can tell. A Pod must be ready, too. Pods on their node's own network are
    /// not checked from here: their readiness decides. While no ycloud-cni of the whole cluster can check, endpoints
    /// stay without a limit, and a Pod that was never checked counts by its readiness; so a cluster whose nodes are
    /// behind in an upgrade still serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<BackendCheck>,
    /// Seconds, 0 to 3600, for which connections live on at most of a backend that is being deleted and still answers:
    /// a Pod, a VNic, a VirtualMachineInstance. They end with the Pod or guest, if that is earlier. It takes new ones
    /// only while no backend is ready. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: Option<i32>,
    /// What becomes of the open TCP connections of a backend whose check fails. Reset: they end at both ends. Keep:
    /// they live on for as long as the two ends keep them. It takes no new ones either way, and its UDP clients go
    /// elsewhere at once. Connections of a backend that is gone always end. So do those of a guest that halts. A
    /// backend that lives and leaves for another reason (it is not ready, its labels changed) keeps them, but for a Pod
    /// on its node's own network. With scope multiVpc none are kept: they end as soon as a backend leaves, unless it
    /// drains. Default: Reset.
    #[serde(default)]
    pub on_backend_failure: OnBackendFailure,
    /// Seconds, 0 to 3600, from when a check fails until the connections are reset; they are spared if it succeeds
    /// again meanwhile. Only with `onBackendFailure: Reset`. Scope multiVpc does not wait. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub reset_after_seconds: Option<i32>,
    /// None: each connection is balanced by itself. ClientIP: connections of one client address go to one backend, with
    /// the default timeout by a hash of the address and for as long as the set of backends stays. Default: None.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// Details of `sessionAffinity`; only with ClientIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// As in a Service, and without effect: clients are sent to any backend. With scope vpc or cluster backends see the
    /// addresses of clients outside either way, which is what Local is for. Clients in other Vpcs appear behind an
    /// address of the system range. Local: only with type LoadBalancer, and not with scope multiVpc, where backends see
    /// a service gateway's address. Default: Cluster.
    #[serde(default)]
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// Clients that are let in, as IPv4 CIDRs such as 203.0.113.0/24; at most 1024. With scope vpc or cluster, those in
    /// the Service's own Vpc always are. Those in other Vpcs come from an address of the system range: only a CIDR that
    /// holds it, such as 0.0.0.0/0, lets them in. Only with type LoadBalancer. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::cidrs")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether a backend counts as an endpoint although it is not ready, fails its check or is being deleted. It takes
    /// new connections then. The status counts it as healthy. A failing check resets none of its connections. A backend
    /// without an address, of another Vpc or without any of the ports never counts. Default: false.
    #[serde(default)]
    pub publish_not_ready_addresses: bool,
}

/// How each backend of a YusurService is checked, or that none is.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.disabled) && self.disabled) || !(has(self.tcp) || has(self.http) || has(self.https) || has(self.grpc) || has(self.udp) || has(self.icmp))").message("spec.healthCheck.disabled: not together with tcp, http, https, grpc, udp or icmp; remove one of both"))]
pub struct BackendCheck {
    /// Whether backends are not checked at all. Then a Pod's own readiness decides. A VirtualMachineInstance counts
    /// while it runs and is not paused. Other backends always count. Not together with tcp, http, https, grpc, udp or
    /// icmp. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// How they are.
    #[serde(flatten)]
    pub check: HealthCheck,
}

/// One port of a YusurService.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name of the port: 1 to 63 lower-case letters, digits and '-'. Needed where there are several ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: Option<String>,
    /// TCP, UDP or SCTP. Default: TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port that clients connect to, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port of the backend: a number, 1 to 65535, or the name of a container port, 1 to 15 characters, looked up in
    /// each Pod or launcher Pod. A Pod without such a port is no endpoint of it. Nor is a VNic, which has no ports with
    /// names, unless `backends[].ports` gives it a number. Default: the number of `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::port_or_name")]
    pub target_port: Option<IntOrString>,
}

/// Transport protocol of a port.
#[derive(
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
)]
pub enum Protocol {
    /// TCP, RFC 9293.
    #[default]
    TCP,
    /// UDP, RFC 768.
    UDP,
    /// SCTP, RFC 9260.
    SCTP,
}

impl Protocol {
    /// The name as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::TCP => "TCP",
            Protocol::UDP => "UDP",
            Protocol::SCTP => "SCTP",
        }
    }
}

/// How a YusurService is reached.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ServiceType {
    /// By an address of the service range, from inside.
    #[default]
    ClusterIP,
    /// Also by an EIP, from outside.
    LoadBalancer,
}

/// Who the clients of a YusurService are and where its backends may be.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Clients and backends in one Vpc.
    #[default]
    Vpc,
    /// Clients on the nodes and in the default Vpc; backends in the default Vpc.
    Cluster,
    /// Clients outside; backends in several Vpcs.
    MultiVpc,
}

impl Scope {
    /// The name as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Vpc => "vpc",
            Scope::Cluster => "cluster",
            Scope::MultiVpc => "multiVpc",
        }
    }
}

/// How many families of addresses a YusurService has: one (SingleStack), both where the cluster has both (PreferDualStack), or
/// both or none at all (RequireDualStack). Scope multiVpc is IPv4 only. Default: RequireDualStack where `ipFamilies` or
/// `clusterIPs` names two, else SingleStack.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilyPolicy {
    /// One.
    SingleStack,
    /// Both where the cluster has both, else one.
    PreferDualStack,
    /// Both; refused where the cluster has one.
    RequireDualStack,
}

impl IpFamilyPolicy {
    /// The name as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            IpFamilyPolicy::SingleStack => "SingleStack",
            IpFamilyPolicy::PreferDualStack => "PreferDualStack",
            IpFamilyPolicy::RequireDualStack => "RequireDualStack",
        }
    }
}

/// What becomes of the open TCP connections of a backend whose check fails.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnBackendFailure {
    /// They end at both ends.
    #[default]
    Reset,
    /// They live on.
    Keep,
}

/// Whether connections of one client go to one backend.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SessionAffinity {
    /// Each connection is balanced by itself.
    #[default]
    None,
    /// One client address, one backend.
    ClientIP,
}

/// Details of session affinity.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionAffinityConfig {
    /// Details of ClientIP.
    #[serde(default, rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIpConfig>,
}

/// Details of ClientIP affinity.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// Seconds without a new connection after which a client may move, 1 to 86400; more than 65535 count as 65535. With the
    /// default, affinity has no end while the set of backends stays; scope multiVpc takes no other one. Default: 10800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<i32>,
}

/// Whether backends shall see the addresses of clients outside.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ExternalTrafficPolicy {
    /// They need not.
    #[default]
    Cluster,
    /// They shall.
    Local,
}

/// What the controllers made of a YusurService.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct YusurServiceStatus {
    /// The address that clients inside use: the first of `clusterIPs`. With scope multiVpc it leads nowhere.
    #[serde(default, rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// That one, and the one of the other family if there is one.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    /// The address that clients outside use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eip: Option<String>,
    /// The nodes that choose the backends of what comes from outside, as text: the one that carries the EipGateway;
    /// with scope multiVpc those of its service gateways. Told only of an Eip that `spec.eip` names, or of the
    /// YusurService's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_nodes: Option<String>,
    /// The ports as text, for example `5001/TCP,53/UDP`; after eight ports it says how many more there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<String>,
    /// How many backends there are, and how they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<BackendCounts>,
    /// Accepted: the spec is valid and permitted, its Service exists, and ycloud-controller has nothing against that.
    /// BackendsResolved: the selectors found backends, and every named port and address was found. Programmed: every
    /// living node forwards by the present ports and endpoints. Ready: Accepted and Programmed are True, and a backend
    /// is healthy. ForeignEndpoints: EndpointSlices of somebody else name its Service, and nobody is sent there.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Counts of the backends of a YusurService.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendCounts {
    /// Backends that the selectors match, without those in another Vpc than they must be in.
    pub total: i32,
    /// Of those, endpoints that are ready; with `publishNotReadyAddresses` all endpoints.
    pub healthy: i32,
    /// Of those, terminating ones that still answer; they take new connections only while no backend is ready.
    pub draining: i32,
    /// `healthy/total`, for the printer column.
    pub summary: String,
    /// The backends one by one, those in another Vpc too: those that are not healthy first, then by namespace and name;
    /// at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<BackendStatus>,
}

/// One backend of a YusurService.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// Pod, VM, BM or VNicIP.
    pub kind: BackendKind,
    /// Name of the Pod, VNic or VirtualMachineInstance, with its namespace before a slash if that is another than the YusurService's.
    pub name: String,
    /// The Vpc that it is in; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    /// Its address, the primary one of the YusurService's families; absent while it has none or is in another Vpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The node or chassis that it is on; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How it is.
    pub state: BackendState,
    /// Since when, as its probe says it; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// What is wrong, in words; absent while it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a backend is.
#[derive(
    JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum BackendState {
    /// It fails its health check.
    Unhealthy,
    /// It has not been asked yet, or nobody can tell; it is an endpoint if it was one before.
    Unknown,
    /// It has no address yet, is in another Vpc, has no such port, is a Pod that is not ready, or a VirtualMachineInstance that
    /// does not run or is paused.
    NotReady,
    /// It is going away, still answers and keeps the connections it has. It takes new ones only while no backend is
    /// ready.
    Draining,
    /// It is an endpoint.
    Healthy,
}
