//! `/healthz`, `/readyz` and `/metrics` over plain HTTP.
//!
//! Meant for the kubelet's probes and a metrics collector on the same node; bind it to a loopback address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use ycloud_client::Supervisor;
use ycloud_client::supervisor::is_verbose;

/// What the process waits for before it can do its work. Cheap to clone; all clones are one.
///
/// Not ready until every name given to [`Readiness::expect`] was told [`Readiness::reached`].
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Readiness {
    /// Adds something to wait for, in words that fit after "waiting for".
    pub fn expect(&self, part: &'static str) {
        self.lock().entry(part).or_insert(false);
    }

    /// `part` is there.
    pub fn reached(&self, part: &'static str) {
        self.lock().insert(part, true);
    }

    /// `part` is there no more.
    pub fn lost(&self, part: &'static str) {
        self.lock().insert(part, false);
    }

    /// What is still waited for, sorted; empty once ready.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock()
            .iter()
            .filter(|(_, reached)| !**reached)
            .map(|(part, _)| *part)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `/readyz` is made of.
#[derive(Debug, Clone)]
pub struct Checks {
    /// What the process waits for.
    pub readiness: Readiness,
    /// Who watches its tasks.
    pub supervisor: Supervisor,
}

/// Serves until `stop` is cancelled.
///
/// * `/healthz`: 200 as long as the process runs its tasks.
/// * `/readyz`: 200 once everything in `readiness` is reached and while each task is well, else 503 with what is not. `?verbose`: a
///   line a task.
/// * `/metrics`: OpenMetrics text.
///
/// # Errors
/// When `listen` cannot be bound or the listener fails.
pub async fn serve(
    listen: SocketAddr,
    checks: Checks,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    serve_on(listener, checks, registry, stop).await
}

async fn serve_on(
    listener: TcpListener,
    checks: Checks,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move |RawQuery(query)| async move { ready(&checks, is_verbose(query.as_deref())) }),
        )
        .route("/metrics", get(move || async move { metrics(&registry) }));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn ready(checks: &Checks, verbose: bool) -> Response {
    let missing = checks.readiness.missing();
    let supervisor = &checks.supervisor;
    match supervisor.readiness(&missing, verbose, Instant::now()) {
        Ok(text) => text.into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn not_ready_says_for_what_it_waits_and_stops_when_told() {
        let readiness = Readiness::default();
        readiness.expect("the list of Pods");
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(Registry::default());
        let checks = Checks {
            readiness: readiness.clone(),
            supervisor: Supervisor::new(stop.clone()),
        };
        let hangs = checks.supervisor.heartbeat("reconciler", Duration::ZERO);
        let server = tokio::spawn(serve_on(listener, checks, registry, stop.clone()));
        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("waiting for the list of Pods"), "{answer}");
        readiness.reached("the list of Pods");
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let pass = hangs.pass();
        let answer = fetch(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("task \"reconciler\""), "{answer}");
        drop(pass);
        let answer = fetch(address, "/readyz?verbose").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("[+]reconciler ok: waits"), "{answer}");
        assert!(fetch(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(address, "/metrics").await.contains("# EOF"));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
