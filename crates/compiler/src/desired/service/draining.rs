//! Backends that take no new connections and keep those they have: endpoints that terminate and still serve, where others are
//! ready, and what was a backend before and lives. OVN reads nothing of it; the node agents end the connections of a backend
//! that has left `vips`, unless it stands here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use ycloud_api::address::Family;
use ycloud_api::vnic::AttachmentKind;
use ycloud_ovsdb::{Atom, AtomMap, Datum, Row as Observed};

use super::backends::Backends;
use super::{at, ports};
use crate::owner::{ObjectKey, Owner};
use crate::row::Row;
use crate::snapshot::{Slice, Snapshot};
use crate::validate;

/// Key of `Load_Balancer:options`: `<VIP>=<backend>`, sorted, a space between; each with its port, IPv6 addresses in
/// brackets. northd hands options on to the Southbound database as they are.
pub(super) const DRAINING: &str = "draining";

/// How many backends of one load balancer keep their connections at most, over all its VIPs: 45 KB of text that each chassis
/// reads. Of more, the last in the order of their text are flushed.
const MAX_KEPT: usize = 1000;

/// Protocol, as `Load_Balancer:protocol` has it → VIP → backends, as `Load_Balancer:vips` has them.
#[derive(Debug, Default)]
pub(super) struct Draining(BTreeMap<&'static str, BTreeMap<String, BTreeSet<String>>>);

impl Draining {
    /// Of these slices, at these VIPs; each endpoint at the address by which it is reached.
    pub fn of<'a>(
        service: &Service,
        slices: impl Iterator<Item = &'a Slice> + Clone,
        vips: &[IpAddr],
        reached_at: impl Fn(&Slice, IpAddr) -> IpAddr,
    ) -> Self {
        let mut draining = Self::default();
        let mut endpoints = slices.clone().flat_map(|slice| &slice.endpoints);
        if endpoints.all(|endpoint| endpoint.ready) {
            return draining;
        }
        let backends = Backends::gather(slices, None, reached_at);
        for (protocol, port) in ports(service) {
            for vip in vips {
                let here = backends.draining(port, Family::of(*vip));
                if !here.is_empty() {
                    let of_protocol = draining.0.entry(protocol).or_default();
                    of_protocol.insert(at(*vip, port.port), here);
                }
            }
        }
        draining
    }

    /// The option of a load balancer with these VIPs: what drains there and is none of its backends.
    pub fn option(
        &self,
        protocol: &str,
        vips: &BTreeMap<String, String>,
    ) -> Option<(String, String)> {
        let of_protocol = self.0.get(protocol)?;
        let items = of_protocol.iter().flat_map(|(vip, draining)| {
            let backends = vips.get(vip);
            let taken: BTreeSet<&str> = backends.iter().flat_map(|b| b.split(',')).collect();
            let left = draining.iter().filter(move |b| !taken.contains(b.as_str()));
            let left = left.filter(move |_| backends.is_some());
            left.map(move |backend| format!("{vip}={backend}"))
        });
        option(items.collect())
    }
}

