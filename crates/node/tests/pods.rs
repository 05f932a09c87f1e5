//! ADD, DEL, CHECK and GC against a real kernel, a real Open vSwitch and a real OVN.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use support::pod::{Sandbox, connect};
use support::{Node, REFUSED, eventually, on_node, pod_ref, run};
use ycloud_node::agent::pod_links::host_interface;
use ycloud_node::agent::{add, check, del, gc};
use ycloud_node::protocol::{Failure, Wiring, code};

async fn wire(node: &Node, sandbox: &Sandbox, pod: &str) -> Wiring {
    let wired = add::add(
        &node.agent,
        &sandbox.id,
        &sandbox.path(),
        &pod_ref(pod),
        &[],
    )
    .await;
    wired.unwrap_or_else(|error| panic!("{pod}: {}", Failure::from(error)))
}

fn links() -> String {
    run("ip", &["-brief", "link"])
}

#[test]
fn two_pods_of_a_subnet_reach_each_other_and_leave_nothing() {
    on_node(|node| async move {
        let (a, b) = (Sandbox::new(), Sandbox::new());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        node.vnic(&pod_ref("b"), "s1", "v1", "10.0.1.6");
        let (wiring, _) = tokio::join!(wire(&node, &a, "a"), wire(&node, &b, "b"));
        assert_eq!(wiring.addresses.first.net().to_string(), "10.0.1.5/24");
        b.serve(80, "b").await;
        assert_eq!(a.connect("10.0.1.6:80").await.unwrap(), "b");
        assert_eq!(
            a.connect("10.0.1.6:81").await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        assert!(a.ip(&["route"]).contains("default via 10.0.1.1"));

        let addresses = ["10.0.1.5/24".to_owned()];
        check::check(&node.agent, &a.id, &a.path(), &addresses)
            .await
            .unwrap();
        a.ip(&["route", "del", "default"]);
        let error = check::check(&node.agent, &a.id, &a.path(), &addresses)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("no default route by 10.0.1.1"),
            "{error}"
        );

        // A retry of the same ADD repairs and keeps the port.
        let before = node.agent.ovs.view().port(&a.id).unwrap().interface;
        assert_eq!(wire(&node, &a, "a").await, wiring);
        assert_eq!(node.agent.ovs.view().port(&a.id).unwrap().interface, before);
        check::check(&node.agent, &a.id, &a.path(), &addresses)
            .await
            .unwrap();
        assert_eq!(a.connect("10.0.1.6:80").await.unwrap(), "b");

        for _ in 0..2 {
            del::del(&node.agent, &a.id).await.unwrap();
        }
        // The namespace is gone before its DEL.
        let id = b.id.clone();
        drop(b);
        del::del(&node.agent, &id).await.unwrap();
        assert!(node.ovn.pod_ports().is_empty());
        assert!(!links().contains("yc"), "{}", links());
        eventually("rules gone", Duration::from_secs(3), || {
            !run("nft", &["list", "ruleset"]).contains("chain yc")
        })
        .await;
    });
}

#[test]
fn the_node_reaches_pods_of_vpcs_with_equal_ranges_and_they_cannot_reach_it() {
    on_node(|node| async move {
        let (l, r) = (Sandbox::new(), Sandbox::new());
        node.ovn.switch("vl", "sl", "10.0.1.1/24");
        node.ovn.switch("vr", "sr", "10.0.1.1/24");
        node.vnic(&pod_ref("l"), "sl", "vl", "10.0.1.5");
        node.vnic(&pod_ref("r"), "sr", "vr", "10.0.1.6");
        tokio::join!(wire(&node, &l, "l"), wire(&node, &r, "r"));
        l.serve(80, "l").await;
        r.serve(80, "r").await;
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "l");
        assert_eq!(connect("10.0.1.6:80").await.unwrap(), "r");
        // A TCP probe of a closed port fails: nobody answers in the Pod's place.
        let refused = connect("10.0.1.5:81").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(l.connect("10.0.1.6:80").await.is_err(), "across Vpcs");

        // Neither by the probes' address, nor by sending to the host's end what OVN would not take.
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let listener = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        assert_eq!(
            connect("192.0.2.1:8080").await.map_err(|e| e.kind()),
            Err(ErrorKind::WouldBlock)
        );
        let host = node
            .agent
            .netlink
            .need_link(&host_interface(&l.id))
            .await
            .unwrap();
        let mac = host.mac.to_string();
        for target in ["192.0.2.1", "169.254.77.1"] {
            l.ip(&["route", "add", target, "dev", "eth0"]);
            l.ip(&[
                "neighbour",
                "replace",
                target,
                "lladdr",
                &mac,
                "dev",
                "eth0",
            ]);
            let error = l.connect(&format!("{target}:8080")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{target}");
        }
        drop(listener);

        // Somebody flushes all rules: they come back.
        run("nft", &["flush", "ruleset"]);
        node.agent.pod_links.settled().await.unwrap();
        del::del(&node.agent, &r.id).await.unwrap();
        eventually("answers again", Duration::from_secs(5), || {
            run("nft", &["list", "ruleset"]).contains("fwd to")
        })
        .await;
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "l");
    });
}

