//! NetworkProbes: who asks, as it is written into their status, and what becomes of the ports of those who ask no more.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde_json::json;
use ycloud_api::condition::{ACCEPTED, reason};
use ycloud_api::key::PROBER_LEASE_SECONDS;
use ycloud_api::network_probe::{ProbeState, prober_port};
use ycloud_api::{NetworkProbe, NetworkProbeStatus};
use ycloud_compiler::{
    Event, Leaving, Object, ObjectKey, ObjectRef, Owner, Prober, is_chassis_probe,
    wanted_chassis_probe,
};
use ycloud_ovsdb::nb;

use crate::apply::nb_cfg;
use crate::mergepatch;
use crate::metrics::count;
use crate::objects::{Need, status_patch};
use crate::prober::Change;
use crate::state::State;
use crate::status;
use crate::status::network_probe::Lost;
use crate::write::{Action, Report};

/// How long a NetworkProbe rests after its status was written: that its agent reports at once is no reason to look twice.
const PROBE_REST: Duration = Duration::from_millis(100);

/// How long a prober's port stays that nobody needs, while its chassis has it bound.
const PORT_WAIT: Duration = Duration::from_secs(30);

/// By when what the end of a prober changed is in the Northbound database.
const WRITTEN: Duration = Duration::from_secs(1);

/// How long a prober that returns waits for its ovn-controller. TCP sends again after up to as long as it was cut off, and an
/// ovn-controller asks for its database only every `ovn-remote-probe-interval`, by default a minute (ovn-controller(8)). Others ask
/// meanwhile.
const RETURN_WAIT: Duration = Duration::from_secs(120);

/// A chassis whose prober's Lease had ended and holds again. Its ports were taken away and will be made anew, and until its
/// ovn-controller has heard of that, it would ask by flows of before, and find those dead who are well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returning {
    since: Instant,
    /// The `nb_cfg` that its ovn-controller has to reach, from [`WRITTEN`] on.
    nb_cfg: Option<i64>,
}

impl Returning {
    fn next_due(&self) -> Instant {
        match self.nb_cfg {
            None => self.since + WRITTEN,
            Some(_) => self.since + RETURN_WAIT,
        }
    }
}

impl State {
    /// The Lease of a prober reads so at `now`, which is `time` by this machine's clock.
    pub fn take_lease(&mut self, lease: &Lease, now: Instant, time: Timestamp) {
        let change = self.leases.see(lease, now, time);
        self.probers_changed(change, now);
    }

    /// The Lease of this name is gone.
    pub fn forget_lease(&mut self, name: &str) {
        let change = self.leases.forget(name);
        self.probers_changed(change, Instant::now());
    }

    /// It is `now`: Leases end, and ports that nobody needs.
    pub fn pass(&mut self, now: Instant) {
        let ended = self.leases.expire(now);
        self.probers_changed(ended, now);
        self.take_back(now);
        for (leaving, until) in &mut self.leaving {
            if until.is_some_and(|until| until <= now) {
                *until = None;
                self.rows.push(Owner::Vpc(leaving.vpc.clone()));
            }
        }
    }

