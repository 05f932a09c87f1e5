//! Whether a backend is an endpoint, and in which state: what its probe found, what it says of itself, and how it was.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use ycloud_api::condition::{ACCEPTED, reason};
use ycloud_api::network_probe::{NetworkProbeStatus, ProbeState};
use ycloud_api::service::{BackendState, OnBackendFailure};
use ycloud_api::{NetworkProbe, YusurService};

use super::backend::Candidate;
use super::slices;

/// For how long a backend that nobody can tell of stays the endpoint that it was, where somebody could ask.
///
/// Where no chassis of the cluster can ask, it stays without a limit: then no probe is worth anything, and to believe them
/// would take every backend of every YusurService away at once, such as while agents of an older release run.
pub const UNKNOWN_LASTS: Duration = Duration::from_secs(300);

/// Seconds for which connections of a backend that is taken away live on, if the spec does not say.
const DRAIN_SECONDS: i32 = 30;

/// How backends are in the slices that exist, by UID and address.
#[derive(Debug, Default)]
pub struct Former(BTreeMap<(String, String), EndpointConditions>);

impl Former {
    /// Reads the slices of `ysvc` among `present`.
    pub fn of(ysvc: &YusurService, present: &[&EndpointSlice]) -> Self {
        let uid = ysvc.metadata.uid.as_deref().unwrap_or_default();
        let mut all = BTreeMap::new();
        for endpoint in slices::own(present, uid).iter().flat_map(|s| &s.endpoints) {
            let state = endpoint.conditions.clone().unwrap_or_default();
            for address in &endpoint.addresses {
                all.insert((slices::identity(endpoint), address.clone()), state.clone());
            }
        }
        Self(all)
    }

    /// How the backend is at this address; one that moves, how it is at its former one.
    ///
    /// So a guest that migrates goes on as an endpoint where it arrives, before anybody can have asked it there.
    pub fn at(&self, candidate: &Candidate, address: IpAddr) -> Option<&EndpointConditions> {
        let uid = candidate.uid();
        let exact = self.0.get(&(uid.to_owned(), address.to_string()));
        exact.or_else(|| self.anywhere(candidate).filter(|_| candidate.moves()))
    }

    /// How the backend is at whichever of its addresses.
    pub fn anywhere(&self, candidate: &Candidate) -> Option<&EndpointConditions> {
        let uid = candidate.uid();
        let mut all = self.0.range((uid.to_owned(), String::new())..);
        let (_, state) = all.next().filter(|((of, _), _)| of == uid)?;
        Some(state)
    }
}

/// What is the same for all backends of a YusurService.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whether backends that are not ready count as endpoints.
    publish: bool,
    drain: Duration,
    /// How long after its check failed a backend's connections end; `None`: never.
    reset: Option<Duration>,
    now: &'a Time,
}

impl<'a> Rules<'a> {
    /// The rules of `ysvc` at the time `now`.
    pub fn of(ysvc: &YusurService, now: &'a Time) -> Self {
        let seconds = |seconds: i32| Duration::from_secs(seconds.max(0).unsigned_abs().into());
        let reset = ysvc.spec.reset_after_seconds.unwrap_or_default();
        Self {
            publish: ysvc.spec.publish_not_ready_addresses,
            drain: seconds(ysvc.spec.drain_seconds.unwrap_or(DRAIN_SECONDS)),
            reset: match ysvc.spec.on_backend_failure {
                OnBackendFailure::Reset => Some(seconds(reset)),
                OnBackendFailure::Keep => None,
            },
            now,
        }
    }
}

/// What is known of one backend.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// It is not probed: what it says of itself counts.
    Itself,
    /// Its probe; none if there is none yet.
    Probe(Option<&'a NetworkProbe>),
    /// It cannot be probed, for this reason.
    Nothing(&'a str),
}

/// What becomes of a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Its state as an endpoint; none: it is none any more.
    pub conditions: Option<EndpointConditions>,
    /// For the status.
    pub state: BackendState,
    /// Since when, as its probe says.
    pub since: Option<Time>,
    /// What is wrong.
    pub message: Option<String>,
    /// Its open connections end, although it may live.
    pub ends: bool,
    /// When this may become another judgement without any news.
    pub due: Option<Time>,
}

