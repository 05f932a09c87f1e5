//! An API server that falls silent without a word: the network between is cut, in a network namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::future::Future;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::AsyncBufReadExt;
use kube::Config;
use kube::client::{Body, Client};
use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use ycloud_client::{HANDSHAKES, PATIENCE, connect};

/// How long a test waits; kube's own client waits for as long as it is let.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs `work` in a thread that has a network namespace of its own, with a loopback device.
fn alone<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    // Fails only if another test did it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(work());
    });
    thread.join().unwrap();
}

fn run(words: &str) {
    let mut words = words.split(' ');
    let program = words.next().unwrap();
    assert!(
        Command::new(program)
            .args(words)
            .status()
            .unwrap()
            .success()
    );
}

/// What arrives is dropped without a word, whoever sent it.
fn cut() {
    run("nft add table inet cut");
    run("nft add chain inet cut in { type filter hook input priority 0 ; policy drop ; }");
}

fn join() {
    run("nft delete table inet cut");
}

/// A server that answers GET with the first line of a watch, and no more, and all else at once; how many connections it had.
async fn server() -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    let client = connect(Config::new(url.parse().unwrap())).unwrap();
    (client, connections)
}

async fn serve(mut stream: TcpStream) {
    let mut request = [0; 4096];
    while stream.read(&mut request).await.is_ok_and(|count| count > 0) {
        let answer = match request.starts_with(b"GET") {
            true => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst\n\r\n",
            false => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// The lines of an answer that has begun.
async fn watch(client: &Client) -> kube::Result<impl futures::AsyncBufRead + Unpin + use<>> {
    let request = http::Request::get("/").body(Vec::new()).unwrap();
    client.request_stream(request).await.map(Box::pin)
}

#[test]
fn a_watch_of_which_nothing_comes_ends_once_the_server_is_away() {
    alone(|| async {
        let (client, connections) = server().await;
        let mut lines = watch(&client).await.unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        assert_eq!(line, "first\n");
        // Silence by itself is no fault.
        let more = timeout(PATIENCE * 2, lines.read_line(&mut line)).await;
        assert!(more.is_err(), "the watch ended: {more:?}");

        cut();
        let more = timeout(LIMIT, lines.read_line(&mut line)).await;
        more.expect("nobody noticed")
            .expect_err("the server is away");
        join();
        let mut lines = watch(&client).await.unwrap();
        line.clear();
        lines.read_line(&mut line).await.unwrap();
        assert_eq!(line, "first\n");
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_request_on_a_connection_that_was_kept_fails_once_the_server_is_away() {
    alone(|| async {
        let (client, connections) = server().await;
        let post = || {
            let request = http::Request::post("/").body(Body::from(b"{}".to_vec()));
            timeout(LIMIT, client.send(request.unwrap()))
        };
        for _ in 0..2 {
            post().await.unwrap().unwrap();
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
        cut();
        let answer = post().await;
        answer
            .expect("nobody noticed")
            .expect_err("the server is away");
        join();
        post().await.unwrap().unwrap();
    });
}

#[test]
fn a_server_that_takes_connections_and_is_stuck_is_given_up() {
    alone(|| async {
        // The kernel takes it; nobody will ever greet.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let client = connect(Config::new(url.parse().unwrap())).unwrap();
        let answer = timeout(HANDSHAKES * 2, client.apiserver_version()).await;
        answer
            .expect("nobody noticed")
            .expect_err("the server is stuck");
    });
}