#[test]
fn a_new_sandbox_of_a_pod_takes_the_port_over() {
    on_node(|node| async move {
        let (old, new) = (Sandbox::new(), Sandbox::new());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        wire(&node, &old, "a").await;
        wire(&node, &new, "a").await;
        assert_eq!(node.ovn.pod_ports(), [host_interface(&new.id)]);
        del::del(&node.agent, &old.id).await.unwrap();
        assert_eq!(node.ovn.pod_ports(), [host_interface(&new.id)]);
        new.serve(80, "new").await;
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "new");
    });
}

#[test]
fn an_address_s_next_pod_has_it_though_the_former_one_still_runs() {
    on_node(|node| async move {
        let (former, next) = (Sandbox::new(), Sandbox::new());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.ovn.switch("v2", "s2", "10.0.1.1/24");
        node.vnic(&pod_ref("former"), "s1", "v1", "10.0.1.5");
        wire(&node, &former, "former").await;
        former.serve(80, "former").await;
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "former");
        // Deleted by force: the control plane has given the address to another.
        node.ovn.nbctl(&["lsp-del", "default/former-formerui"]);
        node.vnic(&pod_ref("next"), "s2", "v2", "10.0.1.5");
        wire(&node, &next, "next").await;
        next.serve(80, "next").await;
        assert_eq!(node.ovn.pod_ports(), [host_interface(&next.id)]);
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "next");
        del::del(&node.agent, &former.id).await.unwrap();
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "next");

        // Two of one address by hand: the node does not go to and fro between them.
        let name = host_interface(&former.id);
        run(
            "ip",
            &["link", "add", &name, "type", "veth", "peer", "other0"],
        );
        run("ip", &["link", "set", &name, "up"]);
        let copy = format!(
            "external_ids={}",
            node.ovn.vsctl(&[
                "get",
                "interface",
                &host_interface(&next.id),
                "external_ids"
            ])
        );
        node.ovn.vsctl(&[
            "add-port",
            "br-int",
            &name,
            "--",
            "set",
            "interface",
            &name,
            &copy,
        ]);
        node.agent.pod_links.settled().await.unwrap();
        let changes = || {
            let monitor = ["1", "ip", "monitor", "route"];
            let output = std::process::Command::new("timeout").args(monitor).output();
            String::from_utf8_lossy(&output.unwrap().stdout)
                .lines()
                .count()
        };
        assert!(changes() < 5);
    });
}

#[test]
fn an_add_that_fails_says_why_and_leaves_nothing() {
    on_node(|node| async move {
        let sandbox = Sandbox::new();
        let fail = async |pod: &str| -> Failure {
            let wired = add::add(
                &node.agent,
                &sandbox.id,
                &sandbox.path(),
                &pod_ref(pod),
                &[],
            )
            .await;
            wired.expect_err("it must fail").into()
        };
        let failure = fail("nobody").await;
        assert_eq!(failure.code, code::TRY_AGAIN);
        assert!(
            failure
                .msg
                .contains("Pod default/nobody: VNic default/nobody-nobodyui is not known"),
            "{failure}"
        );

        let failure = fail(REFUSED).await;
        assert!(
            failure
                .msg
                .ends_with("does not exist: Subnet s9 does not exist"),
            "{failure}"
        );

        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        node.ovn.nbctl(&["lsp-del", "default/a-auid"]);
        let failure = fail("a").await;
        assert_eq!(failure.code, code::TRY_AGAIN);
        assert!(
            failure
                .msg
                .contains("logical port default/a-auid installed"),
            "{failure}"
        );
        assert!(node.ovn.pod_ports().is_empty());
        assert!(!links().contains("yc"), "{}", links());
        assert!(!sandbox.ip(&["-brief", "link"]).contains("eth0"));
    });
}

