//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, for the kubelet and for a collector on the node.

use std::net::SocketAddr;
use std::sync::Arc;
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

/// Whose health is told.
pub trait Observed: Send + Sync + 'static {
    /// Who watches its tasks.
    fn supervisor(&self) -> &Supervisor;

    /// What is not ready, in words; empty once all is.
    fn not_ready(&self) -> Vec<&'static str>;

    /// Sets the gauges to what is now.
    fn observe(&self);
}

/// Serves until `stop`.
///
/// * `/healthz`: 200 as long as the process runs its tasks.
/// * `/readyz`: 200 once nothing is missing, the flows of session affinity included, and while each task is well; else 503 with what
///   is not. A node without those flows keeps its network, so CNI's STATUS does not count them; a roll-out stops. `?verbose`: a line a
///   task.
/// * `/metrics`: OpenMetrics text.
///
/// # Errors
/// `listen` cannot be bound, or the listener fails.
pub async fn serve(
    listen: SocketAddr,
    agent: Arc<impl Observed>,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let observed = agent.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move |RawQuery(query)| async move { ready(&*agent, is_verbose(query.as_deref())) }),
        )
        .route(
            "/metrics",
            get(move || async move {
                observed.observe();
                metrics(&registry)
            }),
        );
    let listener = TcpListener::bind(listen).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn ready(agent: &impl Observed, verbose: bool) -> Response {
    let missing = agent.not_ready();
    let supervisor = agent.supervisor();
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