/// Adds to the desired rows of a Service the backends that the observed ones have and they have no more, and that live: so
/// these keep their TCP and SCTP connections. They stay until they are backends again, are gone, or their connections are
/// to end (`iaas.yusur.io/ended` of a slice). What an address no longer serves at all is not kept.
pub(crate) fn keep(
    snapshot: &Snapshot,
    key: &ObjectKey,
    rows: &mut [Row],
    observed: &ycloud_ovsdb::Snapshot,
) {
    let Some(service) = snapshot.service(key) else {
        return;
    };
    let ended: BTreeSet<IpAddr> = snapshot
        .slices(key)
        .flat_map(|s| &s.ended)
        .copied()
        .collect();
    let vpc = super::vpc(service);
    let lives = |backend: &str| {
        let backend: Option<SocketAddr> = backend.parse().ok();
        let ip = backend.map(|backend| backend.ip());
        ip.is_some_and(|ip| !ended.contains(&ip) && lives(snapshot, vpc, ip))
    };
    for row in rows.iter_mut().filter(|row| row.table == "Load_Balancer") {
        let protocol = row.columns.get("protocol").and_then(Datum::as_str);
        // An EIP was in the row of the cluster address once.
        let former = protocol.map(|protocol| Owner::Service(key.clone()).uuid(protocol));
        let rows_before = [Some(row.uuid), former].into_iter().flatten();
        let mut rows_before = rows_before.filter_map(|uuid| observed.row(row.table, uuid));
        let Some(before) = rows_before.next() else {
            continue;
        };
        let vips = row.columns.get("vips").and_then(Datum::as_map);
        let options = row.columns.get("options").and_then(Datum::as_map);
        let (Some(vips), Some(options)) = (vips, options) else {
            continue;
        };
        if protocol == Some("udp") || options.get_str("template").is_some() {
            continue;
        }
        let mut items: BTreeSet<String> = draining(options).map(item).collect();
        let now = vips.iter().filter_map(|(vip, backends)| {
            let backends = backends.as_str()?.split(',').collect::<BTreeSet<&str>>();
            Some((vip.as_str()?, backends))
        });
        let now: BTreeMap<&str, BTreeSet<&str>> = now.collect();
        let left = pairs(before).filter(|(vip, backend)| {
            let takes = now.get(vip);
            takes.is_some_and(|takes| !takes.contains(backend)) && lives(backend)
        });
        // A tenant can make any number of them, by one edit of ports after the other.
        let room = MAX_KEPT.saturating_sub(items.len());
        let left: BTreeSet<String> = left.map(item).collect();
        items.extend(left.into_iter().take(room));
        let Some((name, value)) = option(items) else {
            continue;
        };
        let options = options
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        let draining = (Atom::from(name), Atom::from(value));
        let options: AtomMap = options.chain([draining]).collect();
        row.columns.set("options", options);
    }
}

/// Whether what has this address in a Vpc is there. A node's own address says nothing of who listened there.
fn lives(snapshot: &Snapshot, vpc: &str, ip: IpAddr) -> bool {
    let pools = snapshot
        .subnets_of(vpc)
        .filter_map(|subnet| snapshot.pool(subnet));
    let mut holders = pools.flat_map(|pool| pool.holders(ip));
    holders.any(|key| {
        let vnic = snapshot.vnic(key);
        vnic.is_some_and(|vnic| {
            vnic.spec.attachment.kind != AttachmentKind::Node
                && matches!(validate::vnic::check(snapshot, key, vnic), Ok(Some(_)))
        })
    })
}

/// The addresses of backends that drain at a load balancer.
pub(crate) fn backends_that_drain(row: &Observed) -> impl Iterator<Item = IpAddr> {
    let options = row.get("options").and_then(Datum::as_map);
    let backends = options.into_iter().flat_map(draining);
    backends.filter_map(|(_, backend)| Some(backend.parse::<SocketAddr>().ok()?.ip()))
}

/// VIP and backend of all that a row has: those that take new connections, and those that drain.
fn pairs(row: &Observed) -> impl Iterator<Item = (&str, &str)> {
    let map = |column| row.get(column).and_then(Datum::as_map);
    let vips = map("vips").into_iter().flat_map(|vips| vips.as_slice());
    let vips = vips.filter_map(|(vip, backends)| Some((vip.as_str()?, backends.as_str()?)));
    let serving = vips.flat_map(|(vip, backends)| {
        let backends = backends.split(',').filter(|backend| !backend.is_empty());
        backends.map(move |backend| (vip, backend))
    });
    serving.chain(map("options").into_iter().flat_map(draining))
}

/// VIP and backend of those in option [`DRAINING`].
fn draining(options: &AtomMap) -> impl Iterator<Item = (&str, &str)> {
    let text = options.get_str(DRAINING).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|item| item.split_once('='))
}

fn item((vip, backend): (&str, &str)) -> String {
    format!("{vip}={backend}")
}

fn option(items: BTreeSet<String>) -> Option<(String, String)> {
    let items: Vec<String> = items.into_iter().collect();
    (!items.is_empty()).then(|| (DRAINING.to_owned(), items.join(" ")))
}
