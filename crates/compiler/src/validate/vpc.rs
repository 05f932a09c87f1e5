//! Vpcs: whether the EipGateway that one names is there, and who may still come.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::condition::reason;
use ycloud_api::{Vpc, key};

use crate::compile::Rejection;
use crate::snapshot::Snapshot;
use crate::validate::eip_gateway;

/// Whether an object was made after the deletion of a Vpc had begun, by the seconds of the API server: such a Vpc takes no
/// newcomers, and waits for none. But the default one: nobody takes a deletion back, and the cluster's Pods, Nodes and Services go on in it.
pub fn is_late(vpc: &Vpc, object: &ObjectMeta) -> bool {
    let began = vpc.metadata.deletion_timestamp.as_ref();
    let began = began.filter(|_| vpc.metadata.name.as_deref() != Some(key::DEFAULT_VPC));
    let made = object.creation_timestamp.as_ref();
    began
        .zip(made)
        .is_some_and(|(began, made)| made.0 > began.0)
}

/// Why an object cannot come into a Vpc any more. `who`: the object, in words.
pub(crate) fn late(
    snapshot: &Snapshot,
    vpc: &str,
    object: &ObjectMeta,
    who: &str,
) -> Option<Rejection> {
    let late = snapshot.vpc(vpc).is_some_and(|vpc| is_late(vpc, object));
    late.then(|| leaving(vpc, who))
}

/// What is said to newcomers of a Vpc that is being deleted.
pub(crate) fn leaving(vpc: &str, who: &str) -> Rejection {
    Rejection::new(
        reason::DELETING,
        format!("{who}: Vpc {vpc} is being deleted and takes no newcomers; use another Vpc"),
    )
}

/// What keeps a Vpc from the EipGateway that it names. Within, it works all the same.
pub(crate) fn hindrance(snapshot: &Snapshot, name: &str) -> Option<Rejection> {
    let gateway = snapshot.vpc(name)?.spec.eip_gateway.as_ref()?;
    let rejection = eip_gateway::check(snapshot, gateway).err()?;
    let message = format!("Vpc {name}: spec.eipGateway: {}", rejection.message);
    Some(Rejection::new(rejection.reason, message))
}
