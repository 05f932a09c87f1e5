//! Services: whether their Vpc is there and permits them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use ycloud_api::condition::reason;
use ycloud_api::key;
use ycloud_api::made::made_for;

use crate::compile::Rejection;
use crate::desired;
use crate::desired::service::{asks_for_eip, takes_eip};
use crate::eip::allocate_eip;
use crate::owner::ObjectKey;
use crate::snapshot::{Snapshot, Wish, held_address};
use crate::validate::eip::binding;
use crate::validate::{eip_gateway, external, permits, vpc};

/// The Vpc of a Service.
///
/// # Errors
/// No such Vpc, one that does not permit the Service's namespace, or one that was being deleted when the Service came; or several Vpcs without an EIP. A Service that ycloud does not serve is never
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
    if desired::service::several(service) {
        return several(snapshot, key, service).map(|()| vpc);
    }
    permitted(snapshot, key, vpc, &format!("annotation {}", key::VPC))?;
    Ok(vpc)
}

/// A Service over several Vpcs needs an EIP, and every Vpc of its EndpointSlices.
fn several(snapshot: &Snapshot, key: &ObjectKey, service: &Service) -> Result<(), Rejection> {
    if !asks_for_eip(service) {
        return Err(Rejection::new(
            reason::INVALID,
            format!(
                "Service {key}: annotation {} multiVpc needs spec.type LoadBalancer and spec.loadBalancerClass {}; it is \
                 reached from outside only",
                key::SCOPE,
                key::LOAD_BALANCER_CLASS
            ),
        ));
    }
    let vpcs = snapshot.slices(key).map(|slice| {
        let vpc = slice.vpc.as_deref();
        vpc.unwrap_or(key::DEFAULT_VPC)
    });
    let vpcs: BTreeSet<&str> = vpcs.collect();
    let source = format!("label {} of its EndpointSlices", key::VPC);
    vpcs.into_iter()
        .try_for_each(|vpc| permitted(snapshot, key, vpc, &source))
}

fn permitted(
    snapshot: &Snapshot,
    key: &ObjectKey,
    name: &str,
    source: &str,
) -> Result<(), Rejection> {
    let Some(object) = snapshot.vpc(name) else {
        return Err(Rejection::new(
            reason::NOT_FOUND,
            format!(
                "Service {key}: Vpc {name} ({source}) does not exist; create it or name another one"
            ),
        ));
    };
    if !permits(snapshot, object, &key.namespace) {
        return Err(Rejection::new(
            reason::NOT_PERMITTED,
            format!(
                "Service {key}: Vpc {name} ({source}) does not permit namespace {}; \
                 name another Vpc, or add the namespace to spec.allowedNamespaces of Vpc {name}",
                key.namespace
            ),
        ));
    }
    let meta = snapshot.service(key).map(|service| &service.metadata);
    let late = meta.and_then(|meta| vpc::late(snapshot, name, meta, &format!("Service {key}")));
    late.map_or(Ok(()), Err)
}

/// What keeps an accepted Service from being reached at its EIP, or at all of its other addresses from outside. Its cluster
/// address works all the same.
pub(crate) fn hindrance(snapshot: &Snapshot, key: &ObjectKey) -> Option<Rejection> {
    let of_addresses = || {
        let service = snapshot.service(key)?;
        let served = desired::service::served(service) && !desired::service::several(service);
        served.then(|| external::hindrance(snapshot, key, service))?
    };
    without_eip(snapshot, key)
        .or_else(of_addresses)
        .or_else(|| untranslated(snapshot, key))
}

/// What of a Service's spec has no effect, and what there is instead: an EIP's, or that of a load balancer which is
/// nobody's.
pub fn ignored(service: &Service) -> Option<String> {
    // Of a YusurService's, the YusurService says it.
    if made_for(&service.metadata).is_some() {
        return None;
    }
    let of_nobody = is_nobodys_load_balancer(service).then(|| {
        format!(
            "spec.type LoadBalancer without spec.loadBalancerClass gets no EIP: set spec.type ClusterIP, and then \
             LoadBalancer with spec.loadBalancerClass {}, which cannot be added later; or let another load balancer serve it",
            key::LOAD_BALANCER_CLASS
        )
    });
    of_nobody.or_else(|| looked_past(service))
}

