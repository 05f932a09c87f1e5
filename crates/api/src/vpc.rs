//! `Vpc`: an isolated network.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An isolated tenant network. Its Subnets' ranges may overlap those of other Vpcs.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io", version = "v1", kind = "Vpc", plural = "vpcs", shortname = "yvpc",
    doc = "An isolated tenant network. Its Subnets' ranges may overlap those of other Vpcs.",
    status = "VpcStatus", derive = "PartialEq", derive = "Default",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters; OVN and labels carry it"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"EIP-Gateway","type":"string","jsonPath":".status.eipGateway"}"#,
    printcolumn = r#"{"name":"Subnets","type":"string","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct VpcSpec {
    /// Whose Pods, VNics, Services and NetworkProbes may use this Vpc, besides those of namespaces that its Subnets name
    /// (`Subnet.spec.namespaces`). Default: nobody's; of the default Vpc, those of every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// Name of the EipGateway by which this Vpc reaches the outside and is reached at EIPs, 1 to 63 characters. Default:
    /// the one in `status.eipGateway` while a Service of this Vpc has an EIP of it, else the default EipGateway; none while
    /// there is no such one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub eip_gateway: Option<String>,
}

/// Namespaces by name or by label; a namespace is allowed if either matches.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    /// Names of namespaces; at most 1024. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::namespaces")]
    pub names: Vec<String>,
    /// Labels of namespaces. An empty selector matches every namespace. Default: none is matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What ycloud-controller made of a Vpc.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VpcStatus {
    /// Name of its `Logical_Router`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// The EipGateway that it hangs on. It is attached to that once that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eip_gateway: Option<String>,
    /// Names of its accepted Subnets, sorted.
    #[serde(default)]
    pub subnets: Vec<String>,
    /// The same as text, for example `a,b`; after eight it says how many more there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Ready: the router exists, and the EipGateway that the spec names is accepted; or the message says why not. It is
    /// False during a deletion. InUse: a deletion waits for the users that its message names.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
