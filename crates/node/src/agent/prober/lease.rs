//! The Lease by which ycloud-controller knows that this node's prober works. It is renewed while that is so, and left to
//! end when it is not: not on a stop, as an agent that is restarted is back before that.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use ycloud_api::key::{PROBER, PROBER_LEASE_SECONDS, PROBER_NAMESPACE, prober_lease};
use ycloud_client::Heartbeat;

use super::Progress;

/// How often it is renewed: a third of what it lasts.
const PERIOD: Duration = Duration::from_secs(10);

/// How long the API server may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The label's value.
const COMPONENT: &str = "ycloud-cni";

/// Keeps the Lease of `node` while it is able to ask; ends with who tells that. A pass is a renewal.
pub async fn keep(
    client: Client,
    node: String,
    mut progress: watch::Receiver<Progress>,
    heartbeat: Heartbeat,
) {
    let api: Api<Lease> = Api::namespaced(client, PROBER_NAMESPACE);
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        if progress.wait_for(|progress| progress.able).await.is_err() {
            return;
        }
        period.tick().await;
        if !progress.borrow().able {
            continue;
        }
        let _pass = heartbeat.pass();
        let error = match timeout(LIMIT, renew(&api, &node)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(crate::agent::in_full(&error)),
            Err(_) => Some(format!("no answer within {LIMIT:?}")),
        };
        let before = std::mem::replace(&mut failed, error.is_some());
        match error {
            Some(error) if !before => {
                tracing::warn!(error, "failed to renew the prober's Lease; trying again");
            }
            None if before => tracing::info!("the prober's Lease is renewed again"),
            _ => {}
        }
    }
}

async fn renew(api: &Api<Lease>, node: &str) -> Result<(), kube::Error> {
    let name = prober_lease(node);
    let now = MicroTime(Timestamp::now());
    let patch = json!({
        "metadata": {"labels": {PROBER: COMPONENT}},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": PROBER_LEASE_SECONDS,
            "renewTime": now,
        },
    });
    let patched = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        patched => return patched.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some([(PROBER.to_owned(), COMPONENT.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(PROBER_LEASE_SECONDS),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
