//! The probe network of a Vpc: where chassis ask NetworkProbes from inside it, at addresses that no tenant has.
//!
//! A switch on the Vpc's router, without load balancers, and a port for each chassis that asks. A chassis has the same
//! address in every Vpc, so that it needs but one network namespace, whatever ranges the Vpcs have.

use std::net::IpAddr;

use ipnet::IpNet;
use uuid::Uuid;
use ycloud_api::address::Family;
use ycloud_api::key;
use ycloud_api::network_probe::{prober_port, source_mac};
use ycloud_ovsdb::Columns;

use crate::desired::link::{End, Link};
use crate::desired::{chassis_probe, ip, none, of_family, policy, row, vpc};
use crate::ipam::{ROUTER_MAC, derived_mac};
use crate::layout::Layout;
use crate::owner::Owner;
use crate::row::{Parent, Row};
use crate::snapshot::Snapshot;

/// Priority of the policies that drop tenants' connections to probers.
const CONNECTIONS_PRIORITY: i64 = 1200;
/// Priority of the policies that let answers to probers pass: above those by which other rules keep tenants off the system
/// range, and those that send Pods' packets out by their node.
const ANSWERS_PRIORITY: i64 = 1150;
/// Priority of the policies that drop what else goes to probers.
const REST_PRIORITY: i64 = 1120;

/// Begins the role of a prober's port; the name of its chassis follows.
pub(crate) const PORT_ROLE: &str = "probe/port/";

/// The rows of the probe network of a Vpc; none while no chassis asks in it.
pub(crate) fn rows(snapshot: &Snapshot, name: &str) -> Vec<Row> {
    let probers = snapshot.prober_ports(name);
    let ranges = ranges(snapshot, name);
    let Some(first) = ranges.first().filter(|_| !probers.is_empty()) else {
        return Vec::new();
    };
    let owner = Owner::Vpc(name.to_owned());
    let switch = End {
        uuid: owner.uuid("probe"),
        name: format!("probe:{name}"),
    };
    let columns = Columns::new()
        .with("name", switch.name.as_str())
        .with("other_config", none())
        .with("load_balancer_group", None::<Uuid>);
    let mut rows = vec![row(&owner, "probe", "Logical_Switch", columns, [])];
    let link = Link {
        router: End {
            uuid: vpc::router(name),
            name: name.to_owned(),
        },
        switch: switch.clone(),
        mac: derived_mac(ROUTER_MAC, name, gateway(*first)),
        networks: networks(snapshot, name, &ranges),
        ha_group: None,
        announces: false,
        options: none(),
    };
    rows.extend(link.rows(&owner, "probe"));
    for range in &ranges {
        rows.extend(rules(&owner, name, *range));
    }
    for (chassis, offset) in probers {
        let families = ranges.iter().map(|range| Family::of(range.addr()));
        let sources = families.filter_map(|of| snapshot.settings().probe_source(of, offset));
        let sources: Vec<IpAddr> = sources.collect();
        rows.extend(port(&owner, name, chassis, switch.uuid, &sources));
    }
    if let Some(layout) = asks_chassis(snapshot, name) {
        rows.extend(chassis_probe::rows(snapshot, &owner, name, &switch, layout));
    }
    rows
}

/// The layout, where chassis are asked on the probe network of this Vpc.
fn asks_chassis(snapshot: &Snapshot, name: &str) -> Option<Layout> {
    let layout = snapshot.settings().layout()?;
    let asks = name == key::DEFAULT_VPC && snapshot.asked_chassis().next().is_some();
    asks.then_some(layout)
}

/// The router's addresses on the probe network, with the lengths of their prefixes.
fn networks(snapshot: &Snapshot, name: &str, ranges: &[IpNet]) -> Vec<String> {
    let chassis = asks_chassis(snapshot, name).map(|layout| layout.chassis_range().into());
    let all = ranges.iter().copied().chain(chassis);
    all.map(|range: IpNet| format!("{}/{}", gateway(range), range.prefix_len()))
        .collect()
}

/// The ranges of a Vpc's probe network: IPv4, and IPv6 where one of its Subnets has it.
fn ranges(snapshot: &Snapshot, name: &str) -> Vec<IpNet> {
    let settings = snapshot.settings();
    let has_ipv6 = snapshot.subnets_of(name).any(|subnet| {
        let network = snapshot.network(subnet);
        network.is_some_and(|network| network.cidr(Family::Ipv6).is_some())
    });
    let ipv4 = settings.layout().map(|layout| layout.probe_range().into());
    let ipv6 = settings.probe_ipv6_range().filter(|_| has_ipv6);
    ipv4.into_iter().chain(ipv6.map(IpNet::from)).collect()
}

/// The router's address on the probe network.
fn gateway(range: IpNet) -> IpAddr {
    ycloud_api::network_probe::gateway(range.addr())
}

/// A chassis' port. Tied to its addresses, as a tenant's is: whoever has the chassis has them anyway.
fn port(owner: &Owner, vpc: &str, chassis: &str, switch: Uuid, sources: &[IpAddr]) -> Option<Row> {
    let ips = sources.iter().map(|ip| format!(" {ip}"));
    let pair = source_mac(*sources.first()?) + &ips.collect::<String>();
    let columns = Columns::new()
        .with("name", prober_port(vpc, chassis))
        .with("type", "")
        .with("addresses", pair.as_str())
        .with("port_security", pair.as_str())
        .with("enabled", None::<bool>)
        .with("options", none());
    let member = Parent {
        table: "Logical_Switch",
        uuid: switch,
        column: "ports",
    };
    let role = format!("{PORT_ROLE}{chassis}");
    Some(row(owner, &role, "Logical_Switch_Port", columns, [member]))
}

/// Tenants reach of the probe network nothing but answers, as far as a packet by itself says what it is: no beginning of a
/// connection, of ICMP only answers and errors, no other protocol. A datagram does not say; what no socket waits for the
/// prober's network namespace drops. Answers take the route they have: in the default Vpc not out by the node, and with an
/// EipGateway past the rule that keeps tenants off the system range.
fn rules(owner: &Owner, name: &str, range: IpNet) -> Vec<Row> {
    let family = Family::of(range.addr());
    let to = format!("{}.dst == {range}", ip(family));
    // IANA, ICMP type numbers: echo reply, unreachable, time exceeded, parameter problem; of ICMPv6 packet too big besides.
    let icmp = match family {
        Family::Ipv4 => "icmp4.type == {0, 3, 11, 12}",
        Family::Ipv6 => "icmp6.type == {1, 2, 3, 4, 129}",
    };
    let rule = |role: &str, priority, matches: String, action| {
        let role = of_family(role, family);
        let router = vpc::router(name);
        policy(owner, &role, router, priority, matches, action, None)
    };
    vec![
        // SYN without ACK.
        rule(
            "probe/connections",
            CONNECTIONS_PRIORITY,
            format!("{to} && tcp.flags == 0x2/0x12"),
            "drop",
        ),
        rule(
            "probe/answers",
            ANSWERS_PRIORITY,
            format!("{to} && (tcp || udp || {icmp})"),
            "allow",
        ),
        rule("probe/rest", REST_PRIORITY, to, "drop"),
    ]
}
