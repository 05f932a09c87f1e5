//! Which chassis asks a NetworkProbe: the one on which its target is, if that chassis can ask, or else one of all that can,
//! by rendezvous hashing: when a chassis comes or goes, only the probes move that it gets or had. For a target on a chassis that
//! cannot ask, those are preferred that ask something of the Vpc on themselves: they have a port in it, and every chassis knows
//! the way back to that, also one that was cut off and has not heard of anything new yet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::address::Family;
use ycloud_api::network_probe::{ProbeTarget, chassis_probe};
use ycloud_api::probe::{HealthCheck, IcmpCheck};
use ycloud_api::{NetworkProbe, NetworkProbeSpec, key};

use crate::owner::ObjectKey;
use crate::snapshot::Snapshot;

/// Fewest chassis that can be too many to die at once.
const MANY: usize = 3;

/// Who asks a NetworkProbe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Name of the chassis: `status.prober`.
    pub prober: String,
    /// The address that it asks from, of the target's family: `status.source`.
    pub source: IpAddr,
}

/// Who asks the address `ip` of `vpc`; `None` if no chassis can ask: none has a Lease that holds and a join address.
///
/// From the target's own chassis the underlay has no part in the answer: a tunnel that a third machine cannot use calls nobody
/// unhealthy.
pub(crate) fn choose(
    snapshot: &Snapshot,
    probe: &ObjectKey,
    vpc: &str,
    ip: IpAddr,
) -> Option<Assignment> {
    let on = snapshot.chassis_of(vpc, ip);
    let near = on.and_then(|chassis| Some((chassis, snapshot.usable_prober(chassis)?)));
    let any = || {
        let (all, seed) = (snapshot.usable_probers(), Seed::of(probe));
        all.max_by_key(|(chassis, _)| {
            let at_home = on.is_some() && snapshot.is_at_home(vpc, chassis);
            (at_home, seed.weight(chassis), *chassis)
        })
    };
    let (chassis, offset) = near.or_else(any)?;
    let settings = snapshot.settings();
    Some(Assignment {
        prober: chassis.to_owned(),
        source: settings.probe_source(Family::of(ip), offset)?,
    })
}

/// Who asks whether `chassis` is there: another one; `None` if there is none.
pub(crate) fn choose_other(
    snapshot: &Snapshot,
    probe: &ObjectKey,
    chassis: &str,
) -> Option<Assignment> {
    let others = snapshot
        .usable_probers()
        .filter(|(other, _)| *other != chassis);
    let seed = Seed::of(probe);
    let (prober, offset) = others.max_by_key(|(other, _)| (seed.weight(other), *other))?;
    let settings = snapshot.settings();
    Some(Assignment {
        prober: prober.to_owned(),
        source: settings.probe_source(Family::Ipv4, offset)?,
    })
}

/// The key of the NetworkProbe that asks whether a chassis is there.
pub(crate) fn chassis_probe_key(chassis: &str) -> ObjectKey {
    ObjectKey::new(key::SYSTEM_NAMESPACE, chassis_probe(chassis))
}

/// Whether a NetworkProbe of this key asks for a chassis, and not for a tenant's address: it is ycloud's own. Its name alone
/// says nothing.
pub fn is_chassis_probe(key: &ObjectKey, probe: &NetworkProbe) -> bool {
    let labels = probe.metadata.labels.as_ref();
    key.namespace == key::SYSTEM_NAMESPACE
        && labels.is_some_and(|labels| labels.contains_key(key::CHASSIS_PROBE))
}

/// The NetworkProbe of this key, if a chassis has to be asked by it.
///
/// A chassis that is cut off is called unhealthy within 3 s (two periods and a timeout), which leaves a second of what each
/// backend there is promised.
pub fn wanted_chassis_probe(snapshot: &Snapshot, key: &ObjectKey) -> Option<NetworkProbe> {
    let chassis = key.name.strip_prefix(&chassis_probe(""))?;
    if key.namespace != key::SYSTEM_NAMESPACE || key.name.len() > 253 {
        return None;
    }
    let (_, offset) = snapshot
        .asked_chassis()
        .find(|(name, _)| *name == chassis)?;
    let ip = snapshot.settings().layout()?.chassis(offset);
    Some(NetworkProbe {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            labels: Some(
                [(
                    key::CHASSIS_PROBE.to_owned(),
                    "ycloud-controller".to_owned(),
                )]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: NetworkProbeSpec {
            target: ProbeTarget {
                name: Some(chassis.to_owned()),
                vpc: key::DEFAULT_VPC.to_owned(),
                ip: ip.to_string(),
                ..ProbeTarget::default()
            },
            check: HealthCheck {
                icmp: Some(IcmpCheck::default()),
                period_seconds: Some(1),
                timeout_seconds: Some(1),
                // Not three: its backends are to be back 4 s after it, and wait a second more for a success from there.
                success_threshold: Some(2),
                failure_threshold: Some(2),
                ..HealthCheck::default()
            },
        },
        status: None,
    })
}

/// That a chassis does not answer, as another one says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Accusation<'a> {
    /// The chassis that does not answer.
    pub of: &'a str,
    /// The prober that says so.
    pub by: &'a str,
}

