//! Backends of a YusurService: what kinds there are and how one is named.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A set of backends of one kind. Exactly one of `selector`, `name` and `ip` says which.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.selector), has(self.name), has(self.ip)].filter(x, x).size() == 1").message("spec.backends[]: exactly one of selector, name and ip"))]
#[x_kube(validation = Rule::new("!has(self.ip) || self.kind == 'VNicIP'").message("spec.backends[].ip: only with kind VNicIP"))]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Pod, VM (virtual machine: a VNic that names one, or a VirtualMachineInstance where KubeVirt is installed), BM (bare-metal
    /// server: a VNic that names one) or VNicIP (address of a VNic).
    pub kind: BackendKind,
    /// The backends' Vpc; only with scope multiVpc. Default: `spec.vpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub vpc: Option<String>,
    /// The backends' namespace. Default: the YusurService's own. For another one the backends' Vpc must list the
    /// YusurService's namespace in `allowedNamespaces.names`. Its `allowedNamespaces.selector` and the `namespaces` of
    /// its Subnets do not suffice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Labels of the backends: of Pods, VNics or VirtualMachineInstances. A launcher Pod of a VirtualMachineInstance that is
    /// selected here is no backend beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Name of the one backend: of the Pod; with kind VM or BM the machine's, as `spec.attachment.name` of its VNic, or of the
    /// VirtualMachineInstance; with kind VNicIP of the VNic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Address of the one backend; only with kind VNicIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub ip: Option<String>,
    /// Target ports that differ from the YusurService's; at most 1000. Of two for one port the first counts. A port
    /// without a name keeps the YusurService's. Default: none differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub ports: Vec<BackendPort>,
}

/// The kind of a backend.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendKind {
    /// A Pod.
    Pod,
    /// A virtual machine: a VNic whose attachment is one, or a VirtualMachineInstance of KubeVirt.
    VM,
    /// A bare-metal server.
    BM,
    /// The address of a VNic.
    VNicIP,
}

/// A target port of one set of backends.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendPort {
    /// Name of the port of the YusurService that it belongs to.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Port of the backend: a number, 1 to 65535, or the name of a container port, 1 to 15 characters.
    #[schemars(schema_with = "crate::schema::port_or_name")]
    pub target_port: IntOrString,
}
