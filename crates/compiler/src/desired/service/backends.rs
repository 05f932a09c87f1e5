//! The endpoints of a Service as a load balancer has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::ServicePort;
use ycloud_api::address::Family;

use crate::snapshot::{Endpoint, Slice};

/// Endpoints by port name and protocol. One name may stand for different ports of different Pods: those are in
/// different slices.
#[derive(Default)]
pub(super) struct Backends<'a>(BTreeMap<(&'a str, &'a str), Candidates>);

#[derive(Default)]
struct Candidates {
    ready: BTreeSet<(IpAddr, u16)>,
    draining: BTreeSet<(IpAddr, u16)>,
}

impl<'a> Backends<'a> {
    /// The endpoints of these slices, each at the address by which it is reached; only those on `node`, if that is given.
    pub(super) fn gather(
        slices: impl Iterator<Item = &'a Slice>,
        node: Option<&str>,
        reached_at: impl Fn(&Slice, IpAddr) -> IpAddr,
    ) -> Self {
        let mut backends = Self::default();
        for slice in slices {
            for port in &slice.ports {
                let key = (port.name.as_str(), port.protocol.as_str());
                let candidates = backends.0.entry(key).or_default();
                let here =
                    |endpoint: &&Endpoint| node.is_none() || endpoint.node.as_deref() == node;
                for endpoint in slice.endpoints.iter().filter(here) {
                    let of = if endpoint.ready {
                        &mut candidates.ready
                    } else {
                        &mut candidates.draining
                    };
                    of.insert((reached_at(slice, endpoint.ip), port.port));
                }
            }
        }
        backends
    }

    /// `Load_Balancer:vips` value, for VIPs of a family: the ready endpoints of that family; if there are none, those
    /// that terminate and still serve, so that the last Pods of a roll-out keep answering (KEP-1669).
    pub(super) fn text(&self, port: &ServicePort, family: Family) -> String {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let name = port.name.as_deref().unwrap_or_default();
        let Some(candidates) = self.0.get(&(name, protocol)) else {
            return String::new();
        };
        let ready = text(&candidates.ready, family);
        match ready.is_empty() {
            true => text(&candidates.draining, family),
            false => ready,
        }
    }

    /// Those of a port and a family that terminate and still serve, as `Load_Balancer:vips` has them.
    pub(super) fn draining(&self, port: &ServicePort, family: Family) -> BTreeSet<String> {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let name = port.name.as_deref().unwrap_or_default();
        let candidates = self.0.get(&(name, protocol)).into_iter();
        let draining = candidates.flat_map(|candidates| &candidates.draining);
        let draining = draining.filter(|(ip, _)| Family::of(*ip) == family);
        draining
            .map(|(ip, port)| SocketAddr::new(*ip, *port).to_string())
            .collect()
    }
}

/// Those of a family, as `Load_Balancer:vips` has them.
fn text(endpoints: &BTreeSet<(IpAddr, u16)>, family: Family) -> String {
    let mut text = String::with_capacity(endpoints.len() * 22);
    for (ip, port) in endpoints.iter().filter(|(ip, _)| Family::of(*ip) == family) {
        let separator = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail. A SocketAddr has brackets around an IPv6 address.
        let _ = write!(text, "{separator}{}", SocketAddr::new(*ip, *port));
    }
    text
}
