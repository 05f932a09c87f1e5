//! VNics as backends: those of virtual machines and bare-metal servers, and bare addresses.

use std::net::IpAddr;

use ycloud_api::VNic;
use ycloud_api::address::Family;
use ycloud_api::backend::{Backend, BackendKind};
use ycloud_api::selector;
use ycloud_api::vnic::AttachmentKind;

/// The address that it holds in a family.
pub fn address(vnic: &VNic, family: Family) -> Option<IpAddr> {
    let of = |text: &str| text.parse().ok().filter(|ip| Family::of(*ip) == family);
    vnic.status.as_ref()?.links().find_map(|link| of(link.ip))
}

/// Whether it holds the address.
pub fn holds(vnic: &VNic, ip: IpAddr) -> bool {
    address(vnic, Family::of(ip)) == Some(ip)
}

/// Its Vpc, once it has an address.
pub fn vpc(vnic: &VNic) -> Option<&str> {
    vnic.status.as_ref()?.vpc.as_deref()
}

/// Whether `backend`, whose VNics are in `vpc`, means `vnic`. Namespaces are not looked at; nor are Vpcs, unless an address
/// is named, which other Vpcs may have too.
pub fn meant(backend: &Backend, vnic: &VNic, of: Option<&str>) -> bool {
    let attachment = &vnic.spec.attachment;
    let fits = match backend.kind {
        BackendKind::Pod => false,
        BackendKind::VM => attachment.kind == AttachmentKind::VM,
        BackendKind::BM => attachment.kind == AttachmentKind::BM,
        BackendKind::VNicIP => is_backend(vnic),
    };
    let name = match backend.kind {
        BackendKind::VNicIP => &vnic.metadata.name,
        _ => &attachment.name,
    };
    let labels = vnic.metadata.labels.clone().unwrap_or_default();
    let labelled = |s| selector::matches(s, &labels);
    let held = |ip: &String| ip.parse().is_ok_and(|ip| holds(vnic, ip)) && vpc(vnic) == of;
    fits && (backend.selector.as_ref().is_some_and(labelled)
        || (backend.name.is_some() && backend.name == *name)
        || backend.ip.as_ref().is_some_and(held))
}

/// Whether it may be a backend: VNics of Pods and nodes are not, by themselves.
pub fn is_backend(vnic: &VNic) -> bool {
    let kind = vnic.spec.attachment.kind;
    !matches!(kind, AttachmentKind::Pod | AttachmentKind::Node)
}
