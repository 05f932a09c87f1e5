//! The condition `Wired` of a VNic.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use ycloud_api::VNic;
use ycloud_api::condition::{self, Verdict, WIRED};

/// Field manager of what the agents write: one for all, so that the agent to whose chassis a VNic moves takes over.
const FIELD_MANAGER: &str = "ycloud-cni";

/// How long the API server may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A condition that a VNic shall have.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Namespace of the VNic.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the conditions of ours are then: one or none.
    pub conditions: Vec<Condition>,
}

/// The write was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("failed to write condition {WIRED} of VNic {vnic}")]
    Api {
        /// Namespace and name.
        vnic: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// It gave no answer.
    #[error(
        "failed to write condition {WIRED} of VNic {vnic}: the API server gave no answer within {LIMIT:?}"
    )]
    Silent {
        /// Namespace and name.
        vnic: String,
    },
}

/// What is to be written so that a VNic's condition says `verdict`; `None` if it does.
pub fn report(vnic: &VNic, verdict: Option<&Verdict>, now: Timestamp) -> Option<Report> {
    let status = vnic.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice());
    let conditions = conditions.unwrap_or_default().iter();
    let before: Vec<Condition> = conditions.filter(|c| c.type_ == WIRED).cloned().collect();
    let mut after = Vec::new();
    if let Some(verdict) = verdict {
        after.clone_from(&before);
        let generation = vnic.metadata.generation;
        condition::set(&mut after, WIRED, verdict, generation, &Time(now));
    }
    (before != after).then(|| Report {
        namespace: vnic.namespace().unwrap_or_default(),
        name: vnic.name_any(),
        conditions: after,
    })
}

fn body(report: &Report) -> Value {
    json!({
        "apiVersion": "iaas.yusur.io/v1",
        "kind": "VNic",
        "metadata": {"name": report.name, "namespace": report.namespace},
        "status": {"conditions": report.conditions},
    })
}

/// Writes a condition and leaves those of others: the list is one by type, and each manager's entries are its own. One of a
/// VNic that is gone is success.
///
/// # Errors
/// See [`Error`].
pub async fn write(client: &Client, report: &Report) -> Result<(), Error> {
    let api: Api<VNic> = Api::namespaced(client.clone(), &report.namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(body(report));
    let vnic = || format!("{}/{}", report.namespace, report.name);
    let written = api.patch_status(&report.name, &params, &patch);
    match tokio::time::timeout(LIMIT, written).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(source)) => Err(Error::Api {
            vnic: vnic(),
            source,
        }),
        Err(_) => Err(Error::Silent { vnic: vnic() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ycloud_api::VNicStatus;
    use ycloud_api::condition::{READY, reason};

    #[test]
    fn a_condition_is_written_when_it_changes_and_others_are_left_alone() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut vnic = VNic::new("vm-7", Default::default());
        vnic.metadata.namespace = Some("team-a".into());
        vnic.metadata.generation = Some(3);
        let ready = Verdict::yes(reason::READY, "its logical port is bound");
        let mut status = VNicStatus::default();
        condition::set(&mut status.conditions, READY, &ready, Some(3), &Time(at(1)));
        vnic.status = Some(status);
        assert_eq!(report(&vnic, None, at(2)), None);
        let wired = Verdict::yes(reason::WIRED, "device tap7 is on br-int of chassis node-2");
        let first = report(&vnic, Some(&wired), at(2)).unwrap();
        let [condition] = &first.conditions[..] else {
            panic!("{first:?}")
        };
        assert_eq!(
            (condition.type_.as_str(), condition.observed_generation),
            (WIRED, Some(3))
        );
        let body = body(&first);
        assert_eq!(
            body["metadata"],
            json!({"name": "vm-7", "namespace": "team-a"})
        );
        assert_eq!(body["status"]["conditions"][0]["status"], "True");
        vnic.status
            .as_mut()
            .unwrap()
            .conditions
            .extend(first.conditions.clone());
        assert_eq!(report(&vnic, Some(&wired), at(9)), None);
        vnic.metadata.generation = Some(4);
        let again = report(&vnic, Some(&wired), at(9)).unwrap();
        assert_eq!(again.conditions[0].last_transition_time, Time(at(2)));
        assert!(report(&vnic, None, at(9)).unwrap().conditions.is_empty());
    }
}