/// What the probe says, with what time makes of it.
struct Finding<'a> {
    state: ProbeState,
    /// Whether new connections may go there, as far as the probe is concerned.
    passes: bool,
    probe: Option<&'a NetworkProbe>,
    status: Option<&'a NetworkProbeStatus>,
    /// Why it cannot be asked.
    lack: Option<&'a str>,
    /// While it is Unknown and passes: for how long, or why.
    lasts: Lasts,
    due: Option<Time>,
}

/// Why and for how long a backend passes that nobody can tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// It was an endpoint, and stays one for [`UNKNOWN_LASTS`].
    Minutes,
    /// It was an endpoint, and no chassis can ask, or nobody was told to.
    UntilAsked,
    /// It was never asked, no chassis can, and it says of itself that it is ready.
    Readiness,
}

/// Judges `candidate`, which the present slices know as `former`.
pub fn judge(
    candidate: &Candidate,
    asked: Asked,
    former: Option<&EndpointConditions>,
    rules: Rules,
) -> Judgement {
    let was = former.is_some_and(|former| former.serving == Some(true));
    let finding = find(candidate, asked, was, rules.now);
    let serving = candidate.ready() && finding.passes;
    let since = finding.status.and_then(|status| status.since.clone());
    let (fails, reset) = finding.fails(rules);
    if let Some(began) = candidate.deleted() {
        // A VNic stays for as long as it is an endpoint, so it must cease to be one.
        let stays = rules.publish && !matches!(candidate, Candidate::VNic(_));
        let mut judgement = leaving(
            &began,
            serving,
            since,
            earlier(finding.due, reset),
            stays,
            rules,
        );
        judgement.ends |= fails;
        return judgement;
    }
    let (state, message) = match (finding.state, candidate.halted()) {
        (_, Some(why)) => (BackendState::NotReady, Some(why)),
        // A Pod that begins says itself when its check may be believed.
        _ if !candidate.ready() && !was => (BackendState::NotReady, Some("not ready".into())),
        (ProbeState::Unhealthy, _) => {
            let text = finding.words().unwrap_or("its check fails".into());
            (BackendState::Unhealthy, Some(text))
        }
        _ if !candidate.ready() => (BackendState::NotReady, Some("not ready".into())),
        (ProbeState::Unknown, _) if finding.lack.is_some() && !finding.passes => {
            (BackendState::NotReady, Some(finding.unknown()))
        }
        (ProbeState::Healthy, _) => (BackendState::Healthy, None),
        (ProbeState::Unknown, _) => (BackendState::Unknown, Some(finding.unknown())),
    };
    Judgement {
        conditions: Some(EndpointConditions {
            ready: Some(rules.publish || serving),
            serving: Some(serving),
            terminating: Some(false),
        }),
        state,
        since,
        message,
        ends: fails || candidate.halted().is_some(),
        due: earlier(finding.due, reset),
    }
}

/// A backend whose deletion began at `began`; with `stays` it is an endpoint until it is gone.
fn leaving(
    began: &Time,
    serving: bool,
    since: Option<Time>,
    due: Option<Time>,
    stays: bool,
    rules: Rules,
) -> Judgement {
    let end = later(began, rules.drain);
    let over = rules.now.0 >= end.0 && !stays;
    let conditions = EndpointConditions {
        ready: Some(rules.publish),
        serving: Some(serving),
        terminating: Some(true),
    };
    let (state, message) = match serving && !over {
        true => {
            let text = format!(
                "is being deleted; its connections live on for {} s, until {}",
                rules.drain.as_secs(),
                end.0
            );
            (BackendState::Draining, text)
        }
        false => (BackendState::NotReady, "is being deleted".into()),
    };
    let pending = Some(end).filter(|_| !over && !stays);
    Judgement {
        conditions: Some(conditions).filter(|_| !over),
        state,
        since,
        message: Some(message),
        ends: over,
        due: earlier(due.filter(|_| !over), pending),
    }
}

