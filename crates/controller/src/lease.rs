//! Leader election: one of several replicas writes, the others stand by.
//!
//! A `Lease` (coordination.k8s.io/v1) names the holder. Every write carries the resource version that was read, so
//! that two replicas can never both take it; a replica judges expiry by how long *its own* clock saw the record
//! unchanged, so that clocks of nodes need not agree. A holder that cannot renew steps down before anybody else may
//! take over: `renew deadline < duration`.
//!
//! ```text
//!            free, or unchanged for `duration`                 renewed every `retry`
//!   standing by ─────────────────────────────────► leading ───────────┐
//!        ▲  reads every `retry`                       │  ▲────────────┘
//!        │                                            │ taken by another, or not renewed for `renew_deadline`
//!        └──────────── (a new process) ◄──────────── lost
//! ```

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use ycloud_client::Heartbeat;

/// How long a lease lasts and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A record that stays unchanged for so long is anybody's. Default 15 s.
    pub duration: Duration,
    /// A holder that could not renew for so long stops leading. Below `duration`. Default 10 s.
    pub renew_deadline: Duration,
    /// Time between two tries. Default 2 s.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Whether this process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// Another replica leads, or nobody yet.
    Standby,
    /// This process leads.
    Leading,
    /// This process led and must not write any more; it ends.
    Lost,
}

/// Why a try to take or renew the lease failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("failed to {verb} Lease {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The Lease.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("failed to renew Lease {name}: no answer within {after:?}")]
    Timeout {
        /// The Lease.
        name: String,
        /// How long was waited.
        after: Duration,
    },
}

/// What was last seen of the record, and when by the own clock.
#[derive(Debug, Clone, PartialEq)]
struct Observation {
    holder: String,
    version: Option<String>,
    since: Instant,
}

/// Holds or waits for one Lease.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    observed: Option<Observation>,
}

