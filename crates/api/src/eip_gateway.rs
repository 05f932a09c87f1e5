//! `EipGateway`: a range of EIPs, the physical network they live on, and the nodes that may carry them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::subnet::Addresses;
use crate::vpc::AllowedNamespaces;

/// A range of EIPs, the physical network and upstream router that they are reached by, and the nodes that may carry
/// their traffic: one at a time, the next one when it fails.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io", version = "v1", kind = "EipGateway", plural = "eipgateways", shortname = "eipgw",
    doc = "A range of EIPs, the physical network and upstream router that they are reached by, and the nodes that may carry their traffic.",
    status = "EipGatewayStatus", derive = "PartialEq", derive = "Default",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters; OVN carries it"),
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Gateway","type":"string","jsonPath":".spec.gateway"}"#,
    printcolumn = r#"{"name":"Active-Node","type":"string","jsonPath":".status.activeNode"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.addresses.used"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.addresses.free"}"#,
    printcolumn = r#"{"name":"Default","type":"boolean","jsonPath":".spec.default"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct EipGatewaySpec {
    /// IPv4 range from which EIPs are given out, in CIDR notation, prefix length 8 to 30, for example 198.51.100.0/24.
    /// It may grow or shrink as long as every Eip stays inside. Never overlaps another EipGateway's range, a Subnet,
    /// the service range, the system range or addresses of nodes or the API server. If the link of `address` and the
    /// range overlap, the EIPs are on that link and are answered for by ARP; else the upstream router must route the
    /// range to `address`.
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self) == cidr(self).masked() && cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 30").message("spec.cidr: an IPv4 network such as 198.51.100.0/24, prefix length 8 to 30, no host bits set"))]
    #[x_kube(validation = Rule::new("!isCIDR(self) || ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4'].all(r, !cidr(r).containsCIDR(self) && !cidr(self).containsCIDR(r))").message("spec.cidr: hosts cannot have addresses of 0.0.0.0/8, loopback, link-local, multicast or reserved ranges; choose the range that is routed here"))]
    #[schemars(length(max = 18))]
    pub cidr: String,
    /// IPv4 address of the upstream router, on the link of `address`; it is never given out. No Subnet overlaps that link.
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.gateway: the IPv4 address of the upstream router"))]
    #[schemars(length(max = 15))]
    pub gateway: String,
    /// The gateway's own address on the link to the upstream router, with the link's prefix length, 8 to 30, for example
    /// 198.51.100.2/24. Default: the first usable address of `cidr` that is neither `gateway` nor excluded, with the
    /// prefix length of `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 30").message("spec.address: an IPv4 address with prefix length 8 to 30, such as 198.51.100.2/24"))]
    #[schemars(length(max = 18))]
    pub address: Option<String>,
    /// Name of the physical network, as the nodes' Open vSwitch maps it to a bridge (`external_ids:ovn-bridge-mappings`),
    /// 1 to 63 letters, digits, '-', '_' and '.'. A node without it cannot carry the gateway.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub physical_network: String,
    /// VLAN tag on the physical network, 0 to 4094; 0: none. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4094))]
    pub vlan: i32,
    /// Addresses never given out: single ones (198.51.100.9) or inclusive ranges (198.51.100.200-198.51.100.254); at
    /// most 256. Default: none.
    #[serde(default, rename = "excludeIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::ipv4_ranges")]
    pub exclude_ips: Vec<String>,
    /// Labels of the nodes that may carry the gateway. Default: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Namespaces that may have Eips of it. If it is set, an Eip of any other namespace is refused, also one that holds an
    /// address. Default: nobody's new Eips, while those that hold an address of it keep that; of the default EipGateway,
    /// those of every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// How many service gateways, over which Services with backends in several Vpcs are spread, 1 to 8. Default: 2.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 8))]
    pub service_gateways: i32,
    /// Seconds for which an address rests that an Eip gave up, 0 to 86400: no other namespace gets it meanwhile, as clients
    /// still send to it, whose DNS answers are old. Its own namespace may have it at once, and gets it before others. It
    /// counts from when the Eip was deleted and nothing used it any more; a change is for those that rest, too. 0: none
    /// rests. Default: 600.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 0, max = 86400))]
    pub reuse_after_seconds: i32,
    /// Whether Eips and Vpcs that name no EipGateway use this one. Of several marked ones the oldest is it; if none is
    /// marked, the oldest EipGateway is. A Vpc that hangs on another one stays there while it is reached at EIPs of that
    /// one. Default: false.
    #[serde(default)]
    pub default: bool,
}

fn two() -> i32 {
    2
}

fn ten_minutes() -> i32 {
    600
}

/// What ycloud-controller made of an EipGateway.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EipGatewayStatus {
    /// The range from which EIPs are given out: `spec.cidr`, or, while a change of it is refused, the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// Its own address on the link to the upstream router, with the link's prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The node that carries the gateway now, or, while none does, the one that is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_node: Option<String>,
    /// Names of the nodes that may carry it: selected and on the physical network; sorted.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The service gateways and where they are.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["index".into()]))]
    pub service_gateways: Vec<ServiceGatewayStatus>,
    /// How many EIPs there are. One that rests (`released`) is neither used nor free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// The addresses that Eips gave up and that rest (`spec.reuseAfterSeconds`), by address; at most 256: of more, those of
    /// the namespace that gave up most, from the first on, rest no longer. This is the record of it, and ycloud-controller's
    /// alone to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub released: Vec<ReleasedAddress>,
    /// Ready: the spec is in force in OVN, and a node can carry it; or the message says why not. InUse: a deletion
    /// waits for the users that its message names.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// An address that an Eip gave up.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleasedAddress {
    /// The IPv4 address.
    pub address: String,
    /// Namespace of the Eip that held it last.
    pub namespace: String,
    /// When that Eip was deleted and nothing used it any more.
    pub time: Time,
}

impl EipGatewayStatus {
    /// How many addresses `released` has at most.
    pub const MOST_RELEASED: usize = 256;
}

/// Where a service gateway is.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceGatewayStatus {
    /// Its number, from 1.
    pub index: i32,
    /// The node that carries it; missing while no node can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}
