//! Carries a plan out: the only place that writes to the API server.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use ycloud_api::condition::{self, reason};
use ycloud_api::{YusurService, YusurServiceStatus};
use ycloud_compiler::endpoint::STILL_SERVES;

use super::plan::{Plan, Transition, transitions};
use crate::events::{Events, Report};
use crate::mergepatch;

/// Field manager of every write, and the controller's name in Events.
pub const NAME: &str = "yusurservice-controller";

/// Longest wait for the answer to one request.
const LIMIT: Duration = Duration::from_secs(15);

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("failed to {verb} {kind} {name}")]
    Request {
        /// What was tried.
        verb: &'static str,
        /// Of which kind.
        kind: &'static str,
        /// Namespace and name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("failed to {verb} {kind} {name}: no answer within {LIMIT:?}")]
    Timeout {
        /// What was tried.
        verb: &'static str,
        /// Of which kind.
        kind: &'static str,
        /// Namespace and name.
        name: String,
    },
}

impl Error {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Error::Timeout { .. } => None,
        }
    }

    /// The API server's words, if it understood the request and will not do it, however often it is asked.
    pub(super) fn refusal(&self) -> Option<&str> {
        let status = self.status()?;
        matches!(status.code, 400 | 403 | 405 | 422).then_some(status.message.as_str())
    }

    /// Whether the API server calls a field that begins so invalid.
    fn is_about(&self, field: &str) -> bool {
        let details = self.status().and_then(|status| status.details.as_ref());
        let mut causes = details.into_iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.field.starts_with(field))
    }

    /// Whether the API server answered with this HTTP status.
    pub(super) fn has_code(&self, code: u16) -> bool {
        self.code() == Some(code)
    }

    /// What the API server answered, in its words.
    pub(super) fn answer(&self) -> Option<&str> {
        self.status().map(|status| status.message.as_str())
    }

    /// The HTTP status that the API server answered with.
    pub(super) fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The status as it was told.
    pub status: YusurServiceStatus,
    /// Whether the API server refused what the spec asks for.
    pub refused: bool,
    /// How many objects were written, without the status.
    pub written: u64,
}

/// Writes to the API server. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    events: Events,
}

impl Executor {
    /// `identity`: name of this replica, for Events.
    pub fn new(client: Client, identity: &str) -> Self {
        Self {
            events: Events::new(client.clone(), NAME, identity),
            client,
        }
    }

    /// Writes what the plan says but for NetworkProbes, then tells the status if it changed, and publishes Events on
    /// transitions, and those of `health`. `base`: the status as it was last told.
    ///
    /// # Errors
    /// The first request that failed for another reason than a refusal of the Service; everything after it was left
    /// out. Try again.
    pub async fn carry_out(
        &self,
        plan: &Plan,
        base: Option<&YusurServiceStatus>,
        health: &[Transition],
    ) -> Result<Outcome, Error> {
        let mut written = 0;
        let refused = match self.write(plan, &mut written).await {
            Ok(()) => None,
            Err(error) if error.refusal().is_some() => {
                Some(self.fall_back(plan, &error, &mut written).await?)
            }
            Err(error) => return Err(error),
        };
        for transition in health {
            self.publish(plan, transition.clone()).await;
        }
        let status = plan.status(refused.as_deref(), base, &Time(Timestamp::now()));
        if base != Some(&status) {
            if let Err(error) = self.tell(&plan.ysvc, &status).await {
                if let Some(text) = refusal_text(&error) {
                    let transition = Transition {
                        warning: true,
                        reason: reason::REFUSED.to_owned(),
                        action: "Writing",
                        message: text,
                    };
                    self.publish(plan, transition).await;
                }
                return Err(error);
            }
            for transition in transitions(base, &status) {
                self.publish(plan, transition).await;
            }
        }
        Ok(Outcome {
            status,
            refused: refused.is_some(),
            written,
        })
    }

