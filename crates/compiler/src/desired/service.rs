//! `Service`: one load balancer a protocol.

mod affinity;
mod backends;
mod draining;
mod eip;
mod local;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use ycloud_api::address::Family;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::{row, vpc};
use crate::owner::{ObjectKey, Owner};
use crate::row::{Parent, Row};
use crate::snapshot::{Slice, Snapshot};
use crate::validate::external;
pub(crate) use affinity::{Affinity, DEFAULT_TIMEOUT};
use backends::Backends;
#[cfg(doc)]
use draining::DRAINING;
use draining::Draining;
pub(crate) use draining::{backends_that_drain, keep};
pub use eip::takes_eip;
pub(crate) use eip::{asked_gateway, asks_for_eip, by_vpc, several, wish};
use local::slices_of;
pub(crate) use local::{backends_by_node, local, variables};

/// Protocol, as `Load_Balancer:protocol` has it → VIP (`address:port`) → backends (`address:port,…`, sorted). IPv6 addresses
/// have brackets around them.
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
    withhold(&external::others(snapshot, key, service), &mut plain);
    let exposure = eip::Exposure::of(snapshot, key);
    let slices = slices_of(vpc, snapshot.slices(key));
    let all: Vec<IpAddr> = addresses(service)
        .chain(external_addresses(service))
        .chain(exposure.iter().map(eip::Exposure::address))
        .collect();
    let draining = Draining::of(service, slices.clone(), &all, |_, ip| at(ip));
    let form = Form::plain(service);
    let mut rows = balancers(key, service, vpc, &form, &draining, plain);
    if let Some(exposure) = &exposure {
        let owner = Owner::Service(key.clone());
        let backends = Backends::gather(slices, None, |_, ip| at(ip));
        let mut vips = LoadBalancers::new();
        exposure.add_vips(service, &backends, &mut vips);
        rows.extend(exposure.source_ranges(&owner, service));
        if vpc == key::DEFAULT_VPC && snapshot.eip_entry().is_none() {
            rows.extend(exposure.answers(&owner, &vips));
        }
        let form = Form::eip(service, exposure.address());
        let mut at_eip = balancers(key, service, vpc, &form, &draining, vips);
        for row in &mut at_eip {
            row.parents.insert(eip::in_router_group(vpc));
        }
        rows.extend(at_eip);
    }
    for family in families(service) {
        for (name, vips) in [
            ("local", local::balancers(key, service, family)),
            ("refused", local::refusals(key, service, family)),
        ] {
            let form = Form::template(name, family);
            rows.extend(balancers(key, service, vpc, &form, &draining, vips));
        }
    }
    rows
}

/// What load balancers of one kind have in common.
struct Form {
    /// The roles' end, after the protocol.
    suffix: String,
    /// The VIPs have variables in them, and are all of this family.
    template: Option<Family>,
    /// There may be IPv6 clients.
    ipv6: bool,
}

impl Form {
    fn plain(service: &Service) -> Self {
        Self {
            suffix: String::new(),
            template: None,
            ipv6: families(service).any(|family| family == Family::Ipv6),
        }
    }

    /// Rows of an EIP's own. Its address never leaves `vips` of a row that stays: of the addresses of a router's load balancers
    /// northd counts one as gone that leaves a row, though another row has it (25.03; 26.03 likewise), and then drops what
    /// comes for that address, as one of the router's own. Of a row that goes as a whole it does not.
    fn eip(service: &Service, address: IpAddr) -> Self {
        Self {
            suffix: format!("/{address}"),
            ..Self::plain(service)
        }
    }

    fn template(name: &str, family: Family) -> Self {
        Self {
            suffix: format!("/{name}{}", suffix(family)),
            template: Some(family),
            ipv6: family == Family::Ipv6,
        }
    }
}

/// What the role of a row of this family ends with, where each family has its own.
fn suffix(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "",
        Family::Ipv6 => "-ipv6",
    }
}

