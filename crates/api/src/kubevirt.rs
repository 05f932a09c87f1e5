//! What is read of KubeVirt's VirtualMachineInstances, and how their Pods are known. Nothing of it is written, and nothing is
//! needed where KubeVirt is not installed.
//!
//! Every field may be missing: what another release of KubeVirt says differently must not end a watch.
//! Source: kubevirt.io/api/core/v1, `types.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

/// Name of the CustomResourceDefinition of VirtualMachineInstances: where it is, KubeVirt is installed.
pub const DEFINITION: &str = "virtualmachineinstances.kubevirt.io";

/// The label of Pods that says which part of KubeVirt they are.
pub const COMPONENT: &str = "kubevirt.io";

/// The value of [`COMPONENT`] of launcher Pods, in which the guests run.
pub const LAUNCHER: &str = "virt-launcher";

/// The label of launcher Pods that holds the UID of their VirtualMachineInstance, in whose namespace they are.
pub const CREATED_BY: &str = "kubevirt.io/created-by";

/// The type of the condition that a VirtualMachineInstance has while its guest is paused.
pub const PAUSED: &str = "Paused";

/// A virtual machine that runs, will run or ran, of KubeVirt.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VirtualMachineInstance {
    /// Name, namespace, UID, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// How it is; none before KubeVirt has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VirtualMachineInstanceStatus>,
}

/// How a VirtualMachineInstance is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceStatus {
    /// Pending, Scheduling, Scheduled, Running, Succeeded, Failed, WaitingForSync or Unknown (its node does not answer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The node on which the guest runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<InstanceCondition>>,
    /// The live migration that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_state: Option<MigrationState>,
}

/// One condition of a VirtualMachineInstance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceCondition {
    /// Type, such as [`PAUSED`].
    #[serde(default, rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    #[serde(default)]
    pub status: String,
}

/// A live migration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationState {
    /// The node that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_node: Option<String>,
    /// Name of the launcher Pod that it comes from; older releases leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_pod: Option<String>,
    /// The node that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node: Option<String>,
    /// Name of the launcher Pod that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_pod: Option<String>,
    /// When the guest was first seen to run on the target node. KubeVirt means it as the sign to move addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_node_domain_ready_timestamp: Option<Time>,
    /// Whether it is over, well or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Whether it failed: then the guest stays where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
}

impl VirtualMachineInstance {
    /// Whether the live migration that it tells of has brought the guest to the target.
    pub fn moved(&self) -> bool {
        let Some(status) = &self.status else {
            return false;
        };
        let Some(migration) = &status.migration_state else {
            return false;
        };
        // The node changes a moment before `completed`: the guest is there already.
        let there = migration.target_node.is_some() && migration.target_node == status.node_name;
        let runs = migration.target_node_domain_ready_timestamp.is_some();
        let other = migration.target_node != migration.source_node;
        migration.failed != Some(true)
            && (migration.completed == Some(true) || runs || (there && other))
    }

    /// Whether its guest is paused.
    pub fn paused(&self) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        let mut conditions = conditions.flatten();
        conditions.any(|condition| condition.type_ == PAUSED && condition.status == "True")
    }
}

impl Resource for VirtualMachineInstance {
    const API_VERSION: &'static str = "kubevirt.io/v1";
    const GROUP: &'static str = "kubevirt.io";
    const KIND: &'static str = "VirtualMachineInstance";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "virtualmachineinstances";
    type Scope = NamespaceResourceScope;
}

impl Metadata for VirtualMachineInstance {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
