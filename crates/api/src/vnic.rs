//! `VNic`: one attachment to a subnet. It is the record of the address that it holds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One attachment to a Subnet: address, MAC, chassis. A Pod gets one when it is scheduled (named by [`pod_vnic_name`]),
/// a node one on the join switch; for a virtual machine, a bare-metal server or a bare address one is made by its owner.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io",
    version = "v1",
    kind = "VNic",
    plural = "vnics",
    shortname = "vn",
    namespaced,
    doc = "One attachment to a Subnet: address, MAC, chassis. It is the record of the address that it holds.",
    status = "VNicStatus",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".spec.attachment.chassis",
    selectable = ".spec.subnet",
    printcolumn = r#"{"name":"Subnet","type":"string","jsonPath":".spec.subnet"}"#,
    printcolumn = r#"{"name":"VPC","type":"string","jsonPath":".status.vpc"}"#,
    printcolumn = r#"{"name":"IP","type":"string","jsonPath":".status.ip"}"#,
    printcolumn = r#"{"name":"IPv6","type":"string","jsonPath":".status.ipv6.ip"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".spec.attachment.kind"}"#,
    printcolumn = r#"{"name":"Attached-To","type":"string","jsonPath":".spec.attachment.name"}"#,
    printcolumn = r#"{"name":"Chassis","type":"string","jsonPath":".status.chassis"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("has(self.ip) == has(oldSelf.ip) && (!has(self.ip) || self.ip == oldSelf.ip)").message("spec.ip is immutable; make a new VNic"))]
#[x_kube(validation = Rule::new("has(self.ipv6) == has(oldSelf.ipv6) && (!has(self.ipv6) || self.ipv6 == oldSelf.ipv6)").message("spec.ipv6 is immutable; make a new VNic"))]
#[x_kube(validation = Rule::new("has(self.mac) == has(oldSelf.mac) && (!has(self.mac) || self.mac == oldSelf.mac)").message("spec.mac is immutable; make a new VNic"))]
#[x_kube(validation = Rule::new("!(oldSelf.attachment.kind in ['Pod', 'Node']) || self.attachment == oldSelf.attachment").message("spec.attachment of a Pod or node is immutable; its controller makes a new VNic"))]
#[serde(rename_all = "camelCase")]
pub struct VNicSpec {
    /// Name of the Subnet, 1 to 63 characters. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.subnet is immutable; make a new VNic"))]
    #[schemars(length(min = 1, max = 63))]
    pub subnet: String,
    /// A fixed IPv4 address inside the Subnet. Immutable. Default: the next free one behind the one given out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.ip: an IPv4 address inside the Subnet"))]
    #[schemars(length(max = 15))]
    pub ip: Option<String>,
    /// A fixed IPv6 address inside the Subnet. Immutable. Default: in a Subnet that has IPv6, the next free one behind
    /// the one given out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 6").message("spec.ipv6: an IPv6 address inside the Subnet"))]
    #[schemars(length(max = 39))]
    pub ipv6: Option<String>,
    /// A fixed unicast MAC address: six lower-case hexadecimal pairs with colons, such as 0a:00:00:00:01:09. Immutable.
    /// Neither that of the Subnet's router nor of another VNic in the Subnet. Default: derived from the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"))]
    #[x_kube(validation = Rule::new("self != '00:00:00:00:00:00'").message("spec.mac: 00:00:00:00:00:00 is no address; write one such as 0a:00:00:00:01:09, or leave it out"))]
    pub mac: Option<String>,
    /// What is attached, and where. Default: nothing, a bare address.
    #[serde(default)]
    pub attachment: Attachment,
}

/// What is attached to a VNic, and where.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.kind == 'None' || has(self.name)").message("spec.attachment.name: required unless kind is None"))]
#[x_kube(validation = Rule::new("self.kind != 'Pod' || (has(self.uid) && has(self.chassis))").message("spec.attachment: kind Pod needs uid and chassis; ycloud-controller makes the VNics of Pods"))]
#[x_kube(validation = Rule::new("self.kind != 'Node' || has(self.chassis)").message("spec.attachment: kind Node needs chassis; ycloud-controller makes the VNics of nodes"))]
#[x_kube(validation = Rule::new("!has(self.device) || has(self.chassis)").message("spec.attachment.device: needs spec.attachment.chassis, the chassis that has the device"))]
#[x_kube(validation = Rule::new("!has(self.device) || !(self.kind in ['Pod', 'Node'])").message("spec.attachment.device: not with kind Pod or Node; ycloud-cni makes their devices"))]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Pod and Node: made by ycloud-controller. VM: a virtual machine. BM: a bare-metal server. None: a bare address.
    /// Default: None.
    #[serde(default)]
    pub kind: AttachmentKind,
    /// Its name, 1 to 253 characters: the Pod, node, virtual machine or server. Required unless kind is None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// UID of the Pod, so that a later Pod of the same name is another one. Required with kind Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub uid: Option<String>,
    /// Chassis (node name, 1 to 253 characters) that holds the device. Default: unknown yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub chassis: Option<String>,
    /// The network device of that chassis that carries its packets; the chassis' ycloud-cni puts it on br-int. Not for Pods
    /// and nodes. Default: none; whoever has an Open vSwitch interface with `iface-id` `<namespace>/<name>` binds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

