//! The flows that session affinity needs, in a real Open vSwitch with a real OVN.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use support::pod::{Sandbox, at};
use support::{Node, eventually, on_node, pod_ref};
use ycloud_node::agent::add;

const SOON: Duration = Duration::from_secs(5);

/// Our flows in the bridge, as ovs-ofctl(8) shows them: table and match.
fn flows(node: &Node) -> BTreeSet<String> {
    let bridge = format!("unix:{}", node.ovn.path("br-int.mgmt").display());
    let arguments = [
        "-O",
        "OpenFlow15",
        "--no-stats",
        "dump-flows",
        &bridge,
        "cookie=0x79636c6f75640001/-1",
    ];
    let text = node.ovn.tool("ovs-ofctl", &arguments);
    let lines = text.lines().filter(|line| line.contains("priority=65535"));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// Waits until each of these datapaths, and no other one, has its two flows.
async fn settled(node: &Node, datapaths: usize) {
    let start = Instant::now();
    while !node.agent.chassis.affinity.borrow().applied || flows(node).len() != 2 * datapaths {
        let progress = *node.agent.chassis.affinity.borrow();
        assert!(
            start.elapsed() < SOON,
            "{progress:?}, not {datapaths} datapaths"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn every_datapath_has_its_flows_whoever_takes_them_away() {
    on_node(|node| async move {
        eventually("it is told", SOON, || {
            node.agent.chassis.affinity.borrow().applied
        })
        .await;
        node.ovn.switch("r", "s1", "10.0.1.1/24");
        node.ovn.switch("r", "s2", "10.0.2.1/24");
        settled(&node, 3).await;
        let all = flows(&node);
        let at = |switch: &str| {
            let find = ["--bare", "--columns=tunnel_key", "find", "datapath_binding"];
            let name = format!("external_ids:name={switch}");
            let key = node.ovn.tool("ovn-sbctl", &[&find[..], &[&name]].concat());
            format!("metadata=0x{:x}", key.parse::<u64>().unwrap())
        };
        for datapath in ["s1", "s2", "r"] {
            let metadata = format!("{},", at(datapath));
            let of = |action: &str| {
                let mut flows = all.iter();
                flows
                    .any(|flow| flow.replace(' ', ",").contains(&metadata) && flow.contains(action))
            };
            assert!(
                of("actions=drop") && of("ct_state=+new+trk"),
                "{datapath}: {all:#?}"
            );
        }

        let bridge = format!("unix:{}", node.ovn.path("br-int.mgmt").display());
        node.ovn.tool(
            "ovs-ofctl",
            &[
                "-O",
                "OpenFlow15",
                "del-flows",
                &bridge,
                "cookie=0x79636c6f75640001/-1",
            ],
        );
        settled(&node, 3).await;
        node.ovn.nbctl(&["ls-add", "s3"]);
        settled(&node, 4).await;
        node.ovn.nbctl(&["ls-del", "s3"]);
        settled(&node, 3).await;
        assert_eq!(flows(&node), all);

        // A new ovn-controller clears the bridge.
        node.ovn.kill("controller");
        assert_eq!(flows(&node), all, "they stay while nobody is there");
        let other = ["add-flow", &bridge, "table=23,priority=7 actions=drop"];
        node.ovn
            .tool("ovs-ofctl", &[&["-O", "OpenFlow15"], &other[..]].concat());
        let cleared = || {
            let other = ["-O", "OpenFlow15", "dump-flows", &bridge, "table=23"];
            !node.ovn.tool("ovs-ofctl", &other).contains("priority=7 ")
        };
        assert!(!cleared());
        node.ovn.start_controller();
        let start = Instant::now();
        while !cleared() {
            assert!(start.elapsed() < SOON, "not cleared");
        }
        let start = Instant::now();
        settled(&node, 3).await;
        let took = start.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}");

        node.ovn.kill("vswitchd");
        eventually("it is told", SOON, || {
            !node.agent.chassis.affinity.borrow().applied
        })
        .await;
        node.ovn.start_vswitchd();
        settled(&node, 3).await;
        assert_eq!(flows(&node), all);
    });
}

#[test]
fn clients_of_an_affinity_timeout_lose_no_connection_and_stay() {
    on_node(|node| async move { clients(&node, "10.0.1.", "/24", "10.96.0.7").await });
}

#[test]
fn clients_of_an_affinity_timeout_lose_no_connection_and_stay_with_ipv6() {
    on_node(|node| async move { clients(&node, "fd00:1::", "/64", "fd00:96::7").await });
}

/// `net` is how the addresses of a Subnet begin.
async fn clients(node: &Node, net: &str, length: &str, vip: &str) {
    node.ovn.switch("r", "s", &format!("{net}1{length}"));
    let (vip, mut servers) = (at(vip, 80), Vec::new());
    for (name, number) in [("a", 11), ("b", 12), ("c", 13)] {
        let ip = format!("{net}{number}");
        let pod = Sandbox::new();
        node.vnic(&pod_ref(name), "s", "v", &ip);
        add::add(&node.agent, &pod.id, &pod.path(), &pod_ref(name), &[])
            .await
            .unwrap();
        pod.serve(80, name).await;
        servers.push(pod);
    }
    let backends = [11, 12, 13].map(|number| at(&format!("{net}{number}"), 80));
    node.ovn
        .nbctl(&["lb-add", "l", &vip, &backends.join(","), "tcp"]);
    node.ovn.nbctl(&[
        "set",
        "load_balancer",
        "l",
        "options:affinity_timeout=30",
        "options:neighbor_responder=none",
    ]);
    node.ovn.nbctl(&["--wait=hv", "ls-lb-add", "s", "l"]);
    settled(node, 2).await;
    let (mut chosen, mut slow) = (BTreeSet::new(), Vec::new());
    for n in 0..8 {
        let client = Sandbox::new();
        let name = format!("client-{n}");
        node.vnic(&pod_ref(&name), "s", "v", &format!("{net}{}", 100 + n));
        add::add(
            &node.agent,
            &client.id,
            &client.path(),
            &pod_ref(&name),
            &[],
        )
        .await
        .unwrap();
        client.finds(&format!("{net}1"));
        let mut answers = BTreeSet::new();
        for connection in 0..6 {
            let start = Instant::now();
            let answer = client.connect(&vip).await;
            let answer = answer.unwrap_or_else(|e| panic!("{name}, {connection}: {e}"));
            // A repeated SYN comes after a second.
            let took = start.elapsed();
            if took > Duration::from_millis(900) {
                let sent = client.repeated();
                slow.push(format!("{name}, {connection}: {took:?}: {sent}"));
            }
            // What is learned from the first one counts once the datapath's cache follows: a burst may spread.
            if connection == 0 {
                tokio::time::sleep(Duration::from_millis(700)).await;
            } else {
                answers.insert(answer);
            }
        }
        assert_eq!(answers.len(), 1, "{name}: {answers:?}");
        chosen.extend(answers);
    }
    assert!(slow.is_empty(), "{slow:#?}");
    assert!(chosen.len() > 1, "{chosen:?}");
}
