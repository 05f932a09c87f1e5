//! Which chassis are asked whether they are there, and which of them are dead although their Leases hold.

use std::collections::{BTreeMap, BTreeSet};

use ycloud_api::network_probe::ProbeState;

use super::Snapshot;
use super::apply::Owners;
use crate::owner::ObjectKey;
use crate::prober::{Accusation, chassis_probe_key, dead, is_chassis_probe};

impl Snapshot {
    /// Why a chassis is believed to be dead although its Lease holds, in words; `None` if it is not.
    pub fn dead_chassis(&self, chassis: &str) -> Option<&str> {
        self.probing.dead.get(chassis).map(String::as_str)
    }

    /// The chassis that are asked whether they are there, with the lower 16 bits of their join addresses: those that ask
    /// themselves, if that are at least two.
    pub(crate) fn asked_chassis(&self) -> impl Iterator<Item = (&str, u16)> {
        let all = &self.probing.joined;
        let several = all.len() > 1;
        let all = all.iter().filter(move |_| several);
        all.map(|(chassis, offset)| (chassis.as_str(), *offset))
    }

    /// The NetworkProbes that must exist.
    pub(super) fn chassis_probes(&self) -> impl Iterator<Item = ObjectKey> {
        self.asked_chassis()
            .map(|(chassis, _)| chassis_probe_key(chassis))
    }

    /// Works out anew which chassis are dead; names the probes that it concerns.
    pub(super) fn recheck_dead(&mut self) -> Owners {
        let new = self.find_dead();
        let old = std::mem::replace(&mut self.probing.dead, new);
        let before: BTreeSet<&String> = old.keys().collect();
        let after: BTreeSet<&String> = self.probing.dead.keys().collect();
        let changed = before.symmetric_difference(&after);
        let changed: Vec<String> = changed.copied().cloned().collect();
        changed.iter().flat_map(|c| self.reassign(c)).collect()
    }

    /// The chassis that are dead although their Leases hold, and why they are believed to be.
    ///
    /// A chassis that never answered its NetworkProbe is not: its answerer may be new. That it did so once shows in the status.
    fn find_dead(&self) -> BTreeMap<String, String> {
        let at = &self.probing;
        let probes = at.joined.keys().filter_map(|chassis| {
            let key = chassis_probe_key(chassis);
            let probe = at.probes.get(&key)?;
            let status = probe.status.as_ref()?;
            let by = status.prober.as_deref()?;
            let said = status.state == ProbeState::Unhealthy
                && status.round_trip_microseconds.is_some()
                && is_chassis_probe(&key, probe);
            let accusation = Accusation { of: chassis, by };
            said.then_some((accusation, status.last_error.as_deref()))
        });
        let probes: Vec<(Accusation<'_>, Option<&str>)> = probes.collect();
        let accusations: Vec<Accusation<'_>> = probes.iter().map(|(said, _)| *said).collect();
        let dead = dead(&accusations, at.joined.len());
        let probes = probes.iter().filter(|(said, _)| dead.contains(said.of));
        let words = probes.map(|(said, error)| {
            let words = format!(
                "chassis {} does not answer (NetworkProbe {}: {})",
                said.of,
                chassis_probe_key(said.of),
                error.unwrap_or("no error is named")
            );
            (said.of.to_owned(), words)
        });
        words.collect()
    }
}