    /// The API server refuses the Service or one of its EndpointSlices: what exists goes on to serve, without Pods that went.
    /// Returns what to tell.
    async fn fall_back(
        &self,
        plan: &Plan,
        error: &Error,
        written: &mut u64,
    ) -> Result<String, Error> {
        let namespace = plan.ysvc.namespace().unwrap_or_default();
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &namespace);
        for slice in &plan.if_refused {
            match apply(&slices, slice).await {
                Ok(()) => *written += 1,
                // Told already.
                Err(error) if error.refusal().is_some() => {}
                Err(error) => return Err(error),
            }
        }
        let rest = if plan.creates { "" } else { STILL_SERVES };
        let text = refusal_text(error).unwrap_or_default();
        Ok(format!("{text}{rest}"))
    }

    /// Slices before the Service, so that it never stands without its endpoints; deletions at last.
    async fn write(&self, plan: &Plan, written: &mut u64) -> Result<(), Error> {
        let namespace = plan.ysvc.namespace().unwrap_or_default();
        let services: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &namespace);
        // Asked before anything is written.
        let service = self.ask(&services, plan).await?;
        for slice in &plan.slices {
            apply(&slices, slice).await?;
            *written += 1;
        }
        *written += write_service(&services, plan, service, false).await?;
        let params = DeleteParams::default();
        for name in &plan.surplus {
            let request = slices.delete(name, &params);
            match limited("delete", "EndpointSlice", name, request).await {
                Ok(_) => *written += 1,
                Err(error) if error.has_code(404) => {}
                Err(error) => return Err(error),
            }
        }
        if plan.surplus_endpoints {
            let endpoints: Api<Endpoints> = Api::namespaced(self.client.clone(), &namespace);
            let name = plan.ysvc.name_any();
            let request = endpoints.delete(&name, &params);
            match limited("delete", "Endpoints", &name, request).await {
                Ok(_) => *written += 1,
                Err(error) if error.has_code(404) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The Service that the API server takes, if one is to be written: the one of the plan; else, if it refuses that, one without
    /// what was remembered, which may be of another cluster. What the spec asks for is in both.
    async fn ask<'p>(
        &self,
        api: &Api<Service>,
        plan: &'p Plan,
    ) -> Result<Option<&'p Service>, Error> {
        let wanted = plan.service.as_ref();
        let error = match write_service(api, plan, wanted, true).await {
            Ok(_) => return Ok(wanted),
            Err(error) => error,
        };
        // A quota or a webhook may let it pass later, as it was.
        let (Some(why), Some(afresh), true) = (
            error.refusal(),
            &plan.afresh,
            error.is_about("spec.clusterIP"),
        ) else {
            return Err(error);
        };
        write_service(api, plan, Some(afresh), true).await?;
        let text = format!(
            "the Service is made without what it was before, as the API server refuses that: {why}"
        );
        self.publish(
            plan,
            Transition {
                warning: false,
                reason: reason::REFUSED.to_owned(),
                action: condition::ACCEPTED,
                message: text,
            },
        )
        .await;
        Ok(Some(afresh))
    }

    async fn tell(&self, ysvc: &YusurService, status: &YusurServiceStatus) -> Result<(), Error> {
        let namespace = ysvc.namespace().unwrap_or_default();
        let name = ysvc.name_any();
        let api: Api<YusurService> = Api::namespaced(self.client.clone(), &namespace);
        // The UID: a YusurService that was made anew under this name gets no status of its predecessor.
        let body = json!({
            "apiVersion": format!("{}/{}", ycloud_api::GROUP, ycloud_api::VERSION),
            "kind": "YusurService",
            "metadata": {"name": name, "namespace": namespace, "uid": ysvc.uid()},
            "status": status,
        });
        let params = PatchParams::apply(NAME).force();
        let patch = Patch::Apply(body);
        let request = api.patch_status(&name, &params, &patch);
        let answer = limited("write the status of", "YusurService", &name, request).await;
        let Some(stands) = unless_gone(answer)? else {
            return Ok(());
        };
        let Some(rest) = leftover(stands.status.as_ref(), status) else {
            return Ok(());
        };
        let params = PatchParams {
            field_manager: Some(NAME.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"metadata": {"uid": ysvc.uid()}, "status": rest}));
        let request = api.patch_status(&name, &params, &patch);
        unless_gone(limited("write the status of", "YusurService", &name, request).await)?;
        Ok(())
    }

    async fn publish(&self, plan: &Plan, transition: Transition) {
        let Transition {
            warning,
            reason,
            action,
            message,
        } = transition;
        let report = Report {
            regarding: plan.reference(),
            warning,
            reason,
            action,
            message,
        };
        self.events.publish(report).await;
    }
}

