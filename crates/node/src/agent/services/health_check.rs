//! `healthCheckNodePort`: tells load balancers in front of the nodes whether this node has endpoints of a Service whose
//! `externalTrafficPolicy` is Local. In the form in which kube-proxy answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use ycloud_client::supervisor::reported;

use crate::agent::objects::Key;

/// The ports that are served. All end with this.
#[derive(Debug, Default)]
pub struct HealthChecks {
    servers: BTreeMap<Key, Server>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    endpoints: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthChecks {
    /// Serves these and no others: Service → port, and number of endpoints on this node. A port that could not be had is
    /// tried again.
    pub fn set(&mut self, wanted: BTreeMap<Key, (u16, usize)>) {
        self.servers.retain(|key, server| {
            let same = wanted
                .get(key)
                .is_some_and(|(port, _)| *port == server.port);
            same && !server.task.is_finished()
        });
        for (key, (port, endpoints)) in wanted {
            match self.servers.get(&key) {
                Some(server) => {
                    server.endpoints.send_replace(endpoints);
                }
                None => {
                    let (sender, receiver) = watch::channel(endpoints);
                    let name = format!("health check of Service {}/{}", key.0, key.1);
                    let serve = serve(key.clone(), port, receiver);
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "one that has ended is started again by the next call"
                    )]
                    let task = tokio::spawn(async move {
                        reported(&name, serve).await;
                    });
                    let server = Server {
                        port,
                        endpoints: sender,
                        task,
                    };
                    self.servers.insert(key, server);
                }
            }
        }
    }
}

async fn serve(key: Key, port: u16, endpoints: watch::Receiver<usize>) {
    let (namespace, name) = key.clone();
    let answer = move || {
        let answer = answer(&key, *endpoints.borrow());
        async { answer }
    };
    let router = Router::new().fallback(get(answer));
    let served = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => axum::serve(listener, router).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%error, port, "failed to serve the health check of Service {namespace}/{name}; trying again");
    }
}

fn answer((namespace, name): &Key, endpoints: usize) -> Response {
    let status = match endpoints {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let body = json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": true,
    });
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            header::HeaderName::from_static("x-load-balancing-endpoint-weight"),
            endpoints.to_string(),
        ),
    ];
    (status, headers, Json(body)).into_response()
}
