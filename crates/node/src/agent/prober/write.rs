//! Writes statuses of NetworkProbes to the API server.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::timeout;
use ycloud_api::NetworkProbe;

use super::records::{Refusal, Write};

/// How long the API server may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Carries out a write; returns the object's new resource version.
pub type Writer = Arc<dyn Fn(Write) -> BoxFuture<'static, Result<String, Refusal>> + Send + Sync>;

/// By the API server.
pub fn writer(client: Client) -> Writer {
    Arc::new(move |write| Box::pin(patch(client.clone(), write)))
}

async fn patch(client: Client, write: Write) -> Result<String, Refusal> {
    let api: Api<NetworkProbe> = Api::namespaced(client, &write.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Merge(&write.patch));
    match timeout(LIMIT, api.patch_status(&write.name, &params, &patch)).await {
        Ok(Ok(object)) => Ok(object.resource_version().unwrap_or_default()),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Refusal::Conflict),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Refusal::Gone),
        Ok(Err(error)) => Err(Refusal::Failed(crate::agent::in_full(&error))),
        Err(_) => Err(Refusal::Failed(format!("no answer within {LIMIT:?}"))),
    }
}
