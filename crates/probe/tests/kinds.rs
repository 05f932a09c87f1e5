//! Each kind of probe against real servers that are well, dead, or wrong.

mod servers;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use servers::{
    Certificates, ask, ask_by, black_hole, closed_port, grpc, http, https, probe, tcp, udp,
};
use ycloud_probe::{Failure, Origin, Way};

#[tokio::test]
async fn tcp_connects() {
    let (port, _server) = tcp().await;
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}}}");
    ask(&spec).await.expect("a success");
    let spec = format!(
        "{{target: {{vpc: v, ip: 127.0.0.1, port: {}}}}}",
        closed_port().await
    );
    assert_eq!(ask(&spec).await, Err(Failure::Refused));
}

#[tokio::test]
async fn a_black_hole_ends_at_the_timeout_and_is_silence() {
    let (port, _server) = black_hole().await;
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, timeoutSeconds: 1}}");
    let start = Instant::now();
    let failure = ask(&spec).await.expect_err("a failure");
    assert_eq!(failure.words(), "timed out after 1 s connecting");
    assert_eq!(failure.origin(), Origin::Silence);
    assert!(start.elapsed() < Duration::from_millis(1_300));
}

#[tokio::test]
async fn no_socket_is_the_probers_fault() {
    let spec = "{target: {vpc: v, ip: 127.0.0.1, port: 80}}";
    let way = Way::default().device("no-such-device");
    let failure = ask_by(spec, &way).await.expect_err("a failure");
    assert_eq!(failure.origin(), Origin::Prober);
    assert!(
        failure.words().contains("failed to open a socket"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_source_port_that_another_round_to_the_same_address_has_is_stepped_over() {
    let (port, _server) = black_hole().await;
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, timeoutSeconds: 1}}");
    let probe = probe(&spec).expect("a probe");
    let (way, turn) = (Way::default(), 4_711);
    let same = || ycloud_probe::round::ask(&probe, &way, turn);
    for outcome in <[_; 3]>::from(tokio::join!(same(), same(), same())) {
        let failure = outcome.expect_err("a failure");
        assert_eq!(failure.words(), "timed out after 1 s connecting");
    }
}

#[tokio::test]
async fn http_judges_the_status() {
    let headers: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let many_headers = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
    let cookie = "c".repeat(20 * 1024);
    let long_cookie = format!("HTTP/1.1 200 OK\r\nSet-Cookie: a={cookie}\r\n\r\n");
    let cases = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "{}",
            Ok(()),
        ),
        ("HTTP/1.0 200 OK\r\n\r\n", "{}", Ok(())),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n",
            "{}",
            Ok(()),
        ),
        (
            "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            "{statuses: '204'}",
            Ok(()),
        ),
        // As much as a kubelet takes.
        (&many_headers, "{}", Ok(())),
        (&long_cookie, "{}", Ok(())),
        (
            "HTTP/1.1 200 OK\r\nA: b,\r\n  c\r\nD: e\r\n\r\n",
            "{}",
            Ok(()),
        ),
        (
            "HTTP/1.1 500 Oh\r\n\r\n",
            "{}",
            Err("HTTP status 500, expected 200-399"),
        ),
        (
            "HTTP/1.1 201 Made\r\n\r\n",
            "{statuses: '200'}",
            Err("HTTP status 201, expected 200"),
        ),
        (
            "",
            "{}",
            Err("the connection was closed waiting for an answer"),
        ),
        (
            "HTTP/1.1 200 OK\r\nA:",
            "{}",
            Err("the connection was closed waiting for an answer"),
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "{}",
            Err("malformed HTTP: invalid HTTP version parsed"),
        ),
    ];
    for (answer, http_spec, expected) in cases {
        let (port, mut server) = http(answer).await;
        let spec =
            format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, http: {http_spec}}}");
        let outcome = ask(&spec)
            .await
            .map(drop)
            .map_err(|failure| failure.words());
        assert_eq!(outcome, expected.map_err(str::to_owned), "{answer:?}");
        let request = server.request.recv().await.expect("a request");
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains(&format!("host: 127.0.0.1:{port}\r\n")),
            "{request}"
        );
    }
}

