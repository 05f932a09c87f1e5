//! Vpcs: whether the EipGateway that one names is there.

use crate::compile::Rejection;
use crate::snapshot::Snapshot;
use crate::validate::eip_gateway;

/// What keeps a Vpc from the EipGateway that it names. Within, it works all the same.
pub(crate) fn hindrance(snapshot: &Snapshot, name: &str) -> Option<Rejection> {
    let gateway = snapshot.vpc(name)?.spec.eip_gateway.as_ref()?;
    let rejection = eip_gateway::check(snapshot, gateway).err()?;
    let message = format!("Vpc {name}: spec.eipGateway: {}", rejection.message);
    Some(Rejection::new(rejection.reason, message))
}