/// What the API server refuses, its words, and the cure.
fn refusal_text(error: &Error) -> Option<String> {
    let why = error.refusal()?;
    let (Error::Request { kind, name, .. } | Error::Timeout { kind, name, .. }) = error;
    Some(match *kind {
        "Service" => format!("the API server refuses the Service: {why}; correct the spec"),
        _ => format!(
            "the API server refuses {kind} {name}: {why}; see the quotas and webhooks of the namespace, and the ClusterRole of {NAME}"
        ),
    })
}

/// The answer; none: the object is gone, or another one now, which the watch says too.
fn unless_gone<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.has_code(404) || error.has_code(409) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What stands in a status that was just applied, and is not said any more: an apply leaves what others wrote, such as who
/// restored it from a backup. A merge patch that takes it away; conditions of others stay.
fn leftover(stands: Option<&YusurServiceStatus>, said: &YusurServiceStatus) -> Option<Value> {
    let mut stands = stands?.clone();
    stands.conditions = said.conditions.clone();
    // Serializing cannot fail: plain structs with string keys.
    let (stands, said) = (
        serde_json::to_value(stands).ok()?,
        serde_json::to_value(said).ok()?,
    );
    mergepatch::between(&stands, &said)
}

/// Makes or changes the Service, if it needs that; how many objects were written. One that somebody made meanwhile is
/// not taken over: that is a conflict, to be planned anew.
async fn write_service(
    api: &Api<Service>,
    plan: &Plan,
    service: Option<&Service>,
    dry_run: bool,
) -> Result<u64, Error> {
    let (Some(service), Some(patch)) = (service, plan.service_patch()) else {
        return Ok(0);
    };
    let name = service.name_any();
    if plan.creates {
        let params = PostParams {
            dry_run,
            field_manager: Some(NAME.to_owned()),
        };
        limited("create", "Service", &name, api.create(&params, service)).await?;
    } else {
        let params = PatchParams {
            dry_run,
            field_manager: Some(NAME.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        let request = api.patch(&name, &params, &patch);
        limited("change", "Service", &name, request).await?;
    }
    Ok(1)
}

async fn apply(api: &Api<EndpointSlice>, slice: &EndpointSlice) -> Result<(), Error> {
    let params = PatchParams::apply(NAME).force();
    let name = slice.name_any();
    let patch = Patch::Apply(slice);
    let request = api.patch(&name, &params, &patch);
    limited("apply", "EndpointSlice", &name, request).await?;
    Ok(())
}

/// The answer to one request, if it comes in time.
pub(super) async fn limited<T>(
    verb: &'static str,
    kind: &'static str,
    name: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Request {
            verb,
            kind,
            name: name.to_owned(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout {
            verb,
            kind,
            name: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_named_with_the_cure() {
        let refused = |kind| {
            let status = kube::core::Status::failure("exceeded quota", "Forbidden").with_code(403);
            let error = Error::Request {
                verb: "apply",
                kind,
                name: "svc-1".into(),
                source: Box::new(kube::Error::Api(Box::new(status))),
            };
            refusal_text(&error).unwrap()
        };
        assert_eq!(
            refused("Service"),
            "the API server refuses the Service: exceeded quota; correct the spec"
        );
        let text = refused("EndpointSlice");
        assert!(
            text.starts_with("the API server refuses EndpointSlice svc-1: exceeded quota; see"),
            "{text}"
        );
    }

    #[test]
    fn what_somebody_else_left_in_the_status_is_taken_away() {
        let read = |text: &str| -> YusurServiceStatus { serde_yaml::from_str(text).unwrap() };
        let other = "{type: Other, status: 'True', reason: R, message: m, lastTransitionTime: 2026-01-01T00:00:00Z}";
        let stands = read(&format!(
            "{{clusterIP: 10.9.0.7, eip: 198.51.100.9, ports: 80/TCP, conditions: [{other}]}}"
        ));
        let mut said = read("{ports: 80/TCP}");
        let gone = json!({"clusterIP": null, "eip": null});
        assert_eq!(leftover(Some(&stands), &said), Some(gone));
        said = stands.clone();
        said.conditions.clear();
        assert_eq!(leftover(Some(&stands), &said), None);
        assert_eq!(leftover(None, &said), None);
    }
}
