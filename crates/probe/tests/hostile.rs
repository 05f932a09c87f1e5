//! Targets that mean harm: each round ends in time, with a failure, and costs little memory.

mod servers;

use std::time::{Duration, Instant};

use proptest::prelude::*;
use servers::{Certificates, Server, ask, serve, udp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ycloud_probe::Origin;

/// What a hostile server writes: once, and then again and again.
#[derive(Debug, Clone, Copy)]
struct Malice {
    name: &'static str,
    head: &'static [u8],
    again: &'static [u8],
    pause: Duration,
}

const fn malice(name: &'static str, head: &'static [u8], again: &'static [u8]) -> Malice {
    Malice {
        name,
        head,
        again,
        pause: Duration::ZERO,
    }
}

const fn slow(name: &'static str, head: &'static [u8], again: &'static [u8]) -> Malice {
    Malice {
        pause: Duration::from_millis(20),
        ..malice(name, head, again)
    }
}

/// An empty SETTINGS frame: what an HTTP/2 server begins with.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

const MALICE: [Malice; 17] = [
    malice("silence", b"", b""),
    malice("endless letters", b"", &[b'a'; 4096]),
    malice("endless zeros", b"", &[0; 4096]),
    malice("endless line ends", b"", b"\r\n\r\n\r\n\r\n"),
    slow("a drip", b"", b"a"),
    slow("a drip of headers", b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    malice("endless headers", b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    malice(
        "an endless header",
        b"HTTP/1.1 200 OK\r\na: ",
        &[b'b'; 4096],
    ),
    malice(
        "endless early answers",
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ),
    malice("an endless reason", b"HTTP/1.1 200 ", &[b'O'; 4096]),
    malice(
        "a TLS record that never ends",
        b"\x16\x03\x03\x40\x00",
        &[2; 4096],
    ),
    malice("endless TLS alerts", b"", b"\x15\x03\x03\x00\x02\x01\x00"),
    malice("endless settings", SETTINGS, SETTINGS),
    malice("endless pings", SETTINGS, b"\0\0\x08\x06\0\0\0\0\0abcdefgh"),
    malice(
        "endless continuations",
        b"\0\0\0\x04\0\0\0\0\0\0\0\0\x01\0\0\0\0\x01",
        b"\0\0\x04\x09\0\0\0\0\x01\0\x01a\0",
    ),
    malice("endless data", SETTINGS, b"\0\0\x04\0\0\0\0\0\x01abcd"),
    slow(
        "a drip of pings",
        SETTINGS,
        b"\0\0\x08\x06\0\0\0\0\0abcdefgh",
    ),
];

const CHECKS: [&str; 3] = ["http: {}", "https: {insecureSkipVerify: true}", "grpc: {}"];

async fn write<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, malice: Malice) {
    // The beginning of the request, so that HTTP/1 knows what is answered.
    let _ = stream.read(&mut [0; 1024]).await;
    let mut sent = stream.write_all(malice.head).await;
    while sent.is_ok() && !malice.again.is_empty() {
        tokio::time::sleep(malice.pause).await;
        sent = stream.write_all(malice.again).await;
    }
    let _ = stream.read(&mut [0; 1024]).await;
    let _ = tokio::time::sleep(Duration::from_secs(10)).await;
}

async fn hostile(malice: Malice) -> (u16, Server) {
    serve(move |stream, _| write(stream, malice)).await
}

async fn fails_in_time(port: u16, check: &str, name: &str) {
    let spec =
        format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, {check}, timeoutSeconds: 1}}");
    let start = Instant::now();
    let failure = ask(&spec).await.expect_err(name);
    let took = start.elapsed();
    assert!(
        took < Duration::from_millis(1_800),
        "{name}, {check}: {took:?}"
    );
    assert_eq!(
        failure.origin(),
        Origin::Target,
        "{name}, {check}: {failure}"
    );
    let words = failure.words();
    assert!(words.chars().count() <= 512, "{name}, {check}: {words}");
    assert!(
        !words.contains(|c: char| c.is_control()),
        "{name}, {check}: {words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_malice_holds_a_round() {
    let mut rounds = tokio::task::JoinSet::new();
    for malice in MALICE {
        for check in CHECKS {
            let (port, server) = hostile(malice).await;
            rounds.spawn(async move {
                fails_in_time(port, check, malice.name).await;
                drop(server);
            });
        }
    }
    while let Some(done) = rounds.join_next().await {
        done.expect("a failure in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_malice_within_tls_holds_a_round() {
    let certificates = Certificates::new("web.example");
    for malice in MALICE {
        let acceptor = certificates.acceptor();
        let (port, _server) = serve(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    write(stream, malice).await;
                }
            }
        })
        .await;
        fails_in_time(port, CHECKS[1], malice.name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enormous_body_is_not_read() {
    let body = malice(
        "",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        &[b'a'; 4096],
    );
    let (port, _server) = hostile(body).await;
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, http: {{}}}}");
    ask(&spec).await.expect("a success");
}

#[tokio::test]
async fn an_enormous_datagram_is_cut() {
    let (port, _server) = udp(|_| Some(vec![b'a'; 60_000])).await;
    let check = "udp: {send: a, expect: b}";
    let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, {check}}}");
    let failure = ask(&spec).await.expect_err("no b");
    assert!(failure.words().len() < 512, "{failure}");
}

/// Resident memory of this process, in bytes. proc(5), `statm`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages = statm.split(' ').nth(1).expect("resident");
    pages.parse::<usize>().expect("a number") * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_endless_answers_cost_little_memory() {
    let drip = slow(
        "",
        b"HTTP/1.1 200 OK\r\n",
        b"a: bcdefghijklmnopqrstuvwxyz\r\n",
    );
    let (port, _server) = hostile(drip).await;
    let before = resident();
    let mut rounds = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        rounds.spawn(async move {
            let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, http: {{}}}}");
            ask(&spec).await
        });
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let grown = resident().saturating_sub(before);
    while let Some(done) = rounds.join_next().await {
        done.expect("no panic").expect_err("a failure");
    }
    // Both ends of the connections are in this process.
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_answer_is_too_strange(
        answer in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|tail| [b"HTTP/1.1 200 ", &tail[..]].concat()),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|tail| [SETTINGS, &tail[..]].concat()),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|tail| [b"\x16\x03\x03\x00\x30\x02", &tail[..]].concat()),
        ],
        check in 0..CHECKS.len(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (port, _server) = serve(move |mut stream, _| {
                let answer = answer.clone();
                async move {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
                }
            })
            .await;
            let check = CHECKS[check];
            let spec = format!("{{target: {{vpc: v, ip: 127.0.0.1, port: {port}}}, {check}, timeoutSeconds: 1}}");
            let start = Instant::now();
            // HTTP may be lucky; the others cannot be.
            let outcome = ask(&spec).await;
            assert!(outcome.is_err() || check.starts_with("http:"));
            assert!(start.elapsed() < Duration::from_millis(1_500));
        });
    }
}
