//! Both families side by side: whose addresses are which, and who answers by each of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use ycloud_lab::place::Place;

use crate::asking::{PROTOCOLS, ask_often, assert_answer};
use crate::cluster::{SLOW, apply, eventually, get};
use crate::native::PORTS;
use crate::scene::Scene;

/// What a Service or YusurService says to have an address of each family, IPv4's first.
pub const BOTH: &str = "  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]\n";
/// What it says to have one of IPv6 alone.
pub const V6: &str = "  ipFamilies: [IPv6]\n";

/// The texts of a list that are addresses.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a Value>) -> Vec<IpAddr> {
    let texts = texts.into_iter().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// A Service's cluster addresses, in its own order.
#[track_caller]
pub fn cluster_ips(scene: &Scene, service: &str) -> Vec<IpAddr> {
    let service = get(&["-n", &scene.name, "service", service]);
    addresses(
        service["spec"]["clusterIPs"]
            .as_array()
            .into_iter()
            .flatten(),
    )
}

/// A Pod's addresses, in Kubernetes' order.
#[track_caller]
pub fn pod_ips(scene: &Scene, pod: &str) -> Vec<IpAddr> {
    let pod = get(&["-n", &scene.name, "pod", pod]);
    let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
    addresses(ips.map(|entry| &entry["ip"]))
}

/// The addresses by which a node is known.
#[track_caller]
pub fn node_ips(node: &str) -> Vec<IpAddr> {
    let node = get(&["node", node]);
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    let internal = all.filter(|address| address["type"] == "InternalIP");
    addresses(internal.map(|address| &address["address"]))
}

/// A node's addresses on the join switch.
#[track_caller]
pub fn join_ips(node: &str) -> Vec<IpAddr> {
    let vnic = get(&["-n", "ycloud-system", "vnic", node]);
    let status = &vnic["status"];
    addresses([&status["ip"], &status["ipv6"]["ip"]])
}

/// The one of these that is of IPv6.
#[track_caller]
pub fn v6(addresses: &[IpAddr]) -> IpAddr {
    let found = addresses.iter().find(|address| address.is_ipv6());
    *found.unwrap_or_else(|| panic!("no IPv6 address among {addresses:?}"))
}

/// The one of these that is of the family of `other`.
#[track_caller]
pub fn of_family(addresses: &[IpAddr], other: IpAddr) -> IpAddr {
    let mut same = addresses.iter().filter(|a| a.is_ipv4() == other.is_ipv4());
    let found = same.next();
    *found.unwrap_or_else(|| panic!("none of the family of {other} among {addresses:?}"))
}

/// Whether it is one of each family, IPv4's first.
pub fn are_both(addresses: &[IpAddr]) -> bool {
    matches!(addresses, [IpAddr::V4(_), IpAddr::V6(_)])
}

/// A YusurService over Pods labelled `app` on port 80 of TCP and UDP; `scope` and `more` are lines of its spec, indented by
/// two. Waits until it is programmed with `healthy` backends; returns its cluster addresses.
#[track_caller]
pub fn yusur_service(
    scene: &Scene,
    name: &str,
    (scope, app, more): (&str, &str, &str),
    healthy: i64,
) -> Vec<IpAddr> {
    let ns = &scene.name;
    apply(&format!(
        "apiVersion: iaas.yusur.io/v1\nkind: YusurService\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n{scope}  selector: {{app: {app}}}\n{more}{PORTS}"
    ))
    .must();
    scene.pods_ready();
    scene.programmed(name, healthy);
    cluster_ips(scene, name)
}

/// Waits until exactly these answer, then asks again: by TCP and UDP nobody else may answer and no question may be lost.
/// Returns whom they see.
#[track_caller]
pub fn answer(place: &Place, address: IpAddr, port: u16, backends: &[&str]) -> BTreeSet<IpAddr> {
    let to = SocketAddr::new(address, port);
    let what = format!("{} is answered by {backends:?} at {to}", place.name());
    eventually(&what, SLOW, || {
        for protocol in PROTOCOLS {
            let answered = ask_often(place, protocol, to, 10 * backends.len() as u32);
            if answered.names() != backends || !answered.failed.is_empty() {
                return Err(format!("{protocol}: {answered:?}"));
            }
        }
        Ok(())
    });
    assert_answer(place, to, backends)
}
