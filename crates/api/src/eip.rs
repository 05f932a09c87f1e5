//! `Eip`: one elastic address. It is the record of the address that it holds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One elastic address: allocated or named, bound to the Services that name it. A Service that names none gets one of
/// its own name, which goes with it.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io",
    version = "v1",
    kind = "Eip",
    plural = "eips",
    shortname = "eip",
    namespaced,
    doc = "One elastic address: allocated or named, bound to the Services that name it.",
    status = "EipStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Gateway","type":"string","jsonPath":".status.eipGateway"}"#,
    printcolumn = r#"{"name":"VPC","type":"string","jsonPath":".status.vpc"}"#,
    printcolumn = r#"{"name":"Bound-To","type":"string","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.node","priority":1}"#,
    printcolumn = r#"{"name":"Service-Gateways","type":"string","jsonPath":".status.serviceGateways","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("!has(oldSelf.eipGateway) || (has(self.eipGateway) && self.eipGateway == oldSelf.eipGateway)").message("spec.eipGateway is immutable once set; make a new Eip"))]
#[x_kube(validation = Rule::new("has(self.address) == has(oldSelf.address) && (!has(self.address) || self.address == oldSelf.address)").message("spec.address is immutable; make a new Eip"))]
#[serde(rename_all = "camelCase")]
pub struct EipSpec {
    /// Name of the EipGateway that the address is of, 1 to 63 characters. Immutable once set. Default: the default
    /// EipGateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub eip_gateway: Option<String>,
    /// A fixed IPv4 address of the EipGateway's range. Immutable. Default: the first free one; before those, one that rests
    /// there and was of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.address: an IPv4 address of the EipGateway's range"))]
    #[schemars(length(max = 15))]
    pub address: Option<String>,
}

/// What ycloud-controller made of an Eip.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EipStatus {
    /// The address it holds. Once written it is its own until the Eip is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The EipGateway that the address is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eip_gateway: Option<String>,
    /// The Vpc that its traffic goes to. Missing while nothing is bound to it, and where that is several Vpcs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    /// The node by which packets to it come in now, if something uses it: the one that carries its EipGateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The nodes of the service gateways behind that, which choose the backends where those are in several Vpcs; as text, for
    /// example `node-2,node-3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_gateways: Option<String>,
    /// What uses it, as kind and name, for example `Service/web`; sorted.
    #[serde(default)]
    pub bound_to: Vec<String>,
    /// The same as text, for example `Service/api,Service/web`; after eight it says how many more there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The ports at which it serves, and the Service behind each; sorted. Whoever has a port keeps it for as long as
    /// the Service asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into(), "protocol".into()]))]
    pub ports: Vec<EipPort>,
    /// Pending: no address yet. Allocated: has an address, nothing uses it. Bound: in use. Failed: cannot have an
    /// address, or may not keep the one it holds, or its EipGateway is refused; the condition Ready says why. What was
    /// served before an edit of the EipGateway that is refused is served on.
    #[serde(default)]
    pub phase: EipPhase,
    /// Ready: it holds an address and is not refused, or the message says why not. InUse: a deletion waits for the
    /// users that its message names.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A port of an Eip.
#[derive(
    KubeSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct EipPort {
    /// Its number.
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// Name of the Service that is reached there, of the Eip's namespace.
    pub service: String,
}

/// How far an Eip is.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EipPhase {
    /// No address yet.
    #[default]
    Pending,
    /// Has an address; nothing uses it.
    Allocated,
    /// Has an address, and something uses it.
    Bound,
    /// Cannot have an address, or may not keep it; the condition Ready says why.
    Failed,
}
