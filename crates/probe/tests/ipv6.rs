//! Each kind of probe by IPv6, beside IPv4 on the same servers.

mod servers;

use std::net::IpAddr;
use std::time::Duration;

use servers::{Certificates, ask, ask_by, closed_port, grpc, http, https, probe, tcp, udp};
use ycloud_probe::{Failure, Origin, Way};

const LOOPBACKS: [&str; 2] = ["127.0.0.1", "::1"];

/// A spec that asks `port` of `ip`, in brackets or not.
fn spec(ip: &str, port: u16, check: &str) -> String {
    format!("{{target: {{vpc: v, ip: '{ip}', port: {port}}}, timeoutSeconds: 1{check}}}")
}

#[tokio::test]
async fn connections_and_datagrams_are_asked_by_both_families() {
    let (port, _tcp) = tcp().await;
    let (datagrams, _udp) = udp(|datagram| Some(datagram.to_vec())).await;
    let (health, _grpc) = grpc(b"\0\0\0\0\x02\x08\x01", "0").await;
    for ip in LOOPBACKS {
        ask(&spec(ip, port, "")).await.expect(ip);
        let check = ", udp: {send: ping, expect: pin}";
        ask(&spec(ip, datagrams, check)).await.expect(ip);
        ask(&spec(ip, health, ", grpc: {}")).await.expect(ip);
        for check in ["", ", udp: {send: a}"] {
            let refused = ask(&spec(ip, closed_port().await, check)).await;
            assert_eq!(refused, Err(Failure::Refused), "{ip}{check}");
        }
    }
}

#[tokio::test]
async fn an_ipv6_address_is_in_brackets_where_a_port_follows() {
    let (port, mut server) = http("HTTP/1.1 200 OK\r\n\r\n").await;
    for (ip, host) in LOOPBACKS.into_iter().zip(["127.0.0.1", "[::1]"]) {
        ask(&spec(ip, port, ", http: {}")).await.expect(ip);
        let request = server.request.recv().await.expect("a request");
        let line = format!("host: {host}:{port}\r\n");
        assert!(request.contains(&line), "{request}");
    }
}

#[tokio::test]
async fn a_certificate_may_bear_an_ipv6_address() {
    let certificates = Certificates::new("::1");
    let (port, _server) = https(&certificates, "HTTP/1.1 200 OK\r\n\r\n").await;
    let check = format!(", https: {{{}}}", certificates.trusting(""));
    ask(&spec("::1", port, &check)).await.expect("a success");
    let failure = ask(&spec("127.0.0.1", port, &check)).await;
    let failure = failure.expect_err("another address");
    assert!(failure.words().contains("not valid for name"), "{failure}");
}

#[tokio::test]
async fn icmpv6_asks_from_inside_a_network_namespace() {
    let netns = servers::Netns::new();
    let here = netns.way();
    let echo = |ip: &str| spec(ip, 1, ", icmp: {}");
    ask_by(&echo("fd00:9::1"), &here).await.expect("an echo");
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    // Of each family's sources only the target's counts.
    let from = here.clone().source(ip("10.9.0.1")).source(ip("fd00:9::1"));
    let by_lo = from.clone().device("lo");
    for own in ["fd00:9::1", "10.9.0.1"] {
        ask_by(&echo(own), &by_lo).await.expect(own);
    }
    let dropped = ask_by(&echo("fd00:9:1::2"), &here).await;
    let dropped = dropped.expect_err("silence");
    assert_eq!(dropped.words(), "timed out after 1 s waiting for a packet");
    let prohibited = ask_by(&echo("fd00:9:2::1"), &here).await;
    assert_eq!(prohibited.expect_err("no way").origin(), Origin::Silence);
    let lost = ask_by(&echo("fd00:9:3::1"), &here).await;
    assert_eq!(lost.expect_err("no route").origin(), Origin::Prober);
    ask_by(&echo("fd00:9::1"), &Way::default().device("lo"))
        .await
        .expect_err("another network");
}

#[tokio::test]
async fn silence_ends_at_the_timeout_whatever_the_kind() {
    let netns = servers::Netns::new();
    for check in ["", ", udp: {}", ", icmp: {}", ", http: {}"] {
        let start = std::time::Instant::now();
        let silent = ask_by(&spec("fd00:9:1::2", 80, check), &netns.way()).await;
        let silent = silent.expect_err("silence");
        assert_eq!(silent.origin(), Origin::Silence, "{check}: {silent}");
        let took = start.elapsed();
        assert!(took < Duration::from_millis(1_500), "{check}: {took:?}");
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for ip in ["fd00::g", "[fd00::1]", "fe80::1%eth0", "fd00::1/64"] {
        let refused = probe(&spec(ip, 1, "")).expect_err(ip).to_string();
        assert!(
            refused.contains("write an address, for example"),
            "{refused}"
        );
    }
}