/// A network device of a chassis: exactly one of `tap`, `representor` and `port`, a name of 1 to 15 characters.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.tap), has(self.representor), has(self.port)].filter(x, x).size() == 1").message("spec.attachment.device: exactly one of tap, representor and port"))]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The tap device of a virtual machine, which its hypervisor made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9_.@-]+$"))]
    pub tap: Option<String>,
    /// The representor of a virtual function of a SmartNIC or DPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9_.@-]+$"))]
    pub representor: Option<String>,
    /// A port of the chassis to which a server is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[A-Za-z0-9_.@-]+$"))]
    pub port: Option<String>,
}

impl Device {
    /// The device's name; `None` only of one that the API server would refuse.
    pub fn name(&self) -> Option<&str> {
        let names = [&self.tap, &self.representor, &self.port];
        names.into_iter().find_map(|name| name.as_deref())
    }
}

/// The kind of thing attached to a VNic.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AttachmentKind {
    /// A Pod, wired by ycloud-cni.
    Pod,
    /// A node's own host network, on the join switch.
    Node,
    /// A virtual machine.
    VM,
    /// A bare-metal server.
    BM,
    /// Nothing: a bare address.
    #[default]
    None,
}

/// What ycloud-controller made of a VNic.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VNicStatus {
    /// The IPv4 address it holds. Once written it is its own until the VNic is deleted. Absent in a Subnet without IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Prefix length of the Subnet's `cidr`, 8 to 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<i32>,
    /// The router's IPv4 address on the Subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The IPv6 address it holds. Written together with `ip` where the Subnet has both. Where a Subnet gains a family later,
    /// VNics of Pods go on without it, and others get it. Absent in a Subnet without IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<VNicIpv6>,
    /// Its MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The Subnet's Vpc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    /// `spec.attachment.chassis`, while OVN has bound the port, on whichever chassis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chassis: Option<String>,
    /// Pending: no address yet, or it is refused. Bound: has an address and a logical port. Up: OVN has bound the port
    /// on a chassis.
    #[serde(default)]
    pub phase: Phase,
    /// Ready: its port is bound, or, of a bare address, made; or the message says why not. Wired, where the attachment
    /// names a device: the device is on the integration bridge of its chassis, or the message says which chassis looked
    /// and what is wrong. InUse: a deletion waits for what its message names.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// An address that a VNic holds, of either family, and how its holder is set up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    /// The address.
    pub ip: &'a str,
    /// Prefix length of the Subnet's range of that family.
    pub prefix_length: Option<i32>,
    /// The router's address of that family.
    pub gateway: Option<&'a str>,
}

impl VNicStatus {
    /// The addresses it holds, IPv4 first.
    pub fn links(&self) -> impl Iterator<Item = Link<'_>> {
        let ipv4 = self.ip.as_deref().map(|ip| Link {
            ip,
            prefix_length: self.prefix_length,
            gateway: self.gateway.as_deref(),
        });
        let ipv6 = self.ipv6.as_ref().map(|ipv6| Link {
            ip: &ipv6.ip,
            prefix_length: Some(ipv6.prefix_length),
            gateway: Some(&ipv6.gateway),
        });
        ipv4.into_iter().chain(ipv6)
    }
}

/// The IPv6 address of a VNic.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VNicIpv6 {
    /// The address. Once written it is the VNic's own until that is deleted.
    pub ip: String,
    /// Prefix length of the Subnet's `ipv6.cidr`, 64 to 126.
    pub prefix_length: i32,
    /// The router's IPv6 address on the Subnet.
    pub gateway: String,
}

/// How far a VNic is.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// No address yet.
    #[default]
    Pending,
    /// Has an address and a logical port.
    Bound,
    /// OVN has bound the port on a chassis (`Logical_Switch_Port:up`).
    Up,
}

/// The name of the VNic of a Pod: the Pod's name (at most 200 characters of it) and the first eight characters of its
/// UID, so that two Pods that follow each other under one name never share a record.
pub fn pod_vnic_name(pod: &str, uid: &str) -> String {
    let head: String = pod.chars().take(200).collect();
    let tail: String = uid
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .take(8)
        .collect();
    format!("{}-{tail}", head.trim_end_matches(['-', '.']))
}

/// The name of the `Logical_Switch_Port` of a VNic, and the `iface-id` of its OVS interface: `namespace/name`.
pub fn logical_port(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
