//! Whether ovn-controller keeps up with the Southbound database.

use std::time::Instant;

use tokio::sync::watch;
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Heartbeat, Supervisor};
use ycloud_ovsdb::{Client, Config, Remote, Snapshot};

use super::ct_flush::pairs;
use super::ovs::BRIDGE;

/// A client of Open vSwitch's database for [`number`]. A connection of its own: the number changes with each state of the
/// Northbound database, which is nothing to those who follow ports.
pub fn client(supervisor: &Supervisor, ovs: Remote) -> Client {
    let config = Config::new(vec![ovs], "Open_vSwitch");
    let (client, task) = Client::new(config.monitor("Bridge", &["name", "external_ids"]));
    supervisor.carry("client of Open vSwitch's database, for the bridge", task);
    client
}

/// `Bridge:external_ids:ovn-nb-cfg`, ovn-controller(8): the newest `nb_cfg` whose flows are all in the bridge.
pub fn number(ovs: &Snapshot) -> i64 {
    let mut rows = ovs.table("Bridge").iter();
    let bridge = rows.find(|row| row.get("name").and_then(|n| n.as_str()) == Some(BRIDGE));
    let number = bridge.and_then(|row| {
        let ids = row.get("external_ids")?.as_map()?;
        ids.get_str("ovn-nb-cfg")?.parse().ok()
    });
    number.unwrap_or_default()
}

/// The connection tracking zone of a logical port that is bound here: `Bridge:external_ids:ct-zone-<port>`, in which
/// ovn-controller keeps it over its restarts.
pub fn zone(ovs: &Snapshot, logical_port: &str) -> Option<u16> {
    let mut rows = ovs.table("Bridge").iter();
    let bridge = rows.find(|row| row.get("name").and_then(|n| n.as_str()) == Some(BRIDGE))?;
    let ids = bridge.get("external_ids")?.as_map()?;
    ids.get_str(&format!("ct-zone-{logical_port}"))?
        .parse()
        .ok()
}

/// Tells since when ovn-controller has brought nothing into the bridge though there is something to bring; `None`: there is
/// not. `southbound` has what [`pairs::monitored`] says, `bridge` is [`client`]'s.
pub fn watch(
    supervisor: &Supervisor,
    southbound: Client,
    bridge: Client,
) -> watch::Receiver<Option<Instant>> {
    let (sender, receiver) = watch::channel(None);
    let task = |heartbeat: Heartbeat| async move {
        let (mut changes, mut numbers) = (southbound.subscribe(), bridge.subscribe());
        let mut last = None;
        loop {
            let there = number(&bridge.snapshot());
            let wanted = pairs::number(&southbound.snapshot());
            let now = behind(there, wanted, &mut last, Instant::now());
            sender.send_if_modified(|since| std::mem::replace(since, now) != now);
            heartbeat.beat();
            tokio::select! {
                _ = changes.next() => {}
                _ = numbers.next() => {}
            }
        }
    };
    supervisor.spawn("progress of ovn-controller", LIMIT, task);
    receiver
}

/// Since when the bridge has this number though another is wanted. `last`: what was found the last time.
fn behind(
    there: i64,
    wanted: i64,
    last: &mut Option<(i64, Instant)>,
    now: Instant,
) -> Option<Instant> {
    if there >= wanted {
        *last = None;
        return None;
    }
    let since = last.filter(|(number, _)| *number == there);
    let since = since.map_or(now, |(_, since)| since);
    *last = Some((there, since));
    Some(since)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_behind_since_it_got_no_further() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut last = None;
        let steps = [
            (7, 7, None),
            (7, 8, Some(1)),
            (7, 9, Some(1)),
            (8, 9, Some(3)),
            (8, 10, Some(3)),
            (10, 10, None),
            (10, 11, Some(6)),
        ];
        for (second, (there, wanted, expected)) in (0..).zip(steps) {
            let since = behind(there, wanted, &mut last, at(second));
            assert_eq!(since, expected.map(at), "second {second}");
        }
    }
}
