//! `Service`: one load balancer a protocol.

mod affinity;
mod backends;
mod eip;
mod local;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::{row, vpc};
use crate::owner::{ObjectKey, Owner};
use crate::row::{Parent, Row};
use crate::snapshot::{Slice, Snapshot};
pub(crate) use affinity::{Affinity, DEFAULT_TIMEOUT};
use backends::Backends;
pub use eip::takes_eip;
pub(crate) use eip::{by_vpc, several, wish};
use local::slices_of;
pub(crate) use local::{backends_by_node, local, variables};

/// Protocol, as `Load_Balancer:protocol` has it → VIP (`address:port`) → backends (`address:port,…`, sorted).
pub(crate) type LoadBalancers = BTreeMap<&'static str, BTreeMap<String, String>>;

/// The Vpc of a Service: annotation [`key::VPC`], else the default one.
pub fn vpc(service: &Service) -> &str {
    let annotations = service.metadata.annotations.as_ref();
    let named = annotations.and_then(|all| all.get(key::VPC));
    named.map_or(key::DEFAULT_VPC, String::as_str)
}

/// Whether ycloud serves the Service: it has a cluster address, and no label that gives it to another proxy, or to none.
pub fn served(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let proxy = labels.and_then(|all| all.get(key::SERVICE_PROXY_NAME));
    let headless = labels.is_some_and(|all| all.contains_key(key::HEADLESS));
    proxy.is_none_or(|proxy| proxy == key::PROXY)
        && !headless
        && addresses(service).next().is_some()
}

/// The rows of a Service of a Vpc that permits it.
pub(crate) fn rows(snapshot: &Snapshot, key: &ObjectKey, service: &Service, vpc: &str) -> Vec<Row> {
    if several(service) {
        return eip::rows_over_several(snapshot, key, service);
    }
    let at = |ip| reached_at(snapshot, vpc, ip);
    let mut plain = load_balancers(service, snapshot.slices(key), at);
    let exposure = eip::Exposure::of(snapshot, key);
    let mut rows = Vec::new();
    if let Some(exposure) = &exposure {
        let owner = Owner::Service(key.clone());
        let backends = Backends::gather(slices_of(vpc, snapshot.slices(key)), None, |_, ip| {
            reached_at(snapshot, vpc, ip)
        });
        exposure.add_vips(service, &backends, &mut plain);
        rows.extend(exposure.source_ranges(&owner, service));
        if vpc == key::DEFAULT_VPC {
            rows.extend(exposure.answers(&owner, &plain));
        }
    }
    let mut plain = balancers(key, service, vpc, "", plain);
    if exposure.is_some() {
        for row in &mut plain {
            row.parents.insert(eip::in_router_group(vpc));
        }
    }
    rows.extend(plain);
    rows.extend(balancers(
        key,
        service,
        vpc,
        "/local",
        local::balancers(key, service),
    ));
    rows.extend(balancers(
        key,
        service,
        vpc,
        "/refused",
        local::refusals(key, service),
    ));
    rows
}

/// `Load_Balancer:options`. reject: a VIP without backends refuses instead of staying silent. neighbor_responder: nobody
/// asks for the address of a VIP by ARP, the router is on the way. ct_flush: a client of a removed backend starts anew at
/// once.
fn options() -> BTreeMap<String, String> {
    let options = [
        ("reject", "true"),
        ("neighbor_responder", "none"),
        ("ct_flush", "true"),
    ];
    options
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// One row a protocol; its role is the protocol and `suffix`. With a suffix, the VIPs have variables in them.
fn balancers(
    key: &ObjectKey,
    service: &Service,
    vpc: &str,
    suffix: &str,
    balancers: LoadBalancers,
) -> Vec<Row> {
    let owner = Owner::Service(key.clone());
    let group = Parent {
        table: "Load_Balancer_Group",
        uuid: vpc::group(vpc),
        column: "load_balancer",
    };
    let mut options = options();
    let mut affinity = Affinity::of(service);
    if !suffix.is_empty() {
        let more = [("template", "true"), ("address-family", "ipv4")];
        options.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        affinity = affinity.without_timeout();
    }
    options.extend(affinity.option());
    let fields = affinity.selection_fields();
    balancers
        .into_iter()
        .map(|(protocol, vips)| {
            let role = format!("{protocol}{suffix}");
            let columns = Columns::new()
                .with("name", format!("{key}:{role}"))
                .with("protocol", protocol)
                .with("vips", vips)
                .with("options", options.clone())
                .with("selection_fields", fields);
            row(&owner, &role, "Load_Balancer", columns, [group])
        })
        .collect()
}

/// Where a Vpc reaches an endpoint. What listens on a node is reached at the node's join address, which only the default
/// Vpc has.
fn reached_at(snapshot: &Snapshot, vpc: &str, ip: Ipv4Addr) -> Ipv4Addr {
    match vpc {
        key::DEFAULT_VPC => snapshot.join_ipv4_of(ip).unwrap_or(ip),
        _ => ip,
    }
}

/// What the load balancers of a Service must hold that are the same on every node, each endpoint at the address by which
/// it is reached. None for Services that ycloud does not serve.
pub(crate) fn load_balancers<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    reached_at: impl Fn(Ipv4Addr) -> Ipv4Addr,
) -> LoadBalancers {
    let mut balancers = LoadBalancers::new();
    if !served(service) {
        return balancers;
    }
    let slices = slices_of(vpc(service), slices);
    let by_port = Backends::gather(slices, None, |_, ip| reached_at(ip));
    let internal = addresses(service).filter(|_| !local(service));
    let vips: Vec<Ipv4Addr> = internal.chain(external_addresses(service)).collect();
    add_vips(service, &vips, &by_port, &mut balancers);
    balancers
}

/// Adds these addresses, on every port of the Service.
fn add_vips(
    service: &Service,
    addresses: &[Ipv4Addr],
    by_port: &Backends<'_>,
    balancers: &mut LoadBalancers,
) {
    for (protocol, port) in ports(service) {
        let backends = by_port.text(port);
        for address in addresses {
            let of_protocol = balancers.entry(protocol).or_default();
            of_protocol.insert(format!("{address}:{}", port.port), backends.clone());
        }
    }
}

/// The ports whose protocol OVN balances, each with that protocol's name in ovn-nb(5).
fn ports(service: &Service) -> impl Iterator<Item = (&'static str, &ServicePort)> {
    let all = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    all.filter_map(|port| Some((lower(port.protocol.as_deref().unwrap_or("TCP"))?, port)))
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

/// `spec.externalIPs`, those of IPv4: addresses that somebody else brings to the cluster's nodes.
fn external_addresses(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let all = service
        .spec
        .as_ref()
        .and_then(|spec| spec.external_ips.as_deref());
    all.unwrap_or_default()
        .iter()
        .filter_map(|ip| ip.parse().ok())
}
