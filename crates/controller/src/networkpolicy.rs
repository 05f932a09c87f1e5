//! NetworkPolicies: nobody enforces them yet, and an Event on each says so. Who relies on one without a word would find out
//! by being attacked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher::Config;
use kube::{Api, Resource};
use tokio::sync::mpsc;

use ycloud_client::Heartbeat;

use crate::runtime::Runtime;
use crate::watch::{Change, Closed, Key, watch};
use crate::write::{Report, Writer};

/// How long after an Event the next one comes: a cluster may have thousands of policies when ycloud is installed.
const PACE: Duration = Duration::from_millis(100);

/// Changes that wait before the watch is held up.
const CAPACITY: usize = 64;

/// What the Event says.
const MESSAGE: &str = "ycloud does not enforce NetworkPolicies: the Pods that this one selects are reached by everybody in \
                       their Vpc, as if it did not exist; keep tenants apart by Vpcs and their spec.allowedNamespaces";

/// Tells of each NetworkPolicy once, while this process leads. Runs until `runtime.stop` is cancelled. A pass is an Event.
pub async fn run(runtime: Runtime, heartbeat: Heartbeat) {
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
                    let _pass = heartbeat.pass();
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
    match policies.take() {
        Some(report) => report,
        None => std::future::pending().await,
    }
}

/// The policies that there are.
#[derive(Default)]
struct Policies {
    /// UID of each.
    known: BTreeMap<Key, String>,
    /// Those that were not told of.
    untold: BTreeSet<Key>,
}

impl Policies {
    fn apply(&mut self, change: Change<NetworkPolicy>) {
        match change {
            Change::Apply(policy) => {
                let key = Key::of(&policy);
                let uid = policy.metadata.uid.unwrap_or_default();
                if self.known.insert(key.clone(), uid.clone()) != Some(uid) {
                    self.untold.insert(key);
                }
            }
            Change::Delete(key) => {
                self.known.remove(&key);
                self.untold.remove(&key);
            }
            Change::Synced => {}
        }
    }

    fn take(&mut self) -> Option<Report> {
        let key = self.untold.pop_first()?;
        let mut policy = NetworkPolicy::default();
        policy.metadata.uid = self.known.get(&key).cloned();
        policy.metadata.namespace = key.namespace;
        policy.metadata.name = Some(key.name);
        Some(Report {
            regarding: policy.object_ref(&()),
            warning: true,
            reason: "NotEnforced".to_owned(),
            action: "Enforcing",
            message: MESSAGE.to_owned(),
        })
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

    fn told(policies: &mut Policies) -> Vec<(String, String)> {
        let reports = std::iter::from_fn(|| policies.take());
        let of = |report: Report| {
            assert!(report.warning);
            (
                report.regarding.name.unwrap(),
                report.regarding.uid.unwrap(),
            )
        };
        reports.map(of).collect()
    }

    #[test]
    fn each_policy_that_there_is_is_told_of_once() {
        let mut policies = Policies::default();
        let pair = |name: &str, uid: &str| (name.to_owned(), uid.to_owned());
        for change in [policy("a", "1"), policy("a", "1"), policy("b", "2")] {
            policies.apply(change);
        }
        assert_eq!(told(&mut policies), [pair("a", "1"), pair("b", "2")]);
        // One that was made anew is another one; one that is gone is none.
        policies.apply(policy("a", "3"));
        policies.apply(policy("c", "4"));
        policies.apply(Change::Delete(Key {
            namespace: Some("ns".to_owned()),
            name: "c".to_owned(),
        }));
        assert_eq!(told(&mut policies), [pair("a", "3")]);
        assert_eq!(told(&mut policies), []);
    }
}
