//! KubeVirt's VirtualMachineInstances as backends: each is reached by the launcher Pod in which its guest runs.
//!
//! A live migration has two launcher Pods with an address each, and the guest answers at one of them: the source's until it
//! runs at the target, and from then on the target's. So exactly one of both is the endpoint, and it changes in one write. The
//! two never overlap: half of the clients would meet nobody.
//!
//! Nothing answers at the target before the guest is there, so it cannot be probed before: its probe begins with the
//! change. Until that knows anything, the state of the VirtualMachineInstance at its former address counts, as for any backend of
//! which nobody can tell (see [`super::super::health`]). A guest that did not survive leaves by that probe's own arithmetic.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::kubevirt::{COMPONENT, CREATED_BY, LAUNCHER, VirtualMachineInstance};
use ycloud_api::selector;

use super::pod::{self, PodBackend};

/// A VirtualMachineInstance that may be a backend.
#[derive(Debug, Clone, Copy)]
pub struct VmiBackend<'a> {
    /// The VirtualMachineInstance.
    pub vmi: &'a VirtualMachineInstance,
    /// The launcher Pod in which its guest runs; none while there is none that lives.
    pub launcher: Option<PodBackend<'a>>,
}

/// The UID of the VirtualMachineInstance, of the Pod's namespace, whose launcher it is; none if it is no launcher.
pub fn created_by(pod: &Pod) -> Option<&str> {
    let labels = pod.metadata.labels.as_ref()?;
    let launcher = labels.get(COMPONENT).is_some_and(|part| part == LAUNCHER);
    let uid = labels.get(CREATED_BY).filter(|_| launcher)?;
    Some(uid.as_str()).filter(|uid| !uid.is_empty())
}

/// Whether `pod` is a launcher of `vmi`.
pub fn launches(vmi: &VirtualMachineInstance, pod: &Pod) -> bool {
    let uid = vmi.metadata.uid.as_deref();
    uid.is_some() && created_by(pod) == uid && pod.metadata.namespace == vmi.metadata.namespace
}

/// Whether `backend` means `vmi`. Namespaces are not looked at.
pub fn meant(backend: &Backend, vmi: &VirtualMachineInstance) -> bool {
    let labels = vmi.metadata.labels.clone().unwrap_or_default();
    let labelled = |s| selector::matches(s, &labels);
    backend.kind == BackendKind::VM
        && (backend.selector.as_ref().is_some_and(labelled)
            || (backend.name.is_some() && backend.name == vmi.metadata.name))
}

impl<'a> VmiBackend<'a> {
    /// `vmi` with the one of its launchers among `pods` in which its guest runs.
    pub fn new(vmi: &'a VirtualMachineInstance, pods: &[PodBackend<'a>]) -> Self {
        let launchers = pods.iter().filter(|pod| launches(vmi, pod.pod));
        let alive: Vec<PodBackend> = launchers
            .filter(|launcher| !pod::finished(launcher.pod))
            .copied()
            .collect();
        let launcher = current(vmi, &alive);
        Self { vmi, launcher }
    }

    /// Why nobody can answer, whatever a probe says.
    pub fn halted(&self) -> Option<String> {
        let status = self.vmi.status.as_ref();
        match status.and_then(|status| status.phase.as_deref()) {
            // Unknown: its node is silent. What the probe says of the guest is worth more.
            Some("Running" | "Unknown") if self.vmi.paused() => {
                Some("the VirtualMachineInstance is paused".into())
            }
            Some("Running" | "Unknown") if self.launcher.is_none() => {
                Some("the VirtualMachineInstance has no launcher Pod that lives".into())
            }
            Some("Running" | "Unknown") => None,
            None | Some("") => Some("the VirtualMachineInstance is not started yet".into()),
            Some(phase) => Some(format!("the VirtualMachineInstance is {phase}")),
        }
    }

    /// When its deletion began, or that of the launcher in which its guest runs.
    pub fn deleted(&self) -> Option<Time> {
        let own = self.vmi.metadata.deletion_timestamp.clone();
        let launcher = self.launcher.as_ref();
        own.or_else(|| launcher.and_then(|launcher| pod::deleted(launcher.pod)))
    }
}

/// The one of the launchers in which the guest runs: the one that the migration names; where it names none, such as before the
/// first one, the newest on the guest's node, as KubeVirt itself looks for it.
fn current<'a>(
    vmi: &VirtualMachineInstance,
    launchers: &[PodBackend<'a>],
) -> Option<PodBackend<'a>> {
    let status = vmi.status.as_ref();
    let migration = status.and_then(|status| status.migration_state.as_ref());
    let moved = vmi.moved();
    let (name, place) = match migration {
        Some(migration) if moved => (&migration.target_pod, &migration.target_node),
        Some(migration) => (&migration.source_pod, &migration.source_node),
        None => (&None, &None),
    };
    let named = |launcher: &&PodBackend| name.is_some() && launcher.pod.metadata.name == *name;
    if let Some(named) = launchers.iter().find(named) {
        return Some(*named);
    }
    let told = status.and_then(|status| status.node_name.as_ref());
    let node = match moved {
        true => place.as_ref().or(told),
        false => told.or(place.as_ref()),
    };
    let target = migration.and_then(|migration| migration.target_pod.as_ref());
    let fits = |launcher: &&PodBackend| {
        let spec = launcher.pod.spec.as_ref();
        match node {
            Some(_) => spec.and_then(|spec| spec.node_name.as_ref()) == node,
            None => target.is_none() || launcher.pod.metadata.name.as_ref() != target,
        }
    };
    let age = |launcher: &&PodBackend<'a>| {
        let meta = &launcher.pod.metadata;
        let made = meta.creation_timestamp.as_ref().map(|made| made.0);
        (made, meta.name.clone())
    };
    let newest = launchers.iter().filter(fits).max_by_key(age);
    // Where its source is gone already the guest can only be at the target, if it is anywhere.
    let failed = migration.is_some_and(|migration| migration.failed == Some(true));
    let left = || {
        let mut all = launchers.iter().filter(|_| !moved && !failed);
        all.find(|launcher| target.is_some() && launcher.pod.metadata.name.as_ref() == target)
    };
    newest.or_else(left).copied()
}
