//! The way back of the default Vpc's Pods: what came by an EIP is answered by the EipGateway, all else by the Pod's own node.
//!
//! Both ways end at the same Pod and the same port, so neither address nor port tells an answer to a client of an EIP from one to a
//! client of a node port, from a call of the Pod's own, or from an ICMP error about either. The connection does. Therefore each node
//! has a gateway router, `back/<node>`, between the default Vpc's router and itself: what an EIP brings passes it from the leg
//! `eip` to the leg `pods`, and its connection is marked; what the Pods send to the world passes it on its way, and leaves by the
//! leg `eip` if its connection is marked, else by the leg `pods` again. Both legs end at the default Vpc's router.
//!
//! ```text
//!   transit/<gw> ──► ovn-cluster ──► back:eip ──► back/<node> ──► back:pods ──► ovn-cluster ──► Pod
//!                ◄──             ◄──          ◄── if marked   ◄──           ◄──             ◄──
//!   node0        ◄──────────────────────────────  otherwise, by back:pods ──► ovn-cluster
//! ```
//!
//! The mark is that of ovn-nb(5) `Logical_Router_Static_Route` options:ecmp_symmetric_reply, which gateway routers alone have. It is
//! kept in the conntrack of the Pod's own chassis, so a gateway that moves to another chassis changes nothing here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use uuid::Uuid;
use ycloud_api::key;
use ycloud_ovsdb::Columns;

use crate::desired::eip_gateway::transit;
use crate::desired::link::{End, Link};
use crate::desired::{none, policy, route, row, vpc};
use crate::ipam::{ROUTER_MAC, derived_mac};
use crate::layout::{BACK_LENGTH, Layout};
use crate::owner::Owner;
use crate::row::Row;
use crate::snapshot::EipEntry;

/// Priority of the policies that send what an EIP brings to the node's router: above those that let it go to the Pod.
const IN_PRIORITY: i64 = 250;
/// Priority of the policy that sends answers to clients of EIPs to the EipGateway.
const ANSWERS_PRIORITY: i64 = 260;
/// Priority of the policies that send the rest out by the node: above those by which it came to the node's router.
const REST_PRIORITY: i64 = 110;

/// A leg of the nodes' routers: a switch, on which the default Vpc's router has the first address.
#[derive(Clone, Copy)]
enum Leg {
    /// Where packets of EIPs come in, and their answers leave.
    Eip,
    /// Where Pods are.
    Pods,
}

impl Leg {
    fn role(self) -> &'static str {
        match self {
            Self::Eip => "back:eip",
            Self::Pods => "back:pods",
        }
    }

    fn switch(self) -> End {
        End {
            uuid: Owner::Vpc(key::DEFAULT_VPC.to_owned()).uuid(self.role()),
            name: self.role().to_owned(),
        }
    }

    /// The port of the default Vpc's router.
    fn port(self) -> String {
        Link::router_port(key::DEFAULT_VPC, self.role())
    }

    /// Of a node's router.
    fn address(self, layout: Layout, offset: u16) -> Ipv4Addr {
        match self {
            Self::Eip => layout.back_eip(offset),
            Self::Pods => layout.back_pods(offset),
        }
    }
}

/// Lower 16 bits of the address of the default Vpc's router on a leg. No node has them in its join address: they are those of
/// the join switch's gateway.
const FIRST: u16 = 1;
/// Likewise of its second one: on the join switch nobody has it, see `Settings::unused_join_address`.
const SECOND: u16 = 0xfffe;

/// The rows of the default Vpc: both legs, and where answers go that come back by the one.
pub(crate) fn of_vpc(owner: &Owner, entry: &EipEntry) -> Vec<Row> {
    let layout = entry.layout;
    // One on both: the node's router sends ICMP errors about marked connections to that of the leg on which they came, even where
    // they go on to the Pod.
    let mac = Leg::Eip.address(layout, FIRST);
    let mut rows = Vec::new();
    for leg in [Leg::Eip, Leg::Pods] {
        let switch = leg.switch();
        let columns = Columns::new()
            .with("name", switch.name.as_str())
            .with("other_config", none())
            .with("load_balancer_group", None::<Uuid>);
        rows.push(row(owner, leg.role(), "Logical_Switch", columns, []));
        let [first, second] = [FIRST, SECOND].map(|offset| leg.address(layout, offset));
        let link = Link {
            router: End {
                uuid: vpc::router(key::DEFAULT_VPC),
                name: key::DEFAULT_VPC.to_owned(),
            },
            switch,
            mac: derived_mac(ROUTER_MAC, key::DEFAULT_VPC, mac),
            networks: vec![format!("{first}/{BACK_LENGTH}"), format!("{second}/32")],
            ha_group: None,
            announces: false,
            options: none(),
        };
        rows.extend(link.rows(owner, leg.role()));
    }
    rows.push(policy(
        owner,
        "back:eip/answers",
        vpc::router(key::DEFAULT_VPC),
        ANSWERS_PRIORITY,
        format!("inport == \"{}\"", Leg::Eip.port()),
        "reroute",
        Some(layout.transit_gateway().to_string()),
    ));
    rows
}

