//! The families in which a YusurService has addresses and endpoints: what its spec leaves open is filled in as the API
//! server does it for a Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use ycloud_api::YusurService;
use ycloud_api::address::Family;
use ycloud_api::service::IpFamilyPolicy;

/// `spec.ipFamilyPolicy`; where it is left out, who names two families or addresses requires both.
pub fn policy(ysvc: &YusurService) -> IpFamilyPolicy {
    let spec = &ysvc.spec;
    let two = spec.ip_families.len() > 1 || spec.cluster_ips.len() > 1;
    let inferred = match two {
        true => IpFamilyPolicy::RequireDualStack,
        false => IpFamilyPolicy::SingleStack,
    };
    spec.ip_family_policy.unwrap_or(inferred)
}

/// The cluster addresses that the spec asks for, the primary one first.
pub fn addresses(ysvc: &YusurService) -> &[String] {
    let spec = &ysvc.spec;
    match spec.cluster_ips.is_empty() {
        true => spec.cluster_ip.as_slice(),
        false => &spec.cluster_ips,
    }
}

/// The families that the spec names, or those of its addresses, the primary one first.
pub fn named(ysvc: &YusurService) -> Vec<Family> {
    match ysvc.spec.ip_families.is_empty() {
        true => families_of(addresses(ysvc)),
        false => ysvc.spec.ip_families.clone(),
    }
}

/// `Service.spec.ipFamilies`, the primary family first; empty: the API server chooses. A Service of one family keeps the
/// one that it has: the primary family cannot change.
pub fn wanted(ysvc: &YusurService, present: Option<&Service>) -> Vec<Family> {
    let named = named(ysvc);
    if policy(ysvc) != IpFamilyPolicy::SingleStack {
        return named;
    }
    let former = || former(ysvc).first().copied();
    let primary = named.first().copied();
    let primary = primary.or_else(|| of_service(present?).first().copied());
    vec![primary.or_else(former).unwrap_or(Family::Ipv4)]
}

/// The families in which it has endpoints. With `PreferDualStack` the API server decides; until it has, both.
pub fn served(ysvc: &YusurService, present: Option<&Service>) -> Vec<Family> {
    let mut families = match policy(ysvc) {
        IpFamilyPolicy::SingleStack => wanted(ysvc, present),
        IpFamilyPolicy::PreferDualStack => present.map(decided).unwrap_or_default(),
        IpFamilyPolicy::RequireDualStack => Vec::new(),
    };
    if families.is_empty() {
        families = Family::ALL.to_vec();
    }
    families.sort();
    families
}

/// The family of the address that clients use first.
pub fn primary(ysvc: &YusurService, present: Option<&Service>) -> Family {
    let present = present.map(of_service).unwrap_or_default();
    let first = present.first().or(named(ysvc).first()).copied();
    first.unwrap_or(Family::Ipv4)
}

/// The families that the API server gave to a Service which may have both; none before it was asked.
fn decided(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let policy = spec.and_then(|spec| spec.ip_family_policy.as_deref());
    match policy.is_some_and(|policy| policy != IpFamilyPolicy::SingleStack.as_str()) {
        true => of_service(service),
        false => Vec::new(),
    }
}

/// The addresses to ask for: those of the spec; and for a Service that somebody deleted, so that there is no `present`
/// one, those that clients know, as far as they go with the spec.
pub fn cluster_ips(ysvc: &YusurService, present: Option<&Service>) -> Vec<String> {
    let mut asked = addresses(ysvc).to_vec();
    let known = known(ysvc);
    let mut families = families_of(&known).into_iter().zip(named(ysvc));
    let agree = families.all(|(is, named)| is == named);
    if present.is_none() && agree && known.starts_with(&asked) {
        asked = known;
    }
    if policy(ysvc) == IpFamilyPolicy::SingleStack {
        asked.truncate(1);
    }
    asked
}

/// The families of the addresses that the Service had when the status was last told.
fn former(ysvc: &YusurService) -> Vec<Family> {
    families_of(&known(ysvc))
}

/// The addresses that the Service had when the status was last told.
fn known(ysvc: &YusurService) -> Vec<String> {
    let Some(status) = &ysvc.status else {
        return Vec::new();
    };
    match status.cluster_ips.is_empty() {
        true => status.cluster_ip.iter().cloned().collect(),
        false => status.cluster_ips.clone(),
    }
}

/// `spec.ipFamilies` of a Service.
fn of_service(service: &Service) -> Vec<Family> {
    let families = service.spec.iter().flat_map(|spec| &spec.ip_families);
    families
        .flatten()
        .filter_map(|name| Family::named(name))
        .collect()
}

fn families_of(addresses: &[String]) -> Vec<Family> {
    let parsed = addresses.iter().filter_map(|text| text.parse().ok());
    parsed.map(|ip: IpAddr| Family::of(ip)).collect()
}