    /// When [`Self::pass`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let leaving = self.leaving.values().copied().flatten();
        let returning = self.returning.values().map(Returning::next_due);
        let all = leaving.chain(returning).chain(self.leases.next_due());
        all.min()
    }

    fn probers_changed(&mut self, changes: impl IntoIterator<Item = Change>, now: Instant) {
        for change in changes {
            match change {
                Change::Begun(chassis) if self.ended_probers.remove(&chassis) => {
                    tracing::info!(
                        chassis,
                        "its Lease holds again; it asks once its ovn-controller has caught up"
                    );
                    let (since, nb_cfg) = (now, None);
                    self.returning.insert(chassis, Returning { since, nb_cfg });
                }
                Change::Begun(chassis) => self.begin(chassis),
                Change::Ended(chassis) => {
                    tracing::warn!(chassis, "does not ask NetworkProbes any more");
                    self.ended_probers.insert(chassis.clone());
                    self.returning.remove(&chassis);
                    self.take_in(Event::Delete(ObjectRef::Prober(chassis)));
                }
            }
        }
        self.metrics.probers.set(count(self.leases.living()));
    }

    fn begin(&mut self, chassis: String) {
        tracing::info!(chassis, "asks NetworkProbes");
        self.take_in(Event::Apply(Object::Prober(Prober { chassis })));
    }

    /// Those that return begin once their ovn-controllers have caught up, or late.
    fn take_back(&mut self, now: Instant) {
        let nb_cfg = nb_cfg(&self.observed);
        let mut back = Vec::new();
        for (chassis, returning) in &mut self.returning {
            if now >= returning.since + WRITTEN {
                returning.nb_cfg.get_or_insert(nb_cfg);
            }
            let target = returning.nb_cfg;
            let current = target.is_some_and(|target| self.tracker.has_reached(chassis, target));
            if current || now >= returning.since + RETURN_WAIT {
                back.push(chassis.clone());
            }
        }
        for chassis in back {
            self.returning.remove(&chassis);
            self.begin(chassis);
        }
    }

    /// Whether a chassis lives: its Node is Ready, or it has no Node and its agent's Lease holds.
    pub(crate) fn chassis_lives(&self, name: &str) -> bool {
        match self.snapshot.node(name) {
            Some(node) => node.ready,
            None => self.snapshot.is_prober(name),
        }
    }

    /// The write that a NetworkProbe needs next.
    pub(crate) fn probe_write(&mut self, key: &ObjectKey, now: &Time) -> Option<Need> {
        let wanted = wanted_chassis_probe(&self.snapshot, key);
        let Some(probe) = self.snapshot.probe(key) else {
            return wanted.map(|probe| Action::CreateProbe(Box::new(probe)).into());
        };
        if probe.metadata.deletion_timestamp.is_some() {
            return None;
        }
        if is_chassis_probe(key, probe) {
            let Some(wanted) = wanted else {
                let uid = probe.metadata.uid.clone();
                return Some(Action::DeleteProbe { uid }.into());
            };
            if let Some(action) = correction(probe, &wanted) {
                return Some(action.into());
            }
        }
        let assignment = self.snapshot.assignment(key)?;
        let former = probe.status.as_ref();
        let prober = former.and_then(|status| status.prober.as_deref());
        let lost = prober.and_then(|prober| self.lost(probe, prober));
        let status = status::network_probe::status(probe, assignment, lost, now);
        let report = refusal(probe, &status);
        status_patch(&probe.metadata, former, &status, PROBE_REST, report)
    }

    /// Why a prober can ask a probe no more, and what that says of its target; `None`: it can.
    fn lost(&self, probe: &NetworkProbe, prober: &str) -> Option<Lost> {
        if !self.snapshot.is_prober(prober) {
            let why = match self.leases.is_known(prober) {
                true => {
                    format!("prober {prober} has not been heard of for {PROBER_LEASE_SECONDS} s")
                }
                false => format!("prober {prober} has ended: it has no Lease any more"),
            };
            let state = ProbeState::Unknown;
            return Some(Lost { state, why });
        }
        let why = self.snapshot.dead_chassis(prober)?.to_owned();
        let target = &probe.spec.target;
        let ip: Option<IpAddr> = target.ip.parse().ok();
        let on = ip.and_then(|ip| self.snapshot.chassis_of(&target.vpc, ip));
        let state = match on == Some(prober) {
            true => ProbeState::Unhealthy,
            false => ProbeState::Unknown,
        };
        Some(Lost { state, why })
    }

    /// Notes which ports of the probe network of a Vpc stay although nobody needs them: those that a chassis has bound
    /// whose agent lives, until it lets go, for at most [`PORT_WAIT`]. An ovn-controller that sees interface and port end
    /// together may end with a failed assertion, see `State::port_ends_in`.
    pub(crate) fn linger(&mut self, owner: &Owner) {
        let Owner::Vpc(vpc) = owner else {
            return;
        };
        let (first, now) = (first_of(vpc), Instant::now());
        let within = self.leaving.range(first..);
        let within = within.take_while(|(leaving, _)| leaving.vpc == *vpc);
        let known: Vec<(Leaving, Option<Instant>)> =
            within.map(|(l, at)| (l.clone(), *at)).collect();
        let bound = self.bound_ports(vpc);
        let stays = |chassis: &str| {
            self.snapshot.is_prober(chassis)
                && !self.snapshot.is_prober_of(vpc, chassis)
                && self.snapshot.vpc(vpc).is_some()
                && bound.contains(&prober_port(vpc, chassis))
        };
        let (mut events, mut gone) = (Vec::new(), Vec::new());
        for (leaving, until) in &known {
            let stays = stays(&leaving.chassis);
            if until.is_none() || !stays {
                events.push(Event::Delete(ObjectRef::Leaving(leaving.clone())));
            }
            if !stays {
                // Else it keeps its entry for as long as the port is bound, so that it does not stay a second time.
                gone.push(leaving.clone());
            }
        }
        let prefix = prober_port(vpc, "");
        let chassis = bound.iter().filter_map(|port| port.strip_prefix(&prefix));
        let new: Vec<Leaving> = chassis
            .filter(|chassis| stays(chassis))
            .map(|chassis| Leaving {
                vpc: vpc.clone(),
                chassis: chassis.to_owned(),
            })
            .filter(|leaving| known.iter().all(|(known, _)| known != leaving))
            .collect();
        for leaving in gone {
            self.leaving.remove(&leaving);
        }
        for leaving in new {
            self.leaving.insert(leaving.clone(), Some(now + PORT_WAIT));
            events.push(Event::Apply(Object::Leaving(leaving)));
        }
        for event in events {
            // It concerns the rows of this Vpc alone, which are compiled next.
            self.snapshot.apply(event);
        }
    }

    /// Names of the ports of probers in a Vpc that OVN has bound.
    fn bound_ports(&self, vpc: &str) -> Vec<String> {
        let prefix = prober_port(vpc, "");
        let owner = Owner::Vpc(vpc.to_owned());
        let rows = self.index.rows_of(&owner);
        let ports = rows.filter(|(table, _)| *table == nb::LogicalSwitchPort::TABLE);
        let ports = ports.filter_map(|(table, uuid)| {
            let row = self.observed.row(table, uuid)?;
            let port = nb::LogicalSwitchPort::of(row);
            (port.up() == Some(true) && port.name().starts_with(&prefix))
                .then(|| port.name().to_owned())
        });
        ports.collect()
    }
}