/// Whether a Service asks for a load balancer of no class, and none has given it an address. One may be about to.
pub fn is_nobodys_load_balancer(service: &Service) -> bool {
    let asks = service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    });
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let has = balancer.is_some_and(|b| b.ingress.iter().flatten().next().is_some());
    asks && !has && desired::service::served(service)
}

/// What of a Service's spec its EIP looks past. Its other addresses go by it.
fn looked_past(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref().filter(|_| takes_eip(service))?;
    let address = spec.load_balancer_ip.as_ref().map(|ip| {
        format!(
            "spec.loadBalancerIP {ip}: name an Eip or an address in annotation {}",
            key::EIP
        )
    });
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let local = local.then(|| {
        "spec.externalTrafficPolicy Local: clients are sent to backends on any node, which see the clients' own addresses".to_owned()
    });
    let all: Vec<String> = address.into_iter().chain(local).collect();
    (!all.is_empty()).then(|| format!("the EIP looks past {}", all.join("; ")))
}

/// Whether a Service has a port of SCTP.
pub(crate) fn has_sctp(service: &Service) -> bool {
    sctp(service).next().is_some()
}

fn sctp(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let ports = service.spec.iter().flat_map(|spec| &spec.ports).flatten();
    ports.filter(|port| port.protocol.as_deref() == Some("SCTP"))
}

/// A port of SCTP that its endpoints have as another one, where a chassis does not translate those.
fn untranslated(snapshot: &Snapshot, key: &ObjectKey) -> Option<Rejection> {
    let chassis = snapshot.without_sctp_ports()?;
    let service = snapshot.service(key)?;
    if !desired::service::served(service) {
        return None;
    }
    let (port, there) = sctp(service).find_map(|port| {
        let mut there = snapshot.slices(key).flat_map(|slice| &slice.ports);
        let other = there.find(|there| {
            there.protocol == "SCTP"
                && there.name == port.name.as_deref().unwrap_or_default()
                && i32::from(there.port) != port.port
        })?;
        Some((port.port, other.port))
    })?;
    Some(Rejection::new(
        reason::NOT_SUPPORTED,
        format!(
            "Service {key}: port {port} of SCTP is port {there} of its endpoints, and chassis {chassis} forwards in user space \
             by an Open vSwitch before 3.2, which translates no ports of SCTP; give both the same number, or upgrade OVN and \
             Open vSwitch there to 23.09 and 3.2"
        ),
    ))
}

fn without_eip(snapshot: &Snapshot, key: &ObjectKey) -> Option<Rejection> {
    let no =
        |reason, message: String| Some(Rejection::new(reason, format!("Service {key}: {message}")));
    let service = snapshot.service(key)?;
    if asks_for_eip(service) && !takes_eip(service) {
        let text = "spec.ipFamilies IPv6 alone with an EIP: EIPs are IPv4, and so must their backends be; set \
                    spec.ipFamilyPolicy RequireDualStack, or another spec.type";
        return no(reason::NOT_SUPPORTED, text.to_owned());
    }
    let used = snapshot.eip_use(key)?;
    let Some(eip) = snapshot.eip_of_service(key) else {
        return match &used.wish {
            Wish::Name(name) if *name != key.name => no(
                reason::NOT_FOUND,
                format!(
                    "Eip {}/{name} (annotation {}) does not exist; create it, or leave the annotation out to have one made",
                    key.namespace,
                    key::EIP
                ),
            ),
            Wish::Address(ip) if snapshot.eip(key).is_some() => no(
                reason::CONFLICT,
                format!(
                    "annotation {} asks for {ip}, and Eip {key} exists with another address; name an Eip that has it, or \
                     delete that one",
                    key::EIP
                ),
            ),
            _ => no(reason::PENDING, format!("Eip {key} is not made yet")),
        };
    };
    if let Some(rejection) = binding(snapshot, &eip).refused.remove(key) {
        return Some(rejection);
    }
    let object = snapshot.eip(&eip)?;
    match allocate_eip(snapshot, object) {
        Err(rejection) => return no(rejection.reason, rejection.message),
        Ok(_) if held_address(object).is_none() => {
            return no(reason::PENDING, format!("Eip {eip} has no address yet"));
        }
        Ok(_) => {}
    }
    let gateway = snapshot.eip_gateway_of_eip(object)?;
    let gateway = eip_gateway::hindrance(snapshot, gateway, snapshot.eip_gateway(gateway)?)?;
    no(gateway.reason, gateway.message)
}
