//! What probing costs: `cargo bench -p ycloud-probe` prints figures; nothing is asserted on them.
//!
//! * the processor's share of 2,000 TCP probes a second (10,000 targets, every 5 s) on loopback, of the prober's thread
//!   alone: the servers' side of a connection is made in the same system calls and counts here too;
//! * resident memory of those 10,000 targets, well and in a black hole;
//! * the same number of HTTP probes.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use ycloud_api::NetworkProbeSpec;
use ycloud_api::network_probe::ProbeTarget;
use ycloud_api::probe::{HealthCheck, HttpCheck};
use ycloud_probe::{Options, Probe, Prober, Role, Target, Trust, Way};

const TARGETS: u16 = 10_000;
const MEASURED: Duration = Duration::from_secs(15);
const SERVER: &str = "YCLOUD_BENCH_SERVER";

fn main() {
    if std::env::var_os(SERVER).is_some() {
        return serve();
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("descriptors");
    let mut server = Command::new(std::env::current_exe().expect("this file"))
        .env(SERVER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut line = String::new();
    let output = server.stdout.take().expect("its output");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("a port");
    let port: i32 = line.trim().parse().expect("a port");
    let http = Some(HttpCheck::default());
    let none = HealthCheck::default();
    measure("tcp", port, &none);
    measure(
        "http",
        port,
        &HealthCheck {
            http,
            ..none.clone()
        },
    );
    let full = black_hole();
    let port = full.0.local_addr().expect("an address").port();
    measure("tcp into a black hole", port.into(), &none);
    server.kill().expect("the server");
    server.wait().expect("the server");
}

/// In a process of its own: accepts, answers what is asked, closes.
fn serve() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
        if stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

/// A listener whose queue is full.
fn black_hole() -> (TcpListener, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let address: std::net::SocketAddr = ([0, 0, 0, 0], 0).into();
    socket.bind(&address.into()).expect("a port");
    socket.listen(1).expect("a listener");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    let connect = || std::net::TcpStream::connect(("127.0.0.1", address.port())).expect("a place");
    let held = vec![connect(), connect()];
    (listener, held)
}

/// One prober on a thread of its own, for a while.
fn measure(name: &str, port: i32, check: &HealthCheck) {
    let before = resident();
    let (prober, handle, mut reports) = Prober::new(Options::default());
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            tokio::spawn(async move { while reports.recv().await.is_some() {} });
            let running = tokio::spawn(prober.run());
            // The first period has everybody's first round, and their spreading out.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let start = (Instant::now(), processor());
            tokio::time::sleep(MEASURED).await;
            let share = (processor() - start.1).as_secs_f64() / start.0.elapsed().as_secs_f64();
            send.send(share).expect("somebody waits");
            running.await.expect("it ends");
        });
    });
    let mut trust = Trust::default();
    for n in 0..TARGETS {
        handle.set(
            format!("namespace/probe-{n}"),
            target(n, port, check, &mut trust),
            None,
        );
    }
    std::thread::sleep(Duration::from_secs(10));
    let first = handle.figures();
    let share = receive.recv().expect("a share");
    let figures = handle.figures();
    let grown = resident().saturating_sub(before);
    let rounds = (figures.succeeded + figures.failed) - (first.succeeded + first.failed);
    let rate = rounds as f64 / MEASURED.as_secs_f64();
    println!(
        "{name}: {rate:.0} rounds/s ({} failed, {} late, {} at once), {:.1} % of a core, {:.1} MiB for {TARGETS} targets",
        figures.failed,
        figures.late,
        figures.running,
        share * 100.0,
        grown as f64 / f64::from(1 << 20),
    );
    drop(handle);
    thread.join().expect("the prober");
}

fn target(n: u16, port: i32, check: &HealthCheck, trust: &mut Trust) -> Target {
    // Every target has its own address, as on a node.
    let [high, low] = n.to_be_bytes();
    let spec = NetworkProbeSpec {
        target: ProbeTarget {
            vpc: "vpc1".into(),
            ip: format!("127.1.{high}.{low}"),
            port: Some(port),
            ..ProbeTarget::default()
        },
        check: check.clone(),
    };
    Target {
        probe: Probe::new(&spec, trust).expect("a probe"),
        group: "vpc1".into(),
        role: Role::Backend,
        far: false,
        sockets: Arc::new(Way::default()),
        generation: 1,
    }
}

/// Processor time of the calling thread, user and system.
fn processor() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("usage");
    let total = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(total.num_microseconds()).expect("time"))
}

/// Resident memory of this process, in bytes. proc(5), `statm`.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages = statm.split(' ').nth(1).expect("resident");
    pages.parse::<usize>().expect("a number") * 4096
}