#[tokio::test]
async fn http_asks_for_path_and_host() {
    let (port, mut server) = http("HTTP/1.1 200 OK\r\n\r\n").await;
    let check = "http: {path: '/healthz?deep=1', host: web.example}";
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, {check}}}");
    ask(&spec).await.expect("a success");
    let request = server.request.recv().await.expect("a request");
    assert!(
        request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("host: web.example\r\n"), "{request}");
}

#[tokio::test]
async fn https_judges_the_certificate() {
    let ours = Certificates::new("web.example");
    let theirs = Certificates::new("web.example");
    let (port, mut server) = https(&ours, "HTTP/1.1 200 OK\r\n\r\n").await;
    let cases = [
        (ours.trusting("serverName: web.example"), Ok(())),
        ("insecureSkipVerify: true".to_owned(), Ok(())),
        (
            ours.trusting("serverName: api.example"),
            Err("not valid for name"),
        ),
        (ours.trusting(""), Err("not valid for name")),
        (
            theirs.trusting("serverName: web.example"),
            Err("invalid peer certificate: BadSignature"),
        ),
    ];
    for (https, expected) in cases {
        let spec =
            format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, https: {{{https}}}}}");
        let outcome = ask(&spec).await;
        match expected {
            Ok(()) => {
                outcome.expect("a success");
                let request = server.request.recv().await.expect("a request");
                let name = if https.contains("web.example") {
                    "web.example"
                } else {
                    "127.0.0.1"
                };
                assert!(request.contains(&format!("host: {name}")), "{request}");
            }
            Err(words) => {
                let failure = outcome.expect_err("a failure");
                assert!(matches!(failure, Failure::Tls { .. }), "{failure}");
                assert!(failure.words().contains(words), "{failure}");
            }
        }
    }
    let (port, _server) = http("HTTP/1.1 400 Bad\r\n\r\n").await;
    let check = "https: {insecureSkipVerify: true}";
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, {check}}}");
    let failure = ask(&spec).await.expect_err("no TLS");
    assert_eq!(failure.origin(), Origin::Target);
}

#[tokio::test]
async fn grpc_judges_the_health() {
    let serving = b"\0\0\0\0\x02\x08\x01";
    let cases: [(&[u8], &str, Result<(), &str>); 6] = [
        (serving, "0", Ok(())),
        (
            b"\0\0\0\0\x02\x08\x02",
            "0",
            Err("gRPC health: NOT_SERVING"),
        ),
        (b"\0\0\0\0\x00", "0", Err("gRPC health: UNKNOWN")),
        (b"", "5", Err("gRPC status 5: \"unknown service\"")),
        (
            b"",
            "0",
            Err("malformed gRPC: no uncompressed message in the answer"),
        ),
        (
            serving,
            "x",
            Err("malformed gRPC: grpc-status is no number"),
        ),
    ];
    for (message, status, expected) in cases {
        let (port, mut server) = grpc(message, status).await;
        let check = "grpc: {service: db.example}";
        let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, {check}}}");
        let outcome = ask(&spec)
            .await
            .map(drop)
            .map_err(|failure| failure.words());
        assert_eq!(outcome, expected.map_err(str::to_owned));
        let request = server.request.recv().await.expect("a request");
        let expected = r"/grpc.health.v1.Health/Check \x00\x00\x00\x00\x0c\n\ndb.example";
        assert_eq!(request, expected);
    }
    let (port, _server) = http("HTTP/1.1 400 Bad\r\n\r\n").await;
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, grpc: {{}}}}");
    let failure = ask(&spec).await.expect_err("no HTTP/2");
    assert_eq!(failure.origin(), Origin::Target, "{failure}");
}

