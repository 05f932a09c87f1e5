//! The socket: one request per connection, each in a task of its own.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use ycloud_client::supervisor::reported;

use super::Agent;
use super::metrics::Labels;
use crate::protocol::{self, Failure, Request, Response, code};

/// How long a plugin may take to send its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long requests under way may take to end once the agent is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(25);

/// Binds the socket, for root only. A file left by an earlier agent is replaced.
///
/// # Errors
/// The folder cannot be made, or the socket not be bound.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Bound aside and moved into place: there is always a socket, and never one that others may write to.
    let aside = path.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&aside)?;
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&aside, path)?;
    Ok(listener)
}

/// Serves until `stop`, then lets what is under way end.
pub async fn serve(agent: Arc<Agent>, listener: UnixListener, stop: CancellationToken) {
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(agent.clone(), stream);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a panic is reported, and the runtime repeats the request"
                )]
                requests.spawn(async move { reported("a plugin's request", connection).await });
            }
            Err(error) => {
                // Out of descriptors, most likely: give others time to end.
                tracing::warn!(%error, "failed to accept a plugin's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    requests.close();
    if !requests.is_empty() {
        tracing::info!(requests = requests.len(), "waiting for requests under way");
    }
    if tokio::time::timeout(STOP_LIMIT, requests.wait())
        .await
        .is_err()
    {
        tracing::warn!("stopping with requests under way; the runtime will repeat them");
    }
}

async fn connection(agent: Arc<Agent>, mut stream: UnixStream) {
    let request = match tokio::time::timeout(REQUEST_LIMIT, read(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection without a request");
            return;
        }
        Err(_) => return,
    };
    let response = respond(&agent, &request).await;
    let Ok(frame) = protocol::encode(&response) else {
        return;
    };
    // A plugin that gave up meanwhile: the runtime repeats or undoes the request.
    if let Err(error) = stream.write_all(&frame).await {
        tracing::debug!(%error, "a plugin that did not wait for its answer");
    }
}

async fn read(stream: &mut UnixStream) -> io::Result<Request> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; protocol::length(head)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn respond(agent: &Agent, request: &Request) -> Response {
    let start = Instant::now();
    let (command, result) = handle(agent, request).await;
    let elapsed = start.elapsed();
    let outcome = match &result {
        Ok(_) => "success",
        Err(_) => "failure",
    };
    agent
        .chassis
        .metrics
        .requests
        .get_or_create(&Labels { command, outcome })
        .observe(elapsed.as_secs_f64());
    report(request, command, &result, elapsed);
    result.unwrap_or_else(Response::Failed)
}

async fn handle(agent: &Agent, request: &Request) -> (&'static str, Result<Response, Failure>) {
    match request {
        Request::Add {
            id,
            netns,
            pod,
            host_ports,
        } => {
            let wired = super::add::add(agent, id, netns, pod, host_ports).await;
            ("ADD", wired.map(Response::Wired).map_err(Failure::from))
        }
        Request::Del { id } => ("DEL", done(super::del::del(agent, id).await)),
        Request::Check {
            id,
            netns,
            addresses,
        } => {
            let checked = super::check::check(agent, id, netns, addresses).await;
            ("CHECK", done(checked))
        }
        Request::Gc { valid } => ("GC", done(super::gc::gc(agent, valid).await)),
        Request::Status => ("STATUS", status(agent)),
    }
}

fn done<E: Into<Failure>>(result: Result<(), E>) -> Result<Response, Failure> {
    result.map(|()| Response::Done).map_err(E::into)
}

fn status(agent: &Agent) -> Result<Response, Failure> {
    let missing = agent.missing();
    if missing.is_empty() {
        return Ok(Response::Done);
    }
    Err(Failure {
        code: code::UNAVAILABLE,
        msg: "failed to be ready".into(),
        details: format!("waiting for {}", missing.join(", ")),
    })
}

fn report(request: &Request, command: &str, result: &Result<Response, Failure>, elapsed: Duration) {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let (container, pod) = match request {
        Request::Add { id, pod, .. } => (
            id.container.as_str(),
            format!("{}/{}", pod.namespace, pod.name),
        ),
        Request::Del { id } | Request::Check { id, .. } => (id.container.as_str(), String::new()),
        Request::Gc { .. } | Request::Status => ("", String::new()),
    };
    match result {
        Ok(Response::Wired(wiring)) => {
            let ips: Vec<String> = wiring.addresses.ips().map(|ip| ip.to_string()).collect();
            let (ip, link) = (ips.join(","), wiring.host_interface.as_str());
            tracing::info!(container, pod, ip, link, milliseconds, "wired");
        }
        // Asked every few seconds.
        Ok(_) if command == "STATUS" => tracing::debug!(command, milliseconds, "done"),
        Ok(_) => tracing::info!(command, container, milliseconds, "done"),
        Err(failure) => {
            let error = failure.to_string();
            tracing::warn!(command, container, pod, error, milliseconds, "failed");
        }
    }
}