fn find<'a>(candidate: &Candidate, asked: Asked<'a>, was: bool, now: &Time) -> Finding<'a> {
    let mut finding = Finding {
        state: ProbeState::Healthy,
        passes: true,
        probe: None,
        status: None,
        lack: None,
        lasts: Lasts::Minutes,
        due: None,
    };
    (finding.probe, finding.lack) = match asked {
        Asked::Itself => return finding,
        Asked::Probe(probe) => (probe, None),
        Asked::Nothing(why) => (None, Some(why)),
    };
    let probe = finding.probe;
    finding.status = probe.and_then(|probe| probe.status.as_ref());
    finding.state = finding
        .status
        .map(|status| status.state)
        .unwrap_or_default();
    match finding.state {
        ProbeState::Healthy => {}
        ProbeState::Unhealthy => finding.passes = false,
        ProbeState::Unknown => finding.unsure(matches!(candidate, Candidate::Pod(_)), was, now),
    }
    finding
}

impl Finding<'_> {
    /// Whether the connections of what fails end now, and if not, when.
    fn fails(&self, rules: Rules) -> (bool, Option<Time>) {
        let Some(reset) = rules.reset.filter(|_| self.state == ProbeState::Unhealthy) else {
            return (false, None);
        };
        let since = self.status.and_then(|status| status.since.as_ref());
        let end = since.map_or_else(|| rules.now.clone(), |since| later(since, reset));
        match rules.now.0 >= end.0 {
            true => (true, None),
            false => (false, Some(end)),
        }
    }

    /// Whether a backend passes that nobody can tell of. `pod`: it says itself whether it is ready. `was`: it is an endpoint.
    ///
    /// A new Pod that no chassis can ask passes by its readiness: else no roll-out would come to its end while agents of an
    /// older release run. What was asked before has a last result, which may have been a failure, so it must be asked again.
    /// Machines and addresses say nothing of themselves: they wait.
    fn unsure(&mut self, pod: bool, was: bool, now: &Time) {
        let accepted = self.accepted();
        let nobody = accepted.is_some_and(|c| c.reason == reason::NO_PROBER && c.status == "False");
        let ever = self.status.is_some_and(|status| status.reported.is_some());
        // Those that nobody could ask count from when somebody can.
        let assigned = accepted.filter(|c| c.status == "True");
        let assigned = assigned.map(|c| &c.last_transition_time);
        let since = self.status.and_then(|status| status.since.as_ref());
        let began = since.map(|since| match assigned {
            Some(assigned) if assigned.0 > since.0 => assigned,
            _ => since,
        });
        (self.passes, self.lasts, self.due) = match began {
            _ if nobody && pod && !ever => (true, Lasts::Readiness, None),
            Some(began) if !nobody => {
                let end = later(began, UNKNOWN_LASTS);
                let passes = was && now.0 < end.0;
                (passes, Lasts::Minutes, Some(end).filter(|_| passes))
            }
            _ => (was, Lasts::UntilAsked, None),
        };
    }

    /// What ycloud-controller says of the probe.
    fn accepted(&self) -> Option<&Condition> {
        let mut all = self.status?.conditions.iter();
        all.find(|c| c.type_ == ACCEPTED)
    }

    /// The probe's own words: what was wrong, or why nobody asks.
    fn words(&self) -> Option<String> {
        if let Some(lack) = self.lack {
            return Some(lack.to_owned());
        }
        let refused = self.accepted().filter(|c| c.status == "False");
        let error = self.status?.last_error.clone();
        let error = error.filter(|text| !text.is_empty());
        error.or_else(|| refused.map(|c| c.message.clone()))
    }

    fn unknown(&self) -> String {
        let taken = self.status.is_some_and(|status| status.since.is_some());
        let why = self.words().unwrap_or_else(|| match self.probe {
            Some(probe) if !taken => {
                let name = probe.metadata.name.as_deref().unwrap_or_default();
                format!("waiting for ycloud-controller to say who asks, in NetworkProbe {name}")
            }
            _ => "waiting for its first check".into(),
        });
        let minutes = UNKNOWN_LASTS.as_secs() / 60;
        match (self.passes, self.lasts) {
            (false, _) => why,
            (true, Lasts::Minutes) => {
                format!("{why}; it stays an endpoint for up to {minutes} minutes")
            }
            (true, Lasts::UntilAsked) => format!("{why}; until it is asked it stays an endpoint"),
            (true, Lasts::Readiness) => format!("{why}; until it is asked its readiness decides"),
        }
    }
}

/// The time `span` after `time`.
fn later(time: &Time, span: Duration) -> Time {
    time.0.checked_add(span).map_or_else(|_| time.clone(), Time)
}

/// The earlier one of two times.
pub fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}
