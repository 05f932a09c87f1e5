//! Services by their `spec.externalIPs`: whom it concerns when somebody else gets or gives up such an address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::Snapshot;
use super::apply::{Owners, insert, remove};
use crate::owner::{ObjectKey, Owner};

/// `spec.externalIPs` of a Service.
pub(crate) fn external_ips(service: &Service) -> BTreeSet<IpAddr> {
    let spec = service.spec.as_ref();
    let texts = spec.and_then(|spec| spec.external_ips.as_deref());
    let texts = texts.unwrap_or_default().iter();
    texts.filter_map(|text| text.parse().ok()).collect()
}

impl Snapshot {
    /// A Service's `spec.externalIPs` may have changed.
    pub(super) fn set_external(
        &mut self,
        key: &ObjectKey,
        old: Option<&Service>,
        new: Option<&Service>,
    ) {
        for ip in old.map(external_ips).unwrap_or_default() {
            remove(&mut self.external, &ip, key);
        }
        for ip in new.map(external_ips).unwrap_or_default() {
            insert(&mut self.external, &ip, key.clone());
        }
    }

    /// The Services that have one of these addresses in `spec.externalIPs`.
    pub(super) fn external_at(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Owners {
        let addresses = addresses.into_iter();
        let services = addresses.filter_map(|ip| self.external.get(&ip)).flatten();
        services.cloned().map(Owner::Service).collect()
    }

    /// The Services that have `spec.externalIPs`.
    pub(super) fn external_services(&self) -> Owners {
        let services = self.external.values().flatten();
        services.cloned().map(Owner::Service).collect()
    }
}
