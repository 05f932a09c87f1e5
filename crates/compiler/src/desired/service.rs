//! `Service`: one load balancer a protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::{row, vpc};
use crate::owner::{ObjectKey, Owner};
use crate::row::{Parent, Row};
use crate::snapshot::Slice;

/// Protocol, as `Load_Balancer:protocol` has it → VIP (`address:port`) → backends (`address:port,…`, sorted).
pub(crate) type LoadBalancers = BTreeMap<&'static str, BTreeMap<String, String>>;

/// The Vpc of a Service: annotation [`key::VPC`], else the default one.
pub fn vpc(service: &Service) -> &str {
    let annotations = service.metadata.annotations.as_ref();
    let named = annotations.and_then(|all| all.get(key::VPC));
    named.map_or(key::DEFAULT_VPC, String::as_str)
}

/// Whether ycloud serves the Service: it has a cluster address, and no label that gives it to another proxy.
pub fn served(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let proxy = labels.and_then(|all| all.get(key::SERVICE_PROXY_NAME));
    proxy.is_none_or(|proxy| proxy == key::PROXY) && addresses(service).next().is_some()
}

/// Whether connections of one client address go to one backend.
pub fn by_client_address(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.session_affinity.as_deref()) == Some("ClientIP")
}

/// The rows of a Service of a Vpc that permits it.
pub(crate) fn rows<'a>(
    key: &ObjectKey,
    service: &Service,
    vpc: &str,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> Vec<Row> {
    let owner = Owner::Service(key.clone());
    let group = Parent {
        table: "Load_Balancer_Group",
        uuid: vpc::group(vpc),
        column: "load_balancer",
    };
    // reject: a VIP without backends refuses instead of staying silent. neighbor_responder: nobody asks for the address
    // of a VIP by ARP, the router is on the way. ct_flush: a client of a removed backend starts anew at once.
    let options: BTreeMap<String, String> = [
        ("reject", "true"),
        ("neighbor_responder", "none"),
        ("ct_flush", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    // The hash of the source address alone picks the backend. affinity_timeout is no choice: with it the first
    // connection of every client dies (seen on OVN 23.03 and 25.03).
    let fields = by_client_address(service).then_some("ip_src");
    let balancers = load_balancers(service, slices).into_iter();
    balancers
        .map(|(protocol, vips)| {
            let columns = Columns::new()
                .with("name", format!("{key}:{protocol}"))
                .with("protocol", protocol)
                .with("vips", vips)
                .with("options", options.clone())
                .with("selection_fields", fields);
            row(&owner, protocol, "Load_Balancer", columns, [group])
        })
        .collect()
}

/// What the load balancers of a Service must hold. None for Services that ycloud does not serve.
pub(crate) fn load_balancers<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
) -> LoadBalancers {
    let mut balancers = LoadBalancers::new();
    if !served(service) {
        return balancers;
    }
    let vpc = vpc(service);
    let slices = slices.filter(|slice| slice.vpc.as_deref().is_none_or(|of| of == vpc));
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let by_port = Backends::gather(slices);
    for port in ports {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let Some(lower) = lower(protocol) else {
            continue;
        };
        let backends = by_port.text(port, protocol);
        let vips = balancers.entry(lower).or_default();
        for address in addresses(service) {
            vips.insert(format!("{address}:{}", port.port), backends.clone());
        }
    }
    balancers
}

/// The name of a protocol in ovn-nb(5); `None` for one that OVN does not balance.
fn lower(protocol: &str) -> Option<&'static str> {
    match protocol {
        "TCP" => Some("tcp"),
        "UDP" => Some("udp"),
        "SCTP" => Some("sctp"),
        _ => None,
    }
}

/// The IPv4 cluster addresses. None: headless, ExternalName, or IPv6 only.
fn addresses(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let spec = service
        .spec
        .as_ref()
        .filter(|spec| spec.type_.as_deref() != Some("ExternalName"));
    let all = spec
        .and_then(|spec| spec.cluster_ips.as_deref())
        .unwrap_or_default();
    let one = spec
        .and_then(|spec| spec.cluster_ip.as_ref())
        .filter(|_| all.is_empty());
    all.iter().chain(one).filter_map(|ip| ip.parse().ok())
}

/// Endpoints by port name and protocol.
#[derive(Default)]
struct Backends<'a>(BTreeMap<(&'a str, &'a str), Candidates>);

#[derive(Default)]
struct Candidates {
    ready: BTreeSet<(Ipv4Addr, u16)>,
    draining: BTreeSet<(Ipv4Addr, u16)>,
}

impl<'a> Backends<'a> {
    fn gather(slices: impl Iterator<Item = &'a Slice>) -> Self {
        let mut backends = Self::default();
        for slice in slices {
            for port in &slice.ports {
                let key = (port.name.as_str(), port.protocol.as_str());
                let candidates = backends.0.entry(key).or_default();
                for endpoint in &slice.endpoints {
                    let of = if endpoint.ready {
                        &mut candidates.ready
                    } else {
                        &mut candidates.draining
                    };
                    of.insert((endpoint.ip, port.port));
                }
            }
        }
        backends
    }

    /// `Load_Balancer:vips` value: the ready endpoints; if there are none, those that terminate and still serve, so
    /// that the last Pods of a roll-out keep answering (KEP-1669).
    fn text(&self, port: &ServicePort, protocol: &str) -> String {
        let name = port.name.as_deref().unwrap_or_default();
        let Some(candidates) = self.0.get(&(name, protocol)) else {
            return String::new();
        };
        let chosen = if candidates.ready.is_empty() {
            &candidates.draining
        } else {
            &candidates.ready
        };
        let mut text = String::with_capacity(chosen.len() * 22);
        for (ip, port) in chosen {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{ip}:{port}");
        }
        text
    }
}