/// `Load_Balancer:options`. reject: a VIP without backends refuses instead of staying silent. neighbor_responder: nobody
/// asks for the address of a VIP by ARP, the router is on the way. Not `ct_flush`: the agents end the connections of removed
/// backends themselves, and spare those of [`DRAINING`].
fn options() -> BTreeMap<String, String> {
    let options = [("reject", "true"), ("neighbor_responder", "none")];
    options
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// One row a protocol; its role is the protocol and the form's suffix.
fn balancers(
    key: &ObjectKey,
    service: &Service,
    vpc: &str,
    form: &Form,
    draining: &Draining,
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
    if let Some(family) = form.template {
        let family = family.name().to_lowercase();
        // Its backends stand in variables, which the agents do not follow: OVN ends the connections of those that leave.
        let more = [
            ("template", "true"),
            ("address-family", &family),
            ("ct_flush", "true"),
        ];
        options.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        affinity = affinity.without_timeout();
    }
    options.extend(affinity.option());
    let fields = affinity.selection_fields(form.ipv6);
    balancers
        .into_iter()
        .map(|(protocol, vips)| {
            let role = format!("{protocol}{}", form.suffix);
            let mut options = options.clone();
            if form.template.is_none() {
                options.extend(draining.option(protocol, &vips));
            }
            let columns = Columns::new()
                .with("name", format!("{key}:{role}"))
                .with("protocol", protocol)
                .with("vips", vips)
                .with("options", options)
                .with("selection_fields", fields.clone());
            row(&owner, &role, "Load_Balancer", columns, [group])
        })
        .collect()
}

/// Where a Vpc reaches an endpoint. What listens on a node is reached at the node's join address, which only the default
/// Vpc has.
fn reached_at(snapshot: &Snapshot, vpc: &str, ip: IpAddr) -> IpAddr {
    match vpc {
        key::DEFAULT_VPC => snapshot.join_address_of(ip).unwrap_or(ip),
        _ => ip,
    }
}

/// What the load balancers of a Service must hold that are the same on every node, each endpoint at the address by which
/// it is reached. None for Services that ycloud does not serve.
pub(crate) fn load_balancers<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice> + Clone,
    reached_at: impl Fn(IpAddr) -> IpAddr,
) -> LoadBalancers {
    let mut balancers = LoadBalancers::new();
    if !served(service) {
        return balancers;
    }
    let slices = slices_of(vpc(service), slices);
    let by_port = Backends::gather(slices, None, |_, ip| reached_at(ip));
    let internal = addresses(service).filter(|_| !local(service));
    let vips: Vec<IpAddr> = internal.chain(external_addresses(service)).collect();
    add_vips(ports(service), &vips, &by_port, &mut balancers);
    balancers
}

/// Takes these addresses out.
fn withhold(addresses: &BTreeMap<IpAddr, String>, balancers: &mut LoadBalancers) {
    let address = |vip: &str| vip.parse::<SocketAddr>().ok().map(|vip| vip.ip());
    for vips in balancers.values_mut() {
        vips.retain(|vip, _| address(vip).is_none_or(|ip| !addresses.contains_key(&ip)));
    }
    balancers.retain(|_, vips| !vips.is_empty());
}

/// Adds these addresses, on these ports of the Service, each with the backends of its family.
fn add_vips<'a>(
    ports: impl Iterator<Item = (&'static str, &'a ServicePort)>,
    addresses: &[IpAddr],
    by_port: &Backends<'_>,
    balancers: &mut LoadBalancers,
) {
    for (protocol, port) in ports {
        for family in Family::ALL {
            let mut vips = addresses
                .iter()
                .filter(|ip| Family::of(**ip) == family)
                .peekable();
            if vips.peek().is_none() {
                continue;
            }
            let backends = by_port.text(port, family);
            let of_protocol = balancers.entry(protocol).or_default();
            of_protocol.extend(vips.map(|vip| (at(*vip, port.port), backends.clone())));
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

/// An address and a port, as `Load_Balancer:vips` has them.
fn at(ip: IpAddr, port: i32) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// The cluster addresses. None: headless, or ExternalName.
fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
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

/// The cluster addresses of a family.
fn addresses_of(service: &Service, family: Family) -> impl Iterator<Item = IpAddr> {
    addresses(service).filter(move |ip| Family::of(*ip) == family)
}

/// The families of the cluster addresses, IPv4 first: only in these a Service has endpoints.
fn families(service: &Service) -> impl Iterator<Item = Family> {
    let has = |family: &Family| addresses_of(service, *family).next().is_some();
    Family::ALL.into_iter().filter(has)
}

/// `spec.externalIPs`, those of the Service's families: addresses that somebody else brings to the cluster's nodes.
fn external_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let all = service
        .spec
        .as_ref()
        .and_then(|spec| spec.external_ips.as_deref());
    let all = all.unwrap_or_default().iter();
    let all = all.filter_map(|ip| ip.parse().ok());
    all.filter(|ip| families(service).any(|family| family == Family::of(*ip)))
}