/// Makes the spec of a chassis' NetworkProbe what it must be.
fn correction(probe: &NetworkProbe, wanted: &NetworkProbe) -> Option<Action> {
    // Serializing these types cannot fail: they are plain structs with string keys.
    let old = serde_json::to_value(&probe.spec).ok()?;
    let new = serde_json::to_value(&wanted.spec).ok()?;
    let patch = mergepatch::between(&old, &new)?;
    Some(Action::Patch {
        patch: json!({"spec": patch}),
        subresource: None,
        version: probe.metadata.resource_version.clone(),
    })
}

/// A warning, if the spec of a probe is refused for another reason than its status says. That nobody can ask is no fault of
/// the spec's, and concerns all probes at once.
fn refusal(probe: &NetworkProbe, new: &NetworkProbeStatus) -> Option<Report> {
    let verdict = |status: &NetworkProbeStatus| {
        let mut all = status.conditions.iter();
        let accepted = all.find(|c| c.type_ == ACCEPTED && c.status == "False")?;
        Some((accepted.reason.clone(), accepted.message.clone()))
    };
    let (reason, message) = verdict(new)?;
    let said = probe.status.as_ref().and_then(verdict);
    if reason == reason::NO_PROBER || said == Some((reason.clone(), message.clone())) {
        return None;
    }
    Some(Report {
        regarding: probe.object_ref(&()),
        warning: true,
        reason,
        action: "Assigning",
        message,
    })
}

/// Stands before all that leave a Vpc.
fn first_of(vpc: &str) -> Leaving {
    Leaving {
        vpc: vpc.to_owned(),
        chassis: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use ycloud_api::key::prober_lease;
    use ycloud_compiler::Settings;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_prober_that_returns_asks_once_its_ovn_controller_has_caught_up() {
        let metrics = Metrics::new(&mut Registry::default());
        let mut state = State::new(Settings::default(), metrics);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let renew = |state: &mut State, seconds: u64| {
            let time = Timestamp::from_second(1_700_000_000 + seconds as i64).unwrap();
            let lease = json!({
                "metadata": {"name": prober_lease("a")},
                "spec": {"holderIdentity": "a", "leaseDurationSeconds": 30, "renewTime": format!("{time:.6}")},
            });
            state.take_lease(&serde_json::from_value(lease).unwrap(), at(seconds), time);
        };
        renew(&mut state, 0);
        assert!(state.snapshot.is_prober("a"), "a new one");
        state.tracker.chassis("a", Some(-1));
        state.pass(at(30));
        assert!(!state.snapshot.is_prober("a"));

        renew(&mut state, 40);
        for seconds in [40, 41, 50] {
            state.pass(at(seconds));
            assert!(!state.snapshot.is_prober("a"), "behind, after {seconds} s");
        }
        state.tracker.chassis("a", Some(0));
        state.pass(at(51));
        assert!(state.snapshot.is_prober("a"));
        assert!(state.returning.is_empty() && state.ended_probers.is_empty());

        // It does not wait for ever for one that never says.
        state.tracker.chassis("a", None);
        state.pass(at(80));
        for seconds in (90..=210).step_by(20) {
            assert!(!state.snapshot.is_prober("a"), "{seconds}");
            renew(&mut state, seconds);
            state.pass(at(seconds));
        }
        assert!(state.snapshot.is_prober("a"));
    }
}
