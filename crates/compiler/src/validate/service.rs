//! Services: whether their Vpc is there and permits them.

use k8s_openapi::api::core::v1::Service;
use ycloud_api::condition::reason;
use ycloud_api::key;

use crate::compile::Rejection;
use crate::desired;
use crate::owner::ObjectKey;
use crate::snapshot::Snapshot;
use crate::validate::permits;

/// The Vpc of a Service.
///
/// # Errors
/// No such Vpc, or one that does not permit the Service's namespace. A Service that ycloud does not serve is never
/// refused.
pub fn check<'a>(
    snapshot: &Snapshot,
    key: &ObjectKey,
    service: &'a Service,
) -> Result<&'a str, Rejection> {
    let vpc = desired::service::vpc(service);
    if !desired::service::served(service) {
        return Ok(vpc);
    }
    let annotation = key::VPC;
    let Some(object) = snapshot.vpc(vpc) else {
        return Err(Rejection::new(
            reason::NOT_FOUND,
            format!(
                "Service {key}: Vpc {vpc} (annotation {annotation}) does not exist; create it or name another one"
            ),
        ));
    };
    if !permits(snapshot, object, &key.namespace) {
        return Err(Rejection::new(
            reason::NOT_PERMITTED,
            format!(
                "Service {key}: Vpc {vpc} (annotation {annotation}) does not permit namespace {}; \
                 name another Vpc, or add the namespace to spec.allowedNamespaces of Vpc {vpc}",
                key.namespace
            ),
        ));
    }
    Ok(vpc)
}
