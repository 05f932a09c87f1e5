//! Services that take an EIP: its VIPs, and where their load balancers sit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use ycloud_api::key;
use ycloud_api::service::Scope;
use ycloud_ovsdb::Columns;

use super::backends::Backends;
use super::draining::Draining;
use super::{Affinity, LoadBalancers, add_vips, addresses, lower, options, ports, served};
use crate::desired::eip_gateway::{router, service_group};
use crate::desired::{policy, row, vpc};
use crate::eip::bound;
use crate::layout::Layout;
use crate::owner::{ObjectKey, Owner};
use crate::row::{Parent, Row};
use crate::snapshot::{Slice, Snapshot, Wish};

/// Priority of the policies on an EipGateway that drop clients whom a Service does not let in.
const SOURCES_PRIORITY: i64 = 400;

/// Priority of the policies of [`Exposure::answers`]: before those of `Node` send it out by the node.
const ANSWERS_PRIORITY: i64 = 150;

fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let annotations = service.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(name))
        .map(String::as_str)
}

/// Whether the backends of a Service may be in several Vpcs.
pub(crate) fn several(service: &Service) -> bool {
    annotation(service, key::SCOPE) == Some(Scope::MultiVpc.as_str())
}

/// Whether a Service asks for an EIP.
pub(crate) fn asks_for_eip(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.as_deref() == Some(key::LOAD_BALANCER_CLASS)
    }) && served(service)
}

/// Whether a Service takes an EIP: it asks for one and has an IPv4 cluster address, without which it has no IPv4 backends
/// that could be behind it.
pub fn takes_eip(service: &Service) -> bool {
    asks_for_eip(service) && addresses(service).any(|address| address.is_ipv4())
}

/// Which Eip a Service that takes one means.
pub(crate) fn wish(service: &Service) -> Wish {
    match annotation(service, key::EIP).filter(|text| !text.is_empty()) {
        Some(text) => text
            .parse()
            .map_or_else(|_| Wish::Name(text.to_owned()), Wish::Address),
        None => Wish::Name(service.metadata.name.clone().unwrap_or_default()),
    }
}

/// The EipGateway that a Service which takes an EIP asks for.
pub(crate) fn asked_gateway(service: &Service) -> Option<&str> {
    annotation(service, key::EIP_GATEWAY).filter(|name| !name.is_empty())
}

/// How a Service is reached from outside.
pub(super) struct Exposure {
    address: Ipv4Addr,
    /// The ports that it has there: protocol, as ovn-nb(5) has it, and number.
    ports: BTreeSet<(&'static str, i32)>,
    gateway: String,
    layout: Layout,
}

impl Exposure {
    /// `None` if the Service takes no EIP, or has none (yet).
    pub fn of(snapshot: &Snapshot, key: &ObjectKey) -> Option<Self> {
        let eip = snapshot.eip_of_service(key)?;
        let object = snapshot.eip(&eip)?;
        let (address, binding) = bound(snapshot, &eip)?;
        let mine = binding.ports.iter().filter(|(_, holder)| *holder == key);
        let mine = mine.filter_map(|((protocol, port), _)| Some((lower(protocol)?, *port)));
        Some(Self {
            address: binding.services.contains(key).then_some(address)?,
            ports: mine.collect(),
            gateway: snapshot.eip_gateway_of_eip(object)?.to_owned(),
            layout: snapshot.settings().layout()?,
        })
    }

    /// The EIP.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// Those of the Service's ports that it has at the EIP.
    fn ports<'a>(
        &self,
        service: &'a Service,
    ) -> impl Iterator<Item = (&'static str, &'a ServicePort)> {
        ports(service).filter(|(protocol, port)| self.ports.contains(&(*protocol, port.port)))
    }

    /// Adds the EIP, with the backends of the cluster address.
    pub fn add_vips(
        &self,
        service: &Service,
        backends: &Backends<'_>,
        balancers: &mut LoadBalancers,
    ) {
        let vips = [self.address.into()];
        add_vips(self.ports(service), &vips, backends, balancers);
    }

