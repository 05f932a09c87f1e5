//! What the fuzz target `answer` does with its input. `crates/probe/tests/corpus.rs` does the same with the committed corpus.

use std::cell::OnceCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use ycloud_api::NetworkProbeSpec;
use ycloud_probe::round::ask;
use ycloud_probe::{Probe, Trust, Way};

/// What is asked for, by the input's first byte.
const CHECKS: [&str; 5] = [
    r#""http": {}"#,
    r#""https": {"insecureSkipVerify": true}"#,
    r#""grpc": {}"#,
    r#""udp": {"send": "a", "expect": "b"}"#,
    r#""tcp": {}"#,
];

/// A round's deadline, and some more for a busy machine.
const LIMIT: Duration = Duration::from_secs(3);

/// Longest text of a failure, bytes: it goes into a status.
const WORDS: usize = 1024;

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

/// A target that answers with any bytes ends a round before its deadline, and what is told of it is one short line. The first
/// byte says what is asked, the second how the answer is cut into writes.
pub fn answer(input: &[u8]) {
    let [check, length, answer @ ..] = input else {
        return;
    };
    let check = CHECKS[usize::from(*check) % CHECKS.len()];
    let pieces: Vec<Vec<u8>> = answer
        .chunks(usize::from(*length).max(1))
        .map(<[u8]>::to_vec)
        .collect();
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| {
            let mut builder = Builder::new_current_thread();
            builder.enable_all().build().expect("a runtime")
        });
        runtime.block_on(round(check, pieces));
    });
}

async fn round(check: &str, pieces: Vec<Vec<u8>>) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).await.expect("a port");
    let at = listener.local_addr().expect("an address");
    // Another program may have this port for UDP: then nothing is answered.
    let datagrams = UdpSocket::bind(at).await.ok();
    let whole = pieces.concat();
    let tcp = async move {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        let _ = stream.read(&mut [0; 1024]).await;
        for piece in &pieces {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
        while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
    };
    let udp = async move {
        let Some(socket) = datagrams else { return };
        if let Ok((_, from)) = socket.recv_from(&mut [0; 64]).await {
            let _ = socket.send_to(&whole, from).await;
        }
    };
    let server = tokio::spawn(async { tokio::join!(tcp, udp) });
    let spec = format!(
        r#"{{"target": {{"vpc": "v", "ip": "127.0.0.1", "port": {}}}, {check}, "timeoutSeconds": 1}}"#,
        at.port()
    );
    let spec: NetworkProbeSpec = serde_json::from_str(&spec).expect("a spec");
    let probe = Probe::new(&spec, &mut Trust::default()).expect("a probe");
    let start = Instant::now();
    let outcome = ask(&probe, &Way::default(), 0).await;
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    server.abort();
    if let Err(failure) = outcome {
        let words = failure.to_string();
        assert!(words.len() <= WORDS, "{} bytes", words.len());
        assert!(!words.contains(char::is_control), "{words:?}");
    }
}
