//! Servers on loopback for the tests: honest ones, and such as keep silent. Each ends when it is dropped.
#![allow(dead_code, reason = "each test file uses some of them")]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use nix::sched::{CloneFlags, unshare};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use ycloud_probe::probe::Invalid;
use ycloud_probe::round::Outcome;
use ycloud_probe::{Probe, Sockets, Trust, Way};

/// Some port of every address, of both families.
const ANY: &str = "[::]:0";

/// A running server.
pub struct Server {
    task: JoinHandle<()>,
    /// What it was asked.
    pub request: mpsc::UnboundedReceiver<String>,
    /// What must stay open for it.
    _held: Vec<TcpStream>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The probe of a NetworkProbe's spec in YAML.
pub fn probe(spec: &str) -> Result<Probe, Invalid> {
    let spec = serde_yaml::from_str(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
    Probe::new(&spec, &mut Trust::default())
}

/// Asks once, from here.
pub async fn ask(spec: &str) -> Outcome {
    ask_by(spec, &Way::default()).await
}

/// Asks once, by sockets of the caller's.
pub async fn ask_by(spec: &str, sockets: &dyn Sockets) -> Outcome {
    let probe = probe(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
    ycloud_probe::round::ask(&probe, sockets, rand::random()).await
}

/// A TCP server that does with each connection what `serve` says.
pub async fn serve<F>(
    serve: impl Fn(TcpStream, mpsc::UnboundedSender<String>) -> F + Send + 'static,
) -> (u16, Server)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(ANY).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (asked, request) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, asked.clone()));
        }
    });
    let server = Server {
        task,
        request,
        _held: Vec::new(),
    };
    (port, server)
}

/// Accepts, and no more.
pub async fn tcp() -> (u16, Server) {
    serve(|stream, _| async move { drop(stream) }).await
}

/// A port on which nothing listens.
pub async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A port whose queue of connections is full: SYNs are dropped.
pub async fn black_hole() -> (u16, Server) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut held = Vec::new();
    // The queue holds one more than its length.
    for _ in 0..2 {
        held.push(
            TcpStream::connect(address)
                .await
                .expect("a place in the queue"),
        );
    }
    let task = tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(listener);
    });
    let (_, request) = mpsc::unbounded_channel();
    let server = Server {
        task,
        request,
        _held: held,
    };
    (address.port(), server)
}

/// Reads a request's head, answers `answer`, and closes when the client does.
pub async fn http(answer: &str) -> (u16, Server) {
    let answer = answer.to_owned();
    serve(move |stream, asked| {
        let answer = answer.clone();
        async move { answer_http(stream, &answer, asked).await }
    })
    .await
}

/// The same within TLS.
pub async fn https(certificates: &Certificates, answer: &'static str) -> (u16, Server) {
    let acceptor = certificates.acceptor();
    serve(move |stream, asked| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer_http(stream, answer, asked).await;
            }
        }
    })
    .await
}

async fn answer_http<S>(mut stream: S, answer: &str, asked: mpsc::UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let _ = asked.send(String::from_utf8_lossy(&head).into_owned());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_u8().await;
}

/// A health service that answers `message` and `grpc-status`.
pub async fn grpc(message: &'static [u8], status: &'static str) -> (u16, Server) {
    serve(move |stream, asked| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let path = request.uri().path().to_owned();
                let mut body = Vec::new();
                let mut stream = request.into_body();
                while let Some(Ok(data)) = stream.data().await {
                    body.extend_from_slice(&data);
                }
                let _ = asked.send(format!("{path} {}", body.escape_ascii()));
                let head = http::Response::builder().header("content-type", "application/grpc");
                let head = head.body(()).expect("a head");
                let Ok(mut send) = respond.send_response(head, false) else {
                    return;
                };
                let _ = send.send_data(Bytes::from_static(message), false);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static(status));
                let words = http::HeaderValue::from_static("unknown service");
                trailers.insert("grpc-message", words);
                let _ = send.send_trailers(trailers);
            });
        }
    })
    .await
}

/// Answers each datagram with what `answer` makes of it.
pub async fn udp(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> (u16, Server) {
    let socket = UdpSocket::bind(ANY).await.expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let task = tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            if let Some(answer) = answer(&datagram[..length]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    let (_, request) = mpsc::unbounded_channel();
    let server = Server {
        task,
        request,
        _held: Vec::new(),
    };
    (port, server)
}

/// A CA, and the certificate of a server that it signed.
pub struct Certificates {
    authority: String,
    config: Arc<rustls::ServerConfig>,
}

impl Certificates {
    /// A server's certificate for `name`.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a CA");
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&own, &issuer).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a configuration");
        Self {
            authority: authority.pem(),
            config: Arc::new(config),
        }
    }

    /// The fields of an `https` check that trusts the CA, and `more`.
    pub fn trusting(&self, more: &str) -> String {
        let bundle = self.authority.replace("\r\n", "\n").replace('\n', "\\n");
        let more = if more.is_empty() {
            String::new()
        } else {
            format!(", {more}")
        };
        format!("caBundle: \"{bundle}\"{more}")
    }

    /// Of a server.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

/// A network namespace of its own, gone when it is dropped.
pub struct Netns {
    path: String,
    _stay: std::sync::mpsc::Sender<()>,
    /// An address of its own.
    pub own: Ipv4Addr,
    /// Packets to it leave by a link whose other end has no such address.
    pub dropped: Ipv4Addr,
    /// Its route says that it cannot be reached.
    pub unreachable: Ipv4Addr,
    /// It has no route.
    pub no_route: Ipv4Addr,
}

impl Netns {
    /// A new one. Needs root.
    pub fn new() -> Self {
        let (stay, stayed) = std::sync::mpsc::channel::<()>();
        let (made, path) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            for command in [
                "link set lo up",
                "addr add 10.9.0.1/32 dev lo",
                "link add name va type veth peer name vb",
                "link set va up",
                "link set vb up",
                "addr add 10.9.1.1/24 dev va",
                "neigh add 10.9.1.2 lladdr 0a:00:00:00:00:02 dev va",
                "route add unreachable 10.9.2.1/32",
                "addr add fd00:9::1/128 dev lo nodad",
                "addr add fd00:9:1::1/64 dev va nodad",
                "neigh add fd00:9:1::2 lladdr 0a:00:00:00:00:02 dev va",
                "route add prohibit fd00:9:2::1/128",
            ] {
                let run = Command::new("ip").args(command.split(' ')).status();
                assert!(run.expect("ip(8)").success(), "ip {command}");
            }
            let thread = nix::unistd::gettid();
            let path = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
            made.send(path).expect("somebody waits");
            let _ = stayed.recv();
        });
        Self {
            path: path.recv().expect("a network namespace"),
            _stay: stay,
            own: Ipv4Addr::new(10, 9, 0, 1),
            dropped: Ipv4Addr::new(10, 9, 1, 2),
            unreachable: Ipv4Addr::new(10, 9, 2, 1),
            no_route: Ipv4Addr::new(10, 9, 3, 1),
        }
    }

    /// Sockets in it.
    pub fn way(&self) -> Way {
        Way::default()
            .netns(self.path.as_ref())
            .expect("it is there")
    }
}
