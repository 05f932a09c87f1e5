//! NetworkPolicies: nobody enforces them yet, and an Event on each says so. Who relies on one without a word would find out
//! by being attacked.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher::Config;
use kube::{Api, Resource};
use tokio::sync::mpsc;

use crate::runtime::Runtime;
use crate::watch::{Change, Closed, watch};
use crate::write::{Report, Writer};

/// How long after an Event the next one comes: a cluster may have thousands of policies when ycloud is installed.
const PACE: Duration = Duration::from_millis(100);

/// Changes that wait before the watch is held up.
const CAPACITY: usize = 64;

/// What the Event says.
const MESSAGE: &str = "ycloud does not enforce NetworkPolicies: the Pods that this one selects are reached by everybody in \
                       their Vpc, as if it did not exist; keep tenants apart by Vpcs and their spec.allowedNamespaces";

/// Tells of each NetworkPolicy once, while this process leads. Runs until `runtime.stop` is cancelled.
pub async fn run(runtime: Runtime) {
    let (sender, mut changes) = mpsc::channel(CAPACITY);
    let deliver = move |change: Change<NetworkPolicy>| {
        let sender = sender.clone();
        async move { sender.send(change).await.map_err(|_| Closed) }
    };
    let api: Api<NetworkPolicy> = Api::all(runtime.client.clone());
    let reduce = |policy: &mut NetworkPolicy| policy.spec = None;
    let watch = watch(api, Config::default(), reduce, deliver);
    let writer = Writer::new(runtime.client.clone(), &runtime.identity);
    let tell = async {
        let mut policies = Policies::default();
        loop {
            tokio::select! {
                Some(change) = changes.recv() => policies.apply(change),
                report = next(&mut policies, &runtime) => {
                    writer.report(report).await;
                    tokio::time::sleep(PACE).await;
                }
            }
        }
    };
    tokio::select! {
        () = watch => {}
        () = tell => {}
        () = runtime.stop.cancelled() => {}
    }
}

/// The next Event, once there is one and this process leads. Nothing is lost if it is dropped before.
async fn next(policies: &mut Policies, runtime: &Runtime) -> Report {
    if policies.untold.is_empty() {
        std::future::pending::<()>().await;
    }
    runtime.leading().await;
    match policies.untold.pop_front() {
        Some(report) => report,
        None => std::future::pending().await,
    }
}

/// Of which policies was told.
#[derive(Default)]
struct Policies {
    /// UIDs of those that are known.
    known: BTreeSet<String>,
    untold: VecDeque<Report>,
}

impl Policies {
    fn apply(&mut self, change: Change<NetworkPolicy>) {
        let Change::Apply(policy) = change else {
            // A UID is never used again: what is gone needs no memory of it, and few are.
            return;
        };
        let uid = policy.metadata.uid.clone().unwrap_or_default();
        if self.known.insert(uid) {
            self.untold.push_back(Report {
                regarding: policy.object_ref(&()),
                warning: true,
                reason: "NotEnforced".to_owned(),
                action: "Enforcing",
                message: MESSAGE.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, uid: &str) -> Change<NetworkPolicy> {
        let mut policy = NetworkPolicy::default();
        policy.metadata.name = Some(name.to_owned());
        policy.metadata.namespace = Some("ns".to_owned());
        policy.metadata.uid = Some(uid.to_owned());
        Change::Apply(policy)
    }

    #[test]
    fn each_policy_is_told_of_once() {
        let mut policies = Policies::default();
        for change in [
            policy("a", "1"),
            policy("a", "1"),
            policy("b", "2"),
            policy("a", "3"),
        ] {
            policies.apply(change);
        }
        let told = policies.untold.iter();
        let told: Vec<_> = told
            .map(|report| {
                (
                    report.regarding.name.as_deref(),
                    report.regarding.uid.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (Some("a"), Some("1")),
                (Some("b"), Some("2")),
                (Some("a"), Some("3"))
            ]
        );
        assert!(policies.untold.iter().all(|report| report.warning));
    }
}
