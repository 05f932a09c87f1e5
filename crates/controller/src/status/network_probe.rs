//! The part of a `NetworkProbe`'s status that says who asks. The rest is the prober's to write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::condition::{self, ACCEPTED, Verdict, reason};
use ycloud_api::network_probe::ProbeState;
use ycloud_api::{NetworkProbe, NetworkProbeStatus};
use ycloud_compiler::{Assignment, Rejection};

/// What became of a probe whose prober cannot ask any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Unknown; Unhealthy if the target is on the prober's own chassis, which is dead.
    pub state: ProbeState,
    /// In words.
    pub why: String,
}

/// The status of a probe. `lost`: why its prober, as the status names it, cannot ask any more; `None` if it can, or none is
/// named.
///
/// A probe that another chassis takes over keeps its state while the former one could still say what it is; else nobody
/// knows it until the new one has asked, but that a target on a dead chassis is Unhealthy.
pub fn status(
    probe: &NetworkProbe,
    assignment: &Result<Assignment, Rejection>,
    lost: Option<Lost>,
    now: &Time,
) -> NetworkProbeStatus {
    let mut status = probe.status.clone().unwrap_or_default();
    let (verdict, prober, source, lost) = match assignment {
        Ok(assignment) => (
            Verdict::yes(
                reason::ACCEPTED,
                format!("chassis {} asks", assignment.prober),
            ),
            Some(assignment.prober.clone()),
            Some(assignment.source.to_string()),
            lost.filter(|_| status.prober.as_ref() != Some(&assignment.prober)),
        ),
        Err(rejection) => (
            Verdict::no(rejection.reason, &rejection.message),
            None,
            None,
            Some(lost.unwrap_or_else(|| Lost {
                state: ProbeState::Unknown,
                why: rejection.message.clone(),
            })),
        ),
    };
    let asked = status.prober.is_some();
    status.prober = prober;
    status.source = source;
    // Without a prober nobody overwrites these, so they are written when it goes.
    if let Some(lost) = lost
        && (asked || status.state != ProbeState::Unknown || status.last_error.is_none())
    {
        if status.state != lost.state || status.since.is_none() {
            status.since = Some(now.clone());
        }
        if status.state != ProbeState::Unknown {
            status.last_known.get_or_insert(status.state);
        }
        status.state = lost.state;
        status.last_known = status.last_known.filter(|last| *last != lost.state);
        status.last_error = Some(lost.why.chars().take(512).collect());
    }
    if status.since.is_none() {
        status.since = Some(now.clone());
    }
    let generation = probe.metadata.generation;
    condition::set(&mut status.conditions, ACCEPTED, &verdict, generation, now);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn by(prober: &str) -> Result<Assignment, Rejection> {
        Ok(Assignment {
            prober: prober.to_owned(),
            source: "100.68.0.2".parse().unwrap(),
        })
    }

    fn probe(status: NetworkProbeStatus) -> NetworkProbe {
        let yaml = "{metadata: {name: p}, spec: {target: {vpc: v1, ip: 10.0.1.5, port: 80}}}";
        let mut probe: NetworkProbe = serde_yaml::from_str(yaml).unwrap();
        probe.status = Some(status);
        probe
    }

    fn healthy(prober: &str) -> NetworkProbeStatus {
        let new = probe(NetworkProbeStatus::default());
        let mut healthy = status(&new, &by(prober), None, &at(1));
        assert_eq!(healthy.state, ProbeState::Unknown);
        assert!(condition::is_true(&healthy.conditions, ACCEPTED));
        healthy.state = ProbeState::Healthy;
        healthy.round_trip_microseconds = Some(700);
        healthy
    }

    #[test]
    fn what_the_prober_wrote_stays() {
        let written = healthy("a");
        assert_eq!(
            status(&probe(written.clone()), &by("a"), None, &at(9)),
            written
        );
        // It moves with its VNic.
        let moved = status(&probe(written.clone()), &by("b"), None, &at(9));
        assert_eq!(moved.prober.as_deref(), Some("b"));
        assert_eq!((moved.state, moved.since), (written.state, written.since));
    }

    #[test]
    fn nobody_knows_the_state_once_its_prober_is_lost() {
        let why = || Some("prober a has not been heard of for 30 s".to_owned());
        let lost = || {
            let state = ProbeState::Unknown;
            why().map(|why| Lost { state, why })
        };
        let unknown = status(&probe(healthy("a")), &by("b"), lost(), &at(9));
        assert_eq!(
            (unknown.state, unknown.since.clone()),
            (ProbeState::Unknown, Some(at(9)))
        );
        assert_eq!(unknown.last_error, why());
        assert_eq!(unknown.last_known, Some(ProbeState::Healthy));
        assert_eq!(unknown.round_trip_microseconds, Some(700));
        let again = status(&probe(unknown.clone()), &by("b"), None, &at(11));
        assert_eq!(again, unknown, "once");
    }

    #[test]
    fn what_is_on_a_dead_chassis_is_unhealthy_from_then_on() {
        let lost = || {
            Some(Lost {
                state: ProbeState::Unhealthy,
                why: "chassis a does not answer".to_owned(),
            })
        };
        let dead = status(&probe(healthy("a")), &by("b"), lost(), &at(9));
        assert_eq!(
            (dead.state, dead.since.clone(), dead.prober.as_deref()),
            (ProbeState::Unhealthy, Some(at(9)), Some("b"))
        );
        assert_eq!(
            dead.last_known,
            Some(ProbeState::Healthy),
            "it failed in no round"
        );
        assert_eq!(
            status(&probe(dead.clone()), &by("b"), None, &at(11)),
            dead,
            "once"
        );
        // It comes back, and asks from there on.
        let back = status(&probe(dead.clone()), &by("a"), None, &at(60));
        assert_eq!((back.state, &back.since), (dead.state, &dead.since));
        assert_eq!(back.prober.as_deref(), Some("a"));
        assert_eq!(back.last_known, dead.last_known);
        // What was Unhealthy already, whether anybody can tell or not.
        let mut ill = healthy("a");
        ill.state = ProbeState::Unhealthy;
        let mut unknown = ill.clone();
        (unknown.state, unknown.last_known) = (ProbeState::Unknown, Some(ProbeState::Unhealthy));
        let mut moving = healthy("a");
        (moving.state, moving.last_known) = (ProbeState::Unknown, Some(ProbeState::Healthy));
        let fresh = NetworkProbeStatus {
            prober: Some("a".to_owned()),
            ..NetworkProbeStatus::default()
        };
        for (before, expected) in [
            (ill, None),
            (unknown, None),
            (fresh, None),
            (moving, Some(ProbeState::Healthy)),
        ] {
            let dead = status(&probe(before), &by("b"), lost(), &at(9));
            let states = (dead.state, dead.last_known);
            assert_eq!(states, (ProbeState::Unhealthy, expected));
        }
        // The second prober is lost too.
        let lost = Lost {
            state: ProbeState::Unknown,
            why: "prober b has ended".to_owned(),
        };
        let unknown = status(&probe(dead), &by("c"), Some(lost), &at(12));
        let states = (unknown.state, unknown.last_known);
        assert_eq!(states, (ProbeState::Unknown, Some(ProbeState::Healthy)));
    }

    #[test]
    fn a_probe_that_nobody_asks_says_so_once() {
        let none = Err(Rejection::new(reason::NO_PROBER, "nobody"));
        let lost = Some(Lost {
            state: ProbeState::Unknown,
            why: "prober a is gone".to_owned(),
        });
        let unknown = status(&probe(healthy("a")), &none, lost, &at(9));
        assert_eq!(
            (unknown.prober.clone(), unknown.source.clone()),
            (None, None)
        );
        assert_eq!(unknown.last_error.as_deref(), Some("prober a is gone"));
        assert!(!condition::is_true(&unknown.conditions, ACCEPTED));
        let again = status(&probe(unknown.clone()), &none, None, &at(11));
        assert_eq!(again, unknown);
        let fresh = probe(NetworkProbeStatus::default());
        let fresh = status(&fresh, &none, None, &at(9));
        assert_eq!(fresh.last_error.as_deref(), Some("nobody"));
    }
}
