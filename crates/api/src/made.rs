//! Whose making a Service or an EndpointSlice is. The Service of a YusurService has the endpoints that
//! yusurservice-controller wrote, and no others: whoever may write EndpointSlices in a namespace could
//! otherwise send its clients to another tenant's Pods. That nobody else writes one with its mark, an
//! admission policy sees to (`deploy/admission/own-slices.yaml`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::key;

/// The label that names an EndpointSlice's Service. Source: KEP-752.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The label that says who writes an EndpointSlice. Source: KEP-752.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Who writes the EndpointSlices of a Service with a selector, by [`MANAGED_BY`]. Source: Kubernetes,
/// `pkg/controller/endpointslice`.
pub const ENDPOINTSLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Who writes the EndpointSlices that mirror Endpoints, by [`MANAGED_BY`]. Source: Kubernetes,
/// `pkg/controller/endpointslicemirroring`.
pub const ENDPOINTSLICE_MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";

/// The label that says who writes Endpoints, and is copied to the EndpointSlices that mirror them; and its value where
/// that is Kubernetes' own controller. Source: Kubernetes 1.33, `pkg/controller/endpoint`.
pub const ENDPOINTS_MANAGED_BY: (&str, &str) =
    ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// UID of the YusurService that an object was made for: its controlling owner.
pub fn made_for(meta: &ObjectMeta) -> Option<&str> {
    let mut references = meta.owner_references.iter().flatten();
    let owner = references.find(|owner| owner.controller == Some(true))?;
    is_yusur_service(owner).then_some(owner.uid.as_str())
}

/// Whether it names a YusurService.
pub fn is_yusur_service(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split('/').next();
    owner.kind == "YusurService" && group == Some(crate::GROUP)
}

/// Likewise of an EndpointSlice; `None` if its label says that somebody else writes it.
pub fn slice_made_for(meta: &ObjectMeta) -> Option<&str> {
    let by = meta.labels.as_ref()?.get(MANAGED_BY)?;
    made_for(meta).filter(|_| by == key::ENDPOINTSLICE_MANAGED_BY)
}

/// Whether an EndpointSlice counts that names a Service: any does, unless the Service was made for a YusurService. Each is
/// told by the YusurService that it was made for.
pub fn counts(service: Option<&str>, slice: Option<&str>) -> bool {
    service.is_none() || service == slice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(owner: Option<(&str, &str, bool)>, by: Option<&str>) -> ObjectMeta {
        let owner = owner.map(|(kind, uid, controller)| OwnerReference {
            api_version: "iaas.yusur.io/v1".to_owned(),
            kind: kind.to_owned(),
            uid: uid.to_owned(),
            controller: Some(controller),
            ..OwnerReference::default()
        });
        let label = |by: &str| (MANAGED_BY.to_owned(), by.to_owned());
        ObjectMeta {
            owner_references: owner.map(|owner| vec![owner]),
            labels: by.map(|by| [label(by)].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_slice_counts_for_its_own_yusurservice_alone() {
        const OURS: &str = key::ENDPOINTSLICE_MANAGED_BY;
        let kubernetes = Some("endpointslice-controller.k8s.io");
        let mine = Some(("YusurService", "1", true));
        let native = meta(None, None);
        let made = meta(mine, None);
        let cases = [
            (meta(mine, Some(OURS)), true),
            (meta(mine, kubernetes), false),
            (meta(mine, None), false),
            (meta(Some(("YusurService", "2", true)), Some(OURS)), false),
            (meta(Some(("YusurService", "1", false)), Some(OURS)), false),
            (meta(Some(("Service", "1", true)), Some(OURS)), false),
            (meta(None, Some(OURS)), false),
        ];
        for (slice, counted) in cases {
            let slice_of = slice_made_for(&slice);
            assert_eq!(counts(made_for(&made), slice_of), counted, "{slice:?}");
            assert!(counts(made_for(&native), slice_of));
        }
    }
}
