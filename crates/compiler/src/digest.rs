//! What the data plane must know of a Service, in sixteen digits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sha2::{Digest, Sha256};
use ycloud_api::address::Family;
use ycloud_api::key;

use crate::desired;
use crate::desired::service::Affinity;
use crate::snapshot::Slice;

/// Digest of a Service's Vpc, affinity, which EIP it asks for and who may use that, and every VIP with its backends, as the
/// EndpointSlices give them (the rows have a node's join address in the place of its own): the value of [`ycloud_api::key::PROGRAMMED`], 16 lower-case hexadecimal
/// digits. How the endpoints are spread over slices, and their order, do not matter, nor which endpoints drain beside ready ones.
/// `slices` are those that name this Service; of them only those matter that count for it.
pub fn digest(service: &Service, slices: &[&EndpointSlice]) -> String {
    let slices = slices.iter().filter_map(|s| Slice::of(s));
    let slices: Vec<Slice> = slices.filter(|slice| slice.counts(service)).collect();
    of_slices(service, slices.iter())
}

/// As [`digest`], of slices in the form in which a [`crate::Snapshot`] keeps them.
pub(crate) fn of_slices<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> String {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    field(desired::service::vpc(service));
    match Affinity::of(service) {
        Affinity::None => field("None"),
        Affinity::Hash => field("ClientIP"),
        Affinity::Timeout(seconds) => field(&format!("ClientIP {seconds}")),
    }
    if desired::service::takes_eip(service) {
        let annotations = service.metadata.annotations.as_ref();
        for name in [key::EIP, key::EIP_GATEWAY] {
            let value = annotations.and_then(|all| all.get(name));
            field(value.map_or("", String::as_str));
        }
        let spec = service.spec.as_ref();
        let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref());
        ranges.unwrap_or_default().iter().for_each(|r| field(r));
    }
    let of_vpcs = match desired::service::several(service) {
        true => desired::service::by_vpc(service, slices.clone()),
        false => {
            let balancers = desired::service::load_balancers(service, slices.clone(), |ip| ip);
            BTreeMap::from([(String::new(), balancers)])
        }
    };
    for (vpc, balancers) in of_vpcs {
        if !vpc.is_empty() {
            field(&vpc);
        }
        for (protocol, vips) in balancers {
            field(protocol);
            for (vip, backends) in vips {
                field(&vip);
                field(&backends);
            }
        }
    }
    for ((family, protocol, port), nodes) in desired::service::backends_by_node(service, slices) {
        match family {
            // As before there was another family: an upgrade leaves the digests as they are.
            Family::Ipv4 => field(&format!("{protocol}/{port} Local")),
            Family::Ipv6 => field(&format!("{protocol}/{port} Local IPv6")),
        }
        for (node, backends) in nodes {
            field(&node);
            field(&backends);
        }
    }
    let hash = hash.finalize();
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
