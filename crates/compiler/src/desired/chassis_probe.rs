//! Where a chassis is asked whether it is there: a gateway router on it, whose address its Open vSwitch answers echo requests
//! to, by flows alone. No process of ours has a part in the answer: an agent that is restarted, or broken, calls no machine
//! dead. A chassis that is cut off, switched off, or without Open vSwitch is silent.
//!
//! The routers are on the default Vpc's probe network, in a range of their own, since a prober has the other address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use uuid::Uuid;
use ycloud_ovsdb::Columns;

use crate::desired::link::{End, Link};
use crate::desired::{none, policy, row, vpc};
use crate::ipam::{ROUTER_MAC, derived_mac};
use crate::layout::Layout;
use crate::owner::Owner;
use crate::row::Row;
use crate::snapshot::Snapshot;

/// Priority of the policy that lets probers' questions pass: above those that keep tenants off the system range.
const QUESTIONS_PRIORITY: i64 = 1150;
/// Priority of the policy that drops what else goes to chassis.
const REST_PRIORITY: i64 = 1120;

/// The rows by which the chassis that are asked answer. `owner` and `switch` are those of the default Vpc's probe network.
pub(crate) fn rows(
    snapshot: &Snapshot,
    owner: &Owner,
    vpc_name: &str,
    switch: &End,
    layout: Layout,
) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (chassis, offset) in snapshot.asked_chassis() {
        rows.extend(answerer(owner, chassis, offset, switch, layout));
    }
    if rows.is_empty() {
        return rows;
    }
    let (from, to) = (layout.probe_range(), layout.chassis_range());
    let rule = |role, priority, matches, action| {
        let router = vpc::router(vpc_name);
        policy(owner, role, router, priority, matches, action, None)
    };
    // ICMP echo request, IANA.
    let questions = format!("ip4.src == {from} && ip4.dst == {to} && icmp4.type == 8");
    rows.push(rule(
        "probe/questions",
        QUESTIONS_PRIORITY,
        questions,
        "allow",
    ));
    rows.push(rule(
        "probe/chassis-rest",
        REST_PRIORITY,
        format!("ip4.dst == {to}"),
        "drop",
    ));
    rows
}

/// The router of a chassis. Its one network holds the probers' addresses too, and it has no other route: it answers nobody else.
fn answerer(owner: &Owner, chassis: &str, offset: u16, switch: &End, layout: Layout) -> Vec<Row> {
    let role = format!("probe/chassis/{chassis}");
    // No Vpc's name has a slash.
    let router = End {
        uuid: owner.uuid(&role),
        name: format!("chassis/{chassis}"),
    };
    let options = BTreeMap::from([("chassis".to_owned(), chassis.to_owned())]);
    let columns = Columns::new()
        .with("name", router.name.as_str())
        .with("enabled", None::<bool>)
        .with("options", options)
        .with("load_balancer_group", None::<Uuid>);
    let ip = layout.chassis(offset);
    let length = layout.probing_range().prefix_len();
    let link = Link {
        mac: derived_mac(ROUTER_MAC, &router.name, IpAddr::V4(ip)),
        switch: switch.clone(),
        router,
        networks: vec![format!("{ip}/{length}")],
        ha_group: None,
        announces: false,
        options: none(),
    };
    let mut rows = vec![row(owner, &role, "Logical_Router", columns, [])];
    rows.extend(link.rows(owner, &role));
    rows
}
