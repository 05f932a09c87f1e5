//! Which chassis asks a NetworkProbe: the one on which its target is, if that chassis can ask, or else one of all that can,
//! by rendezvous hashing: when a chassis comes or goes, only the probes move that it gets or had.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use ycloud_api::address::Family;

use crate::owner::ObjectKey;
use crate::snapshot::Snapshot;

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
    let near = snapshot.chassis_of(vpc, ip);
    let near = near.and_then(|chassis| Some((chassis, snapshot.usable_prober(chassis)?)));
    let any = || {
        let all = snapshot.usable_probers();
        all.max_by_key(|(chassis, _)| (weight(probe, chassis), *chassis))
    };
    let (chassis, offset) = near.or_else(any)?;
    let settings = snapshot.settings();
    Some(Assignment {
        prober: chassis.to_owned(),
        source: settings.probe_source(Family::of(ip), offset)?,
    })
}

/// Whether `chassis` comes before `other` where the target's own chassis cannot ask.
pub(crate) fn outweighs(probe: &ObjectKey, chassis: &str, other: &str) -> bool {
    (weight(probe, chassis), chassis) > (weight(probe, other), other)
}

/// Rendezvous hashing: the chassis of the highest weight is chosen. The first eight bytes of SHA-256 over probe and chassis.
fn weight(probe: &ObjectKey, chassis: &str) -> u64 {
    let mut hash = Sha256::new();
    for part in [probe.namespace.as_str(), probe.name.as_str(), chassis] {
        hash.update(part.as_bytes());
        // No name has it, so that no two triples are one text.
        hash.update([0]);
    }
    let hash = hash.finalize();
    let first = hash.iter().take(8);
    first.fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chassis_gets_its_share_and_a_new_one_takes_from_all() {
        let probes: Vec<ObjectKey> = (0..900)
            .map(|n| ObjectKey::new("ns", format!("p{n}")))
            .collect();
        let chosen = |probe: &ObjectKey, all: &[&'static str]| {
            let all = all.iter().copied();
            all.max_by_key(|chassis| (weight(probe, chassis), *chassis))
        };
        let mut moved = 0;
        let mut shares = std::collections::BTreeMap::new();
        for probe in &probes {
            let before = chosen(probe, &["a", "b", "c"]).unwrap();
            let after = chosen(probe, &["a", "b", "c", "d"]).unwrap();
            assert!(after == before || after == "d");
            assert_eq!(after == "d", outweighs(probe, "d", before));
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