#[test]
fn what_is_left_of_gone_containers_is_removed_and_nothing_else() {
    on_node(|node| async move {
        let (alive, dead, unknown) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        for (sandbox, name, ip) in [
            (&alive, "alive", "10.0.1.5"),
            (&dead, "dead", "10.0.1.6"),
            (&unknown, "unknown", "10.0.1.7"),
        ] {
            node.vnic(&pod_ref(name), "s1", "v1", ip);
            wire(&node, sandbox, name).await;
        }
        let names = |sandboxes: &[&Sandbox]| {
            let mut names: Vec<String> = sandboxes.iter().map(|s| host_interface(&s.id)).collect();
            names.sort();
            names
        };
        // An agent was killed between the link and the port.
        run("ip", &["link", "add", "yc0123456789a", "type", "veth"]);
        run("ip", &["link", "add", "yc-else", "type", "veth"]);
        let dead_link = host_interface(&dead.id);
        drop(dead);
        eventually("its link gone", Duration::from_secs(5), || {
            !links().contains(&dead_link)
        })
        .await;
        assert_eq!(node.ovn.pod_ports().len(), 3);
        gc::sweep(&node.agent).await.unwrap();
        assert_eq!(node.ovn.pod_ports(), names(&[&alive, &unknown]));
        assert!(
            links().contains("yc0123456789a"),
            "no runtime has said that it is nobody's"
        );

        gc::gc(&node.agent, std::slice::from_ref(&alive.id))
            .await
            .unwrap();
        assert_eq!(node.ovn.pod_ports(), names(&[&alive]));
        assert!(!links().contains("yc0123456789a") && links().contains("yc-else"));
        alive.serve(80, "alive").await;
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "alive");
    });
}

