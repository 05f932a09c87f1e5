//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, for the kubelet and for a collector on the node.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whose health is told.
pub trait Observed: Send + Sync + 'static {
    /// What is not ready, in words; empty once all is.
    fn not_ready(&self) -> Vec<&'static str>;

    /// Sets the gauges to what is now.
    fn observe(&self);
}

/// Serves until `stop`.
///
/// * `/healthz`: 200 as long as the process runs its tasks.
/// * `/readyz`: 200 once nothing is missing, the flows of session affinity included, else 503 with what is missing. A node
///   without those flows keeps its network, so CNI's STATUS does not count them; a roll-out stops.
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
        .route("/readyz", get(move || async move { ready(&*agent) }))
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

fn ready(agent: &impl Observed) -> Response {
    let missing = agent.not_ready();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("waiting for {}\n", missing.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