    /// `spec.loadBalancerSourceRanges`: who is none of them is dropped at the EipGateway, whether he comes from outside or
    /// from another Vpc: its tenants appear there behind an address that is nobody's to let in. IPv6 ranges let no IPv4
    /// client in.
    pub fn source_ranges(&self, owner: &Owner, service: &Service) -> Vec<Row> {
        let spec = service.spec.as_ref();
        let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref());
        let ranges = ranges.unwrap_or_default();
        if ranges.is_empty() {
            return Vec::new();
        }
        let parsed = ranges
            .iter()
            .filter_map(|range| range.trim().parse::<Ipv4Net>().ok());
        let inside: BTreeSet<String> = parsed.map(|range| range.trunc().to_string()).collect();
        let others = match inside.is_empty() {
            true => String::new(),
            false => format!(" && ip4.src != {}", set(&inside)),
        };
        let mut by_protocol: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        for (protocol, port) in self.ports(service) {
            let ports = by_protocol.entry(protocol).or_default();
            ports.insert(port.port.to_string());
        }
        let rows = by_protocol.iter().map(|(protocol, ports)| {
            let matches = format!(
                "ip4.dst == {} && {protocol}.dst == {}{others}",
                self.address,
                set(ports)
            );
            let role = format!("sources/{protocol}");
            let router = router(&self.gateway).uuid;
            policy(
                owner,
                &role,
                router,
                SOURCES_PRIORITY,
                matches,
                "drop",
                None,
            )
        });
        rows.collect()
    }

    /// What backends in the default Vpc answer to clients of an EIP goes back by the EipGateway, and not by their nodes: by their
    /// addresses and ports, where OVN cannot tell it by the connection (`way_back`). It takes what else they send from there along.
    pub fn answers(&self, owner: &Owner, balancers: &LoadBalancers) -> Vec<Row> {
        let mut rows = Vec::new();
        for (protocol, vips) in balancers {
            let mut by_port: BTreeMap<u16, BTreeSet<Ipv4Addr>> = BTreeMap::new();
            let backends = vips.values().flat_map(|text| text.split(','));
            for backend in backends.filter_map(|text| text.parse::<SocketAddrV4>().ok()) {
                by_port
                    .entry(backend.port())
                    .or_default()
                    .insert(*backend.ip());
            }
            rows.extend(by_port.into_iter().map(|(port, backends)| {
                let backends = backends.iter().map(Ipv4Addr::to_string).collect();
                policy(
                    owner,
                    &format!("answers/{protocol}/{port}"),
                    vpc::router(key::DEFAULT_VPC),
                    ANSWERS_PRIORITY,
                    format!("ip4.src == {} && {protocol}.src == {port}", set(&backends)),
                    "reroute",
                    Some(self.layout.transit_gateway().to_string()),
                )
            }));
        }
        rows
    }
}

/// A set of an OVN match, ovn-sb(5) Logical_Flow match.
fn set(members: &BTreeSet<String>) -> String {
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    format!("{{{}}}", members.join(", "))
}

/// Membership in the load balancers of a Vpc's router, by which clients come from outside.
pub(super) fn in_router_group(vpc: &str) -> Parent {
    Parent {
        table: "Load_Balancer_Group",
        uuid: vpc::router_group(vpc),
        column: "load_balancer",
    }
}

fn vpc_of(slice: &Slice) -> &str {
    slice.vpc.as_deref().unwrap_or(key::DEFAULT_VPC)
}

/// What a Service over several Vpcs balances, Vpc by Vpc, at its cluster addresses.
pub(crate) fn by_vpc<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice>,
) -> BTreeMap<String, LoadBalancers> {
    let mut of_vpc: BTreeMap<&str, Vec<&Slice>> = BTreeMap::new();
    for slice in slices {
        of_vpc.entry(vpc_of(slice)).or_default().push(slice);
    }
    let addresses: Vec<IpAddr> = addresses(service).filter(IpAddr::is_ipv4).collect();
    let balancers = of_vpc.into_iter().map(|(vpc, slices)| {
        let backends = Backends::gather(slices.into_iter(), None, |_, ip| ip);
        let mut balancers = LoadBalancers::new();
        add_vips(ports(service), &addresses, &backends, &mut balancers);
        (vpc.to_owned(), balancers)
    });
    balancers.collect()
}

/// The rows of a Service over several Vpcs: its load balancers are on the service gateways alone, and its backends are
/// there under their aliases. The hash over ports spreads the connections of one client; that of the source address
/// alone keeps them together.
pub(super) fn rows_over_several(
    snapshot: &Snapshot,
    key: &ObjectKey,
    service: &Service,
) -> Vec<Row> {
    let Some(exposure) = Exposure::of(snapshot, key) else {
        return Vec::new();
    };
    let owner = Owner::Service(key.clone());
    let alias = |slice: &Slice, ip| {
        let IpAddr::V4(v4) = ip else { return ip };
        let slot = snapshot.alias(&(vpc_of(slice).to_owned(), v4));
        slot.map_or(ip, |slot| exposure.layout.alias(slot).into())
    };
    let vips = [exposure.address()];
    let draining = Draining::of(service, snapshot.slices(key), &vips, alias);
    let backends = Backends::gather(snapshot.slices(key), None, alias);
    let fields: BTreeSet<&str> = match Affinity::of(service) {
        Affinity::None => ["ip_src", "ip_dst", "tp_src", "tp_dst"].into(),
        Affinity::Hash | Affinity::Timeout(_) => ["ip_src"].into(),
    };
    let group = Parent {
        table: "Load_Balancer_Group",
        uuid: service_group(&exposure.gateway),
        column: "load_balancer",
    };
    let mut rows = exposure.source_ranges(&owner, service);
    let mut balancers = LoadBalancers::new();
    exposure.add_vips(service, &backends, &mut balancers);
    rows.extend(balancers.into_iter().map(|(protocol, vips)| {
        let role = format!("{protocol}/{}", exposure.address);
        let mut options = options();
        if vips.values().all(String::is_empty) {
            // Otherwise the refusal would come from the service gateway's own address.
            options.insert("skip_snat".to_owned(), "true".to_owned());
        }
        options.extend(draining.option(protocol, &vips));
        let columns = Columns::new()
            .with("name", format!("{key}:{role}"))
            .with("protocol", protocol)
            .with("vips", vips)
            .with("options", options)
            .with("selection_fields", fields.clone());
        row(&owner, &role, "Load_Balancer", columns, [group])
    }));
    rows
}