/// The datagrams that arrive at a socket within a short while.
async fn received(socket: std::net::UdpSocket) -> Vec<String> {
    let read = move || {
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut buffer = [0; 100];
        let mut texts = Vec::new();
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            texts.push(format!("{text} from {}", from.ip()));
        }
        texts
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Whether an echo request is answered.
fn pings(sandbox: &Sandbox, source: &str, target: &str) -> bool {
    let ping = ["ping", "-n", "-c", "1", "-W", "1", "-I", source, target];
    let arguments = [&["netns", "exec", sandbox.name()], &ping[..]].concat();
    let output = std::process::Command::new("ip").args(arguments).output();
    output.unwrap().status.success()
}

#[test]
fn a_tenant_s_pod_reaches_the_node_by_no_protocol_and_under_no_name() {
    on_node(|node| async move {
        let (a, b, c) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.ovn.switch("v2", "s2", "10.0.2.1/24");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        node.vnic(&pod_ref("b"), "s2", "v2", "10.0.2.6");
        node.vnic(&pod_ref("c"), "s1", "v1", "10.0.1.7");
        wire(&node, &a, "a").await;
        wire(&node, &b, "b").await;
        wire(&node, &c, "c").await;
        b.serve(80, "b").await;
        // The worst node: it forwards, and has a way back to each Pod.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let listener = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        listener.set_nonblocking(true).unwrap();
        let socket = std::net::UdpSocket::bind("0.0.0.0:8080").unwrap();
        assert_eq!(connect("10.0.2.6:80").await.unwrap(), "b");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

        // Its own Vpc it does reach.
        assert!(pings(&a, "10.0.1.5", "10.0.1.7"));
        let neighbour = c.udp(8080).await;
        a.send_udp("10.0.1.5", "10.0.1.7:8080").await;
        let datagrams = ["10.0.1.5:0 to 10.0.1.7:8080 from 10.0.1.5"];
        assert_eq!(received(neighbour).await, datagrams);

        // As the Pod is configured, and past its router, straight to the host's end of its link.
        let host = node
            .agent
            .netlink
            .need_link(&host_interface(&a.id))
            .await
            .unwrap();
        let targets = ["169.254.77.1", "192.0.2.1", "10.0.2.6"];
        // Its own address, its neighbour's, another Vpc's, the node's.
        let sources = [
            "10.0.1.5",
            "10.0.1.7",
            "10.0.2.6",
            "192.0.2.1",
            "169.254.77.1",
        ];
        for straight in [false, true] {
            if straight {
                for target in targets {
                    let mac = host.mac.to_string();
                    a.ip(&["route", "add", target, "dev", "eth0"]);
                    let neighbour = ["neighbour", "replace", target, "lladdr", &mac];
                    a.ip(&[&neighbour[..], &["dev", "eth0"]].concat());
                }
            }
            for source in sources {
                let own = format!("{source}/32");
                if source != "10.0.1.5" {
                    a.ip(&["address", "add", &own, "dev", "eth0"]);
                }
                for target in targets.into_iter().filter(|target| *target != source) {
                    let what = format!("{source} to {target}, straight: {straight}");
                    a.send_udp(source, &format!("{target}:8080")).await;
                    assert!(!pings(&a, source, target), "{what}");
                    let tcp = a.connect_from(source, &format!("{target}:8080")).await;
                    assert!(tcp.is_err(), "{what}");
                }
                if source != "10.0.1.5" {
                    a.ip(&["address", "del", &own, "dev", "eth0"]);
                }
            }
        }
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(received(socket).await, Vec::<String>::new());
        // The way is open for answers all the same.
        assert_eq!(connect("10.0.2.6:80").await.unwrap(), "b");

        // Somebody takes the port away: the Pod has no network then, and not the node's either.
        node.ovn.vsctl(&["del-port", &host.name]);
        node.agent.pod_links.settled().await.unwrap();
        let tcp = a.connect_from("10.0.1.5", "192.0.2.1:8080").await;
        assert_eq!(tcp.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn the_node_is_no_router_into_a_vpc() {
    on_node(|node| async move {
        let (pod, outside) = (Sandbox::new(), Sandbox::new());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        wire(&node, &pod, "a").await;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let name = outside.name();
        let veth = [
            "link", "add", "out0", "type", "veth", "peer", "eth0", "netns",
        ];
        run("ip", &[&veth[..], &[name]].concat());
        run("ip", &["address", "add", "198.51.100.1/24", "dev", "out0"]);
        run("ip", &["link", "set", "out0", "up"]);
        outside.ip(&["link", "set", "eth0", "up"]);
        outside.ip(&["address", "add", "198.51.100.9/24", "dev", "eth0"]);
        outside.ip(&["route", "add", "default", "via", "198.51.100.1"]);
        let inside = pod.udp(5000).await;
        // The node's own datagram arrives, the machine's does not: also not one under the name that the node has here.
        let own = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        own.send_to(b"own", "10.0.1.5:5000").unwrap();
        outside.send_udp("198.51.100.9", "10.0.1.5:5000").await;
        outside.ip(&["address", "add", "169.254.77.1/32", "dev", "eth0"]);
        outside.send_udp("169.254.77.1", "10.0.1.5:5000").await;
        assert_eq!(received(inside).await, ["own from 169.254.77.1"]);
        outside.ip(&["address", "del", "169.254.77.1/32", "dev", "eth0"]);
        let answers = own.local_addr().unwrap().port();
        outside
            .send_udp("198.51.100.9", &format!("169.254.77.1:{answers}"))
            .await;
        assert_eq!(received(own).await, Vec::<String>::new());
    });
}

#[test]
fn a_pod_never_gets_what_the_node_sends_to_machines_that_it_needs() {
    on_node(|node| async move {
        run(
            "ip",
            &["link", "add", "under0", "type", "veth", "peer", "under1"],
        );
        for link in ["under0", "under1"] {
            run("ip", &["link", "set", link, "up"]);
        }
        run("ip", &["address", "add", "10.0.1.200/28", "dev", "under0"]);
        node.objects
            .hosts
            .send_replace([std::net::Ipv4Addr::new(10, 0, 1, 9).into()].into());
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        let pods = [
            ("neighbour", "10.0.1.201"),
            ("server", "10.0.1.9"),
            ("peer", "10.0.1.77"),
            ("other", "10.0.1.5"),
        ];
        node.ovn.vsctl(&[
            "add-port",
            "br-int",
            "tunnel",
            "--",
            "set",
            "interface",
            "tunnel",
            "type=geneve",
            "options:remote_ip=10.0.1.77",
        ]);
        let sandboxes = pods.map(|_| Sandbox::new());
        for ((name, ip), sandbox) in pods.iter().zip(&sandboxes) {
            node.vnic(&pod_ref(name), "s1", "v1", ip);
            wire(&node, sandbox, name).await;
            sandbox.serve(80, "pod").await;
        }
        let route = |ip: &str| run("ip", &["route", "get", ip]);
        assert!(route("10.0.1.201").contains("dev under0"));
        let routes = run("ip", &["route"]);
        for ip in ["10.0.1.9", "10.0.1.77"] {
            assert!(!routes.contains(&format!("{ip} dev")), "{routes}");
        }
        assert!(route("10.0.1.5").contains("dev yc"));
        assert_eq!(connect("10.0.1.5:80").await.unwrap(), "pod");
        assert_eq!(node.agent.pod_links.not_probed(), 3);
        // They are wired like all others.
        let answer = sandboxes[3].connect("10.0.1.201:80").await;
        assert_eq!(answer.unwrap(), "pod");

        // The node comes to need a machine, and needs it no longer.
        node.objects
            .hosts
            .send_replace([std::net::Ipv4Addr::new(10, 0, 1, 5).into()].into());
        eventually("given back", Duration::from_secs(3), || {
            let routes = run("ip", &["route"]);
            !routes.contains("10.0.1.5 dev yc") && routes.contains("10.0.1.9 dev yc")
        })
        .await;
        run("ip", &["link", "del", "under0"]);
        eventually("its own again", Duration::from_secs(3), || {
            run("ip", &["route"]).contains("10.0.1.201 dev yc")
        })
        .await;
    });
}

#[test]
fn without_rules_no_pod_starts() {
    on_node(|node| async move {
        let sandbox = Sandbox::new();
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        node.vnic(&pod_ref("a"), "s1", "v1", "10.0.1.5");
        // A table that somebody else owns cannot be replaced: nft(8), "flags owner".
        let mut owner = std::process::Command::new("nft")
            .arg("-i")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = owner.stdin.take().unwrap();
        let tables = "delete table netdev ycloud-pods\ntable netdev ycloud-pods { flags owner; }\n";
        std::io::Write::write_all(&mut stdin, tables.as_bytes()).unwrap();
        eventually("owned", Duration::from_secs(3), || {
            run("nft", &["list", "tables"]).contains("owner")
                || run("nft", &["list", "ruleset"]).contains("flags owner")
        })
        .await;
        let wired = add::add(
            &node.agent,
            &sandbox.id,
            &sandbox.path(),
            &pod_ref("a"),
            &[],
        )
        .await;
        let failure = Failure::from(wired.expect_err("no rules can be set"));
        assert_eq!(failure.code, code::TRY_AGAIN);
        assert!(
            failure.msg.contains("failed to apply nftables rules"),
            "{failure}"
        );
        assert!(node.ovn.pod_ports().is_empty());
        drop(stdin);
        owner.wait().unwrap();
        wire(&node, &sandbox, "a").await;
    });
}

#[test]
fn twenty_pods_come_at_once_and_go_at_once() {
    on_node(|node| async move {
        node.ovn.switch("v1", "s1", "10.0.1.1/24");
        let pods: Vec<(String, Sandbox)> = (0..20)
            .map(|number| (format!("p{number}"), Sandbox::new()))
            .collect();
        for (number, (name, _)) in pods.iter().enumerate() {
            let ip = format!("10.0.1.{}", 10 + number);
            node.vnic(&pod_ref(name), "s1", "v1", &ip);
        }
        let start = std::time::Instant::now();
        let wired = pods.iter().map(|(name, sandbox)| async {
            let wiring = wire(&node, sandbox, name).await;
            (wiring, start.elapsed())
        });
        let wired = futures::future::join_all(wired).await;
        let slowest = wired.iter().map(|(_, elapsed)| *elapsed).max().unwrap();
        println!("the slowest of 20 took {slowest:?}");
        for (number, (name, sandbox)) in pods.iter().enumerate() {
            let text: &'static str = name.clone().leak();
            sandbox.serve(80, text).await;
            let answer = connect(&format!("10.0.1.{}:80", 10 + number)).await;
            assert_eq!(answer.unwrap(), *name);
        }

        // Half of them are replaced by Pods of the same addresses while the others go.
        let gone = pods
            .iter()
            .map(|(_, sandbox)| del::del(&node.agent, &sandbox.id));
        let again: Vec<Sandbox> = (0..10).map(|_| Sandbox::new()).collect();
        let wired = again.iter().zip(&pods);
        let wired = wired.map(|(sandbox, (name, _))| wire(&node, sandbox, name));
        let (gone, _) = tokio::join!(
            futures::future::join_all(gone),
            futures::future::join_all(wired)
        );
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        let mut names: Vec<String> = again.iter().map(|s| host_interface(&s.id)).collect();
        names.sort();
        assert_eq!(node.ovn.pod_ports(), names);
        again[0].serve(80, "again").await;
        assert_eq!(connect("10.0.1.10:80").await.unwrap(), "again");
        eventually("ten routes", Duration::from_secs(3), || {
            run("ip", &["route"]).matches("dev yc").count() == 10
        })
        .await;
    });
}