impl Elector {
    /// `name` is the Lease's name in `namespace`; `identity` differs between replicas.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        timing: Timing,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
            observed: None,
        }
    }

    /// Runs until `stop` is cancelled, then gives the Lease back; or until leadership is lost. `state` tells the rest
    /// of the process.
    pub async fn run(
        mut self,
        state: watch::Sender<Leadership>,
        stop: CancellationToken,
        heartbeat: Heartbeat,
    ) {
        let mut renewed: Option<Instant> = None;
        loop {
            let begun = Instant::now();
            let attempt = {
                let _pass = heartbeat.pass();
                self.attempt().await
            };
            match attempt {
                Ok(true) => {
                    if renewed.replace(begun).is_none() {
                        tracing::info!(lease = %self.name, identity = %self.identity, "leading");
                        state.send_replace(Leadership::Leading);
                    }
                }
                Ok(false) if renewed.is_some() => {
                    tracing::error!(lease = %self.name, "lost the lease to another replica");
                    state.send_replace(Leadership::Lost);
                    return;
                }
                Ok(false) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(lease = %self.name, error, "cannot take or renew the lease");
                }
            }
            let late = renewed.is_some_and(|at| at.elapsed() >= self.timing.renew_deadline);
            if late {
                tracing::error!(lease = %self.name, "lease not renewed in time; stepping down");
                state.send_replace(Leadership::Lost);
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(self.timing.retry) => {}
                () = stop.cancelled() => break,
            }
        }
        if renewed.is_some() {
            self.release().await;
        }
        state.send_replace(Leadership::Lost);
    }

    async fn attempt(&mut self) -> Result<bool, Error> {
        // Half of what is left, so that a hanging connection leaves time for a second try.
        let after = self.timing.renew_deadline / 2;
        match tokio::time::timeout(after, self.take_or_renew()).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                name: self.name.clone(),
                after,
            }),
        }
    }

    /// True: held. False: held by another replica.
    async fn take_or_renew(&mut self) -> Result<bool, Error> {
        let found = self.api.get_opt(&self.name).await;
        let Some(lease) = found.map_err(|e| self.failed("read", e))? else {
            let fresh = self.claim(Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            });
            return self
                .settle(self.api.create(&PostParams::default(), &fresh).await)
                .await;
        };
        if !self.may_take(&lease, Instant::now()) {
            return Ok(false);
        }
        let claimed = self.claim(lease);
        let params = PostParams::default();
        let result = self.api.replace(&self.name, &params, &claimed).await;
        self.settle(result).await
    }

    /// A conflict means that the record changed since it was read: read it again to know by whom.
    async fn settle(&self, result: Result<Lease, kube::Error>) -> Result<bool, Error> {
        match result {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let now = self.api.get_opt(&self.name).await;
                let now = now.map_err(|e| self.failed("read", e))?;
                Ok(now.is_some_and(|lease| holder(&lease) == self.identity))
            }
            Err(error) => Err(self.failed("write", error)),
        }
    }

    /// Whether the record is free, our own, or was seen unchanged for the lease's duration.
    fn may_take(&mut self, lease: &Lease, now: Instant) -> bool {
        let holder = holder(lease);
        if holder.is_empty() || holder == self.identity {
            self.observed = None;
            return true;
        }
        let version = lease.metadata.resource_version.clone();
        match &self.observed {
            Some(seen) if seen.version == version && seen.holder == holder => {
                now.duration_since(seen.since) >= self.timing.duration
            }
            _ => {
                if self
                    .observed
                    .as_ref()
                    .is_none_or(|seen| seen.holder != holder)
                {
                    tracing::info!(lease = %self.name, holder, "standing by");
                }
                self.observed = Some(Observation {
                    holder: holder.to_owned(),
                    version,
                    since: now,
                });
                false
            }
        }
    }

    /// The record as it reads when held by this process.
    fn claim(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(-1).saturating_add(1));
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            renew_time: Some(now),
            ..spec
        });
        lease
    }

    /// Gives the Lease back, so that a standby takes over at its next try instead of after the duration.
    async fn release(&self) {
        let work = async {
            let mut lease = self.api.get(&self.name).await?;
            if holder(&lease) != self.identity {
                return Ok(());
            }
            if let Some(spec) = lease.spec.as_mut() {
                spec.holder_identity = Some(String::new());
            }
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await
                .map(|_| ())
        };
        match tokio::time::timeout(Duration::from_secs(2), work).await {
            Ok(Ok(())) => tracing::info!(lease = %self.name, "gave the lease back"),
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(lease = %self.name, error, "failed to give the lease back");
            }
            Err(_) => tracing::warn!(lease = %self.name, "failed to give the lease back in time"),
        }
    }

    fn failed(&self, verb: &'static str, source: kube::Error) -> Error {
        Error::Api {
            verb,
            name: self.name.clone(),
            source: Box::new(source),
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elector() -> Elector {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Elector::new(client, "ns", "lease", "me", Timing::default())
    }

    fn held(by: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(by.into()),
                ..LeaseSpec::default()
            }),
        }
    }

    #[tokio::test]
    async fn a_foreign_lease_is_taken_only_after_it_stood_still_for_its_duration() {
        let mut elector = elector();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert!(!elector.may_take(&held("other", "1"), start));
        assert!(!elector.may_take(&held("other", "1"), start + 14 * second));
        // A renewal starts the wait again.
        assert!(!elector.may_take(&held("other", "2"), start + 15 * second));
        assert!(!elector.may_take(&held("other", "2"), start + 29 * second));
        assert!(elector.may_take(&held("other", "2"), start + 30 * second));
    }

    #[tokio::test]
    async fn a_free_lease_and_the_own_one_are_taken_at_once() {
        let mut elector = elector();
        assert!(elector.may_take(&held("", "1"), Instant::now()));
        assert!(elector.may_take(&held("me", "1"), Instant::now()));
        assert!(elector.may_take(&Lease::default(), Instant::now()));
    }

    #[tokio::test]
    async fn a_renewal_keeps_the_time_of_taking_and_counts_no_transition() {
        let elector = elector();
        let first = elector.claim(held("other", "1"));
        let spec = first.spec.clone().unwrap();
        assert_eq!(spec.lease_transitions, Some(0));
        let again = elector.claim(first).spec.unwrap();
        assert_eq!(again.acquire_time, spec.acquire_time);
        assert_eq!(again.lease_transitions, Some(0));
    }

    #[tokio::test]
    async fn without_an_api_server_nobody_leads_and_stop_ends_it() {
        let timing = Timing {
            retry: Duration::from_millis(10),
            ..Timing::default()
        };
        let mut elector = elector();
        elector.timing = timing;
        let (sender, receiver) = watch::channel(Leadership::Standby);
        let stop = CancellationToken::new();
        let task = tokio::spawn(elector.run(sender, stop.clone(), Heartbeat::default()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(*receiver.borrow(), Leadership::Standby);
        stop.cancel();
        task.await.unwrap();
    }
}
