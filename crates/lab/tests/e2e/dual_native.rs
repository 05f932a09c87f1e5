//! Kubernetes' own Services of both families: by cluster addresses, node ports, names.

use std::net::{IpAddr, SocketAddr};

use ycloud_lab::ask::Heard;

use crate::asking::{assert_met, machine, pod};
use crate::city::default_vpc;
use crate::cluster::{NODES, SOON, eventually, get, in_pod};
use crate::dual::{BOTH, V6, answer, are_both, cluster_ips, node_ips, of_family, pod_ips, v6};
use crate::native::{PORTS, service};

/// Selects two servers on two of three nodes.
const TWO: &str = "  selector: {nodes: two}\n";

#[test]
fn dual_native_services_have_the_families_that_they_ask_for() {
    let scene = default_vpc();
    let spec = |families: &str| format!("{TWO}{families}{PORTS}");
    let prefer = "  ipFamilyPolicy: PreferDualStack\n";
    for (name, families) in [
        ("dual-plain", ""),
        ("dual-six", V6),
        ("dual-prefer", prefer),
        ("dual-both", BOTH),
    ] {
        service(&scene, name, &spec(families));
    }
    let plain = cluster_ips(&scene, "dual-plain");
    assert!(matches!(plain[..], [IpAddr::V4(_)]), "{plain:?}");
    let six = cluster_ips(&scene, "dual-six");
    assert!(matches!(six[..], [IpAddr::V6(_)]), "{six:?}");
    let (prefer, both) = (
        cluster_ips(&scene, "dual-prefer"),
        cluster_ips(&scene, "dual-both"),
    );
    assert!(are_both(&prefer) && are_both(&both), "{prefer:?} {both:?}");
    let client = pod(&scene, "c2");
    let own = pod_ips(&scene, "c2");
    for vip in [plain, six, prefer, both].concat() {
        let seen = answer(&client, vip, 80, &["s0", "s1"]);
        assert_eq!(seen, [of_family(&own, vip)].into(), "at {vip}");
        for node in ["node-1", "node-3"] {
            answer(&machine(node), vip, 80, &["s0", "s1"]);
        }
    }
}

#[test]
fn dual_native_the_api_servers_service_stays_as_it_was() {
    let service = get(&["-n", "default", "service", "kubernetes"]);
    let spec = &service["spec"];
    assert_eq!(spec["ipFamilies"], serde_json::json!(["IPv4"]), "{spec}");
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack", "{spec}");
}

#[test]
fn dual_native_host_network_endpoints() {
    let scene = default_vpc();
    service(
        &scene,
        "dual-host",
        &format!("  selector: {{app: host}}\n{BOTH}{PORTS}"),
    );
    assert_eq!(pod_ips(&scene, "h"), node_ips("node-2"));
    for vip in cluster_ips(&scene, "dual-host") {
        for client in ["c1", "c2", "h"] {
            answer(&pod(&scene, client), vip, 80, &["node-2"]);
        }
        for node in NODES {
            answer(&machine(node), vip, 80, &["node-2"]);
        }
    }
}

#[test]
fn dual_native_node_ports_answer_at_every_nodes_addresses() {
    let scene = default_vpc();
    let ports = PORTS.replace("targetPort", "nodePort: 31490, targetPort");
    let spec = format!("  type: NodePort\n{TWO}{BOTH}{ports}");
    service(&scene, "dual-node-port", &spec);
    let external = crate::cluster::the_lab()
        .place(ycloud_lab::Machine::External)
        .expect("a lab that is up");
    for node in NODES {
        for address in node_ips(node) {
            for client in [
                &external,
                &machine("node-1"),
                &machine("node-3"),
                &pod(&scene, "c2"),
                &pod(&scene, "s0"),
            ] {
                answer(client, address, 31_490, &["s0", "s1"]);
            }
        }
    }
}

#[test]
fn dual_native_external_policy_local_keeps_the_client_and_its_node() {
    let scene = default_vpc();
    let ports = PORTS.replace("targetPort", "nodePort: 31492, targetPort");
    let local = "  externalTrafficPolicy: Local\n";
    let spec = format!("  type: NodePort\n{local}{TWO}{V6}{ports}");
    service(&scene, "dual-external-local", &spec);
    let lab = crate::cluster::the_lab();
    let machine = ycloud_lab::Machine::External;
    let external = lab.place(machine).expect("a lab that is up");
    let own = IpAddr::from(lab.address_v6(machine).expect("a lab that is up"));
    for (node, server) in [("node-1", "s0"), ("node-2", "s1")] {
        let seen = answer(&external, v6(&node_ips(node)), 31_492, &[server]);
        assert_eq!(seen, [own].into(), "{node}");
    }
    let elsewhere = SocketAddr::new(v6(&node_ips("node-3")), 31_492);
    assert_met(&external, elsewhere, Heard::Silence);
}

#[test]
fn dual_native_internal_policy_local_keeps_to_the_clients_node() {
    let scene = default_vpc();
    let local = "  internalTrafficPolicy: Local\n";
    let spec = format!("{local}{TWO}{BOTH}{PORTS}");
    service(&scene, "dual-internal-local", &spec);
    for vip in cluster_ips(&scene, "dual-internal-local") {
        answer(&pod(&scene, "c0"), vip, 80, &["s0"]);
        answer(&machine("node-2"), vip, 80, &["s1"]);
        assert_met(&pod(&scene, "c2"), SocketAddr::new(vip, 80), Heard::Refusal);
    }
}

#[test]
fn dual_native_names_have_an_address_of_each_family() {
    let scene = default_vpc();
    service(&scene, "dual-names", &format!("{TWO}{BOTH}{PORTS}"));
    let headless = format!("  clusterIP: None\n{TWO}{BOTH}{PORTS}");
    service(&scene, "dual-pods", &headless);
    let pods = [pod_ips(&scene, "s0"), pod_ips(&scene, "s1")].concat();
    for (name, all) in [
        ("dual-names", cluster_ips(&scene, "dual-names")),
        ("dual-pods", pods),
    ] {
        for (record, ipv6) in [("A", false), ("AAAA", true)] {
            let mut wanted: Vec<IpAddr> = all
                .iter()
                .copied()
                .filter(|a| a.is_ipv6() == ipv6)
                .collect();
            wanted.sort();
            let full = format!("{name}.{}.svc.cluster.local", scene.name);
            let script = format!("dig +short +tries=1 +time=2 {record} {full}");
            eventually(&format!("{full} has {record} {wanted:?}"), SOON, || {
                let printed = in_pod(&scene.name, "c2", &script);
                let mut found: Vec<IpAddr> = printed
                    .out
                    .lines()
                    .filter_map(|line| line.parse().ok())
                    .collect();
                found.sort();
                if found == wanted && !found.is_empty() {
                    return Ok(());
                }
                Err(format!("{printed:?}"))
            });
        }
    }
    // And the name is all that a client needs.
    let url = format!(
        "http://dual-names.{}.svc.cluster.local/hostname",
        scene.name
    );
    let answered = in_pod(&scene.name, "c2", &format!("curl -6 -s -m 5 {url}")).must();
    assert!(["s0", "s1"].contains(&answered.trim()), "{answered}");
}