/// Which chassis are dead. `chassis` is how many are asked.
///
/// * Who is accused accuses nobody: a chassis that lost its tunnels finds all others silent, and they find it so. Of two that
///   accuse each other neither is dead: which of them it is, nobody can tell.
/// * If more than half of the chassis, and at least three, are said to be dead by one prober alone, it is rather that prober
///   that is ill: nobody is dead. Two that are well and say so independently are believed, as a rack may lose its power.
///
/// Who is not believed is not lost: the Lease of a dead prober ends, and each backend is asked for itself.
pub(crate) fn dead<'a>(accusations: &[Accusation<'a>], chassis: usize) -> BTreeSet<&'a str> {
    let accused: BTreeSet<&str> = accusations.iter().map(|said| said.of).collect();
    let heard = || accusations.iter().filter(|said| !accused.contains(said.by));
    let dead: BTreeSet<&str> = heard().map(|said| said.of).collect();
    let witnesses: BTreeSet<&str> = heard().map(|said| said.by).collect();
    let most = dead.len() >= MANY && dead.len() * 2 > chassis;
    match most && witnesses.len() < 2 {
        true => BTreeSet::new(),
        false => dead,
    }
}

/// A probe's part of its weights, which is the same for every chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    /// That of a probe.
    pub(crate) fn of(probe: &ObjectKey) -> Self {
        // No name has a zero byte, so that no two keys are one text.
        let text = [probe.namespace.as_bytes(), &[0], probe.name.as_bytes()];
        Self(fnv(text.into_iter().flatten()))
    }

    /// Rendezvous hashing: the chassis of the highest weight is chosen. It is worked out for every probe when a chassis begins
    /// to ask, so it is a cheap one: nothing depends on it but who asks.
    pub(crate) fn weight(self, chassis: &str) -> u64 {
        mixed(self.0 ^ mixed(fnv(chassis.as_bytes())))
    }
}

/// FNV-1a of 64 bits.
fn fnv<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    let hashed = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, hashed)
}

/// The end of MurmurHash3: every bit of what goes in changes half of those that come out.
fn mixed(mut hash: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_dead() {
        let cases: [(&str, &[&str], usize, &[&str]); 8] = [
            ("nobody is accused", &[], 5, &[]),
            ("one of many", &["b a"], 5, &["b"]),
            ("of two, the one that says nothing", &["b a"], 2, &["b"]),
            ("each the other", &["a b", "b a"], 2, &[]),
            (
                "one that lost its tunnels accuses, and is accused",
                &["b a", "a c"],
                5,
                &["a"],
            ),
            ("most, by one", &["b a", "c a", "d a"], 5, &[]),
            ("half, by one", &["b a", "c a", "d a"], 6, &["b", "c", "d"]),
            ("most, by two", &["b a", "c a", "d e"], 5, &["b", "c", "d"]),
        ];
        for (name, said, chassis, expected) in cases {
            let said = said.iter().map(|said| {
                let (of, by) = said.split_once(' ').unwrap();
                Accusation { of, by }
            });
            let said: Vec<_> = said.collect();
            let found: Vec<&str> = dead(&said, chassis).into_iter().collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn every_chassis_gets_its_share_and_a_new_one_takes_from_all() {
        let probes: Vec<ObjectKey> = (0..900)
            .map(|n| ObjectKey::new("ns", format!("p{n}")))
            .collect();
        let chosen = |probe: &ObjectKey, all: &[&'static str]| {
            let all = all.iter().copied();
            all.max_by_key(|chassis| (Seed::of(probe).weight(chassis), *chassis))
        };
        let mut moved = 0;
        let mut shares = std::collections::BTreeMap::new();
        for probe in &probes {
            let before = chosen(probe, &["a", "b", "c"]).unwrap();
            let after = chosen(probe, &["a", "b", "c", "d"]).unwrap();
            assert!(after == before || after == "d");
            let seed = Seed::of(probe);
            assert_eq!(after == "d", seed.weight("d") > seed.weight(before));
            moved += u32::from(after == "d");
            *shares.entry(before).or_insert(0) += 1;
        }
        assert!((150..300).contains(&moved), "{moved}");
        assert!(
            shares.values().all(|n| (240..360).contains(n)),
            "{shares:?}"
        );
    }
}