/// The rows of a node: its router, and what leads by it. `pods` is the address set of its Pods, `join` its join address.
///
/// The router is there before the first EIP leads to the default Vpc, so that its chassis has it by then; until that nothing
/// passes it.
pub(crate) fn of_node(
    owner: &Owner,
    node: &str,
    pods: &str,
    join: Ipv4Addr,
    entry: &EipEntry,
) -> Vec<Row> {
    let mut rows = router(owner, node, offset(join), entry);
    if !entry.used {
        return rows;
    }
    let rule = |role, priority, matches, next_hop: Ipv4Addr| {
        let router = vpc::router(key::DEFAULT_VPC);
        let next_hop = Some(next_hop.to_string());
        policy(owner, role, router, priority, matches, "reroute", next_hop)
    };
    let transit = Link::router_port(key::DEFAULT_VPC, &transit(&entry.gateway).name);
    rows.extend([
        rule(
            "back/in",
            IN_PRIORITY,
            format!("inport == \"{transit}\" && ip4.dst == ${pods}"),
            Leg::Eip.address(entry.layout, offset(join)),
        ),
        rule(
            "back/rest",
            REST_PRIORITY,
            format!("inport == \"{}\" && ip4.src == ${pods}", Leg::Pods.port()),
            join,
        ),
    ]);
    rows
}

/// By where a node's Pods leave: its router, or its join address.
pub(crate) fn egress(join: Ipv4Addr, entry: Option<&EipEntry>) -> Ipv4Addr {
    match entry.filter(|entry| entry.used) {
        Some(entry) => Leg::Pods.address(entry.layout, offset(join)),
        None => join,
    }
}

/// Lower 16 bits of a join address.
fn offset(join: Ipv4Addr) -> u16 {
    let [_, _, high, low] = join.octets();
    u16::from_be_bytes([high, low])
}

fn router(owner: &Owner, node: &str, offset: u16, entry: &EipEntry) -> Vec<Row> {
    let layout = entry.layout;
    // No Vpc's name has a slash.
    let router = End {
        uuid: owner.uuid("back"),
        name: format!("back/{node}"),
    };
    // A chassis is named as its node. northd would write each of these routers a flow for each other one.
    let options = BTreeMap::from([
        ("chassis".to_owned(), node.to_owned()),
        ("dynamic_neigh_routers".to_owned(), "true".to_owned()),
    ]);
    let columns = Columns::new()
        .with("name", router.name.as_str())
        .with("enabled", None::<bool>)
        .with("options", options)
        .with("load_balancer_group", None::<Uuid>);
    let mut rows = vec![row(owner, "back", "Logical_Router", columns, [])];
    for leg in [Leg::Eip, Leg::Pods] {
        let address = leg.address(layout, offset);
        let link = Link {
            mac: derived_mac(ROUTER_MAC, &router.name, address),
            switch: leg.switch(),
            router: router.clone(),
            networks: vec![format!("{address}/{BACK_LENGTH}")],
            ha_group: None,
            announces: false,
            options: none(),
        };
        rows.extend(link.rows(owner, &format!("back/{}", leg.role())));
    }
    for range in &entry.ranges {
        for (number, hop) in [FIRST, SECOND].into_iter().enumerate() {
            let hop = Leg::Eip.address(layout, hop);
            let role = format!("back/answers/{range}/{number}");
            rows.push(symmetric(owner, &role, router.uuid, range.to_string(), hop));
        }
    }
    let inside = Leg::Pods.address(layout, FIRST);
    rows.push(route(
        owner,
        "back/default-route",
        router.uuid,
        "0.0.0.0/0".to_owned(),
        inside.to_string(),
    ));
    // What comes from Pods and is of no marked connection. Marked ones are beyond policies.
    let port = Link::router_port(&router.name, Leg::Pods.role());
    rows.push(policy(
        owner,
        "back/pods",
        router.uuid,
        REST_PRIORITY,
        format!("inport == \"{port}\""),
        "reroute",
        Some(inside.to_string()),
    ));
    rows
}

/// One of the routes of what Pods send, by their range, that mark connections which come in there. They are two, as older versions of
/// OVN mark none of a route that is alone; both next hops are the same port of the default Vpc's router.
fn symmetric(owner: &Owner, role: &str, router: Uuid, range: String, hop: Ipv4Addr) -> Row {
    let options = BTreeMap::from([("ecmp_symmetric_reply".to_owned(), "true".to_owned())]);
    let route = route(owner, role, router, range, hop.to_string());
    let columns = route
        .columns
        .with("policy", "src-ip")
        .with("options", options);
    Row { columns, ..route }
}
