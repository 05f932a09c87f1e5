//! Writes NetworkProbes: objects that several YusurServices of a namespace may want, and that go with the last one.
//!
//! # Guarantees
//! * Owner references are changed under the resource version that they were read at: of two jobs that change those of one
//!   NetworkProbe at the same time one tries again, and none takes the other's away.
//! * A NetworkProbe is deleted only as it was read: one that somebody wants meanwhile stays.

use std::future::Future;

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use ycloud_api::NetworkProbe;

use super::execute::{Error, NAME, limited};
use super::plan::Plan;

/// How many NetworkProbes of one YusurService are written at the same time.
const AT_ONCE: usize = 8;

/// How often a change is tried that somebody else's comes between.
const TRIES: usize = 10;

const KIND: &str = "NetworkProbe";

/// NetworkProbes of one YusurService to write.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Those to make, or to become an owner of.
    pub wanted: Vec<NetworkProbe>,
    /// Names of those to be no owner of any more.
    pub surplus: Vec<String>,
}

impl Order {
    /// Takes it out of a plan.
    pub fn of(plan: &mut Plan) -> Self {
        Self {
            namespace: plan.ysvc.namespace().unwrap_or_default(),
            uid: plan.ysvc.uid().unwrap_or_default(),
            wanted: std::mem::take(&mut plan.wanted_probes),
            surplus: std::mem::take(&mut plan.surplus_probes),
        }
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.surplus.is_empty()
    }
}

/// Makes those that are wanted, and leaves those that are not; how many objects were written.
///
/// # Errors
/// The first request that failed. One that the API server refuses keeps none of the others from being written; after
/// another failure the rest was left out. Try again.
pub async fn write(client: &Client, order: &Order) -> Result<u64, Error> {
    let api: &Api<NetworkProbe> = &Api::namespaced(client.clone(), &order.namespace);
    let joins: Vec<_> = order.wanted.iter().map(|probe| join(api, probe)).collect();
    let names = order.surplus.iter();
    let leaves: Vec<_> = names.map(|name| leave(api, name, &order.uid)).collect();
    let (joined, refused) = at_once(joins).await?;
    // A quota that is used up has room again once these are gone.
    let (left, other) = at_once(leaves).await?;
    match refused.or(other) {
        Some(error) => Err(error),
        None => Ok(joined + left),
    }
}

/// How many objects were written, and the first refusal.
async fn at_once(
    writes: Vec<impl Future<Output = Result<u64, Error>>>,
) -> Result<(u64, Option<Error>), Error> {
    let mut results = stream::iter(writes).buffer_unordered(AT_ONCE);
    let (mut written, mut refused) = (0, None);
    while let Some(result) = results.next().await {
        match result {
            Ok(n) => written += n,
            Err(error) if error.refusal().is_some() => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Ok((written, refused))
}

/// Makes `probe`, or adds its owner to the one that exists.
async fn join(api: &Api<NetworkProbe>, probe: &NetworkProbe) -> Result<u64, Error> {
    let name = probe.name_any();
    let params = PostParams {
        field_manager: Some(NAME.to_owned()),
        ..PostParams::default()
    };
    let mut tries = TRIES;
    loop {
        let made = limited("create", KIND, &name, api.create(&params, probe)).await;
        let conflict = match made {
            Ok(_) => return Ok(1),
            Err(error) if error.has_code(409) => error,
            Err(error) => return Err(error),
        };
        tries -= 1;
        if tries == 0 {
            return Err(conflict);
        }
        let Some(present) = limited("read", KIND, &name, api.get_opt(&name)).await? else {
            continue;
        };
        if present.spec != probe.spec {
            // Somebody edited it: its name says what its spec is.
            gone(delete(api, &present).await)?;
            continue;
        }
        let (mut owners, wanted) = (owners(&present), owners(probe));
        let held = |owner: &OwnerReference| owners.iter().any(|known| known.uid == owner.uid);
        if wanted.iter().all(held) {
            return Ok(0);
        }
        owners.extend(wanted);
        if gone(set_owners(api, &present, &owners).await)? {
            return Ok(1);
        }
    }
}

/// Takes the owner with `uid` away; the object too, if it was the last one.
async fn leave(api: &Api<NetworkProbe>, name: &str, uid: &str) -> Result<u64, Error> {
    for _ in 0..TRIES {
        let Some(present) = limited("read", KIND, name, api.get_opt(name)).await? else {
            return Ok(0);
        };
        let mut rest = owners(&present);
        let before = rest.len();
        rest.retain(|owner| owner.uid != uid);
        if rest.len() == before {
            return Ok(0);
        }
        let done = match rest.is_empty() {
            true => delete(api, &present).await,
            false => set_owners(api, &present, &rest).await,
        };
        if gone(done)? {
            return Ok(1);
        }
    }
    // Its next change is news of it.
    Ok(0)
}

fn owners(probe: &NetworkProbe) -> Vec<OwnerReference> {
    probe.metadata.owner_references.clone().unwrap_or_default()
}

/// Whether it was done; false if the object is another one by now, or none.
fn gone(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.has_code(404) || error.has_code(409) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn set_owners(
    api: &Api<NetworkProbe>,
    present: &NetworkProbe,
    owners: &[OwnerReference],
) -> Result<(), Error> {
    let name = present.name_any();
    let patch = Patch::Merge(json!({"metadata": {
        "uid": present.metadata.uid, "resourceVersion": present.metadata.resource_version,
        "ownerReferences": owners,
    }}));
    let params = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    let request = api.patch(&name, &params, &patch);
    limited("change the owners of", KIND, &name, request).await?;
    Ok(())
}

async fn delete(api: &Api<NetworkProbe>, present: &NetworkProbe) -> Result<(), Error> {
    let name = present.name_any();
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: present.metadata.uid.clone(),
            resource_version: present.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    limited("delete", KIND, &name, api.delete(&name, &params)).await?;
    Ok(())
}