#[tokio::test]
async fn udp_judges_the_first_answer() {
    let (port, _server) = udp(|datagram| Some(datagram.to_vec())).await;
    let cases = [
        (r"{send: 'a\x00b'}", Ok(())),
        (r"{send: 'ping', expect: 'in'}", Ok(())),
        ("{}", Ok(())),
        (
            r"{send: 'no\n', expect: 'pong'}",
            Err(r#"answered "no\n", expected "pong""#),
        ),
    ];
    for (check, expected) in cases {
        let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, udp: {check}}}");
        let outcome = ask(&spec)
            .await
            .map(drop)
            .map_err(|failure| failure.words());
        assert_eq!(outcome, expected.map_err(str::to_owned), "{check}");
    }
    let spec = |port| {
        format!(
            "{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, udp: {{send: a}}, timeoutSeconds: 1}}"
        )
    };
    let (port, _server) = udp(|_| None).await;
    let failure = ask(&spec(port)).await.expect_err("silence");
    assert_eq!(failure.words(), "timed out after 1 s waiting for a packet");
    assert_eq!(failure.origin(), Origin::Silence);
    let failure = ask(&spec(closed_port().await)).await.expect_err("nobody");
    assert_eq!(failure, Failure::Refused);
}

#[tokio::test]
async fn icmp_asks_from_inside_a_network_namespace() {
    let netns = servers::Netns::new();
    let here = netns.way();
    let spec =
        |ip: Ipv4Addr| format!("{{target: {{vpc: v, ip: {ip}}}, icmp: {{}}, timeoutSeconds: 1}}");
    ask_by(&spec(netns.own), &here).await.expect("an echo");
    ask_by(&spec(netns.own), &here.clone().device("lo"))
        .await
        .expect("an echo by lo");
    let dropped = ask_by(&spec(netns.dropped), &here)
        .await
        .expect_err("silence");
    assert_eq!(dropped.words(), "timed out after 1 s waiting for a packet");
    let unreachable = ask_by(&spec(netns.unreachable), &here)
        .await
        .expect_err("no way");
    assert_eq!(unreachable.origin(), Origin::Silence, "{unreachable}");
    let lost = ask_by(&spec(netns.no_route), &here)
        .await
        .expect_err("no route");
    assert_eq!(lost.origin(), Origin::Prober, "{lost}");
    // The same addresses are unknown out here.
    let outside = Way::default().device("lo");
    ask_by(&spec(netns.own), &outside)
        .await
        .expect_err("another network");
}

#[test]
fn specs_are_refused_in_words() {
    let cases = [
        (
            "target: {vpc: v, ip: 10.0.0.256, port: 1}",
            "spec.target.ip: 10.0.0.256: ",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1}",
            "spec.tcp.port: none: name a port there or in target.port",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 70000}",
            "spec.target.port: 70000: ",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, failureThreshold: 0",
            "spec.failureThreshold: 0: ",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, periodSeconds: 1",
            "must not exceed periodSeconds",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, http: {path: healthz}",
            "spec.http.path: healthz: ",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, http: {statuses: 300-200}",
            "spec.http.statuses: 300-200: ",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, https: {}",
            "exactly one of caBundle and insecureSkipVerify",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, https: {caBundle: x}",
            "spec.https.caBundle: no certificate in it",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, https: {caBundle: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\"}",
            "spec.https.caBundle: certificate 1: ",
        ),
        (
            r"target: {vpc: v, ip: 10.0.0.1, port: 1}, udp: {send: 'a\q'}",
            r"spec.udp.send: a\q: ",
        ),
        (
            "target: {vpc: v, ip: 10.0.0.1, port: 1}, tcp: {}, icmp: {}",
            "at most one of",
        ),
    ];
    for (spec, words) in cases {
        let refused = servers::probe(&format!("{{{spec}}}"))
            .expect_err(spec)
            .to_string();
        assert!(refused.contains(words), "{spec}: {refused}");
    }
}
