//! The endpoints of a Service as a load balancer has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::ServicePort;

use crate::snapshot::{Endpoint, Slice};

/// Endpoints by port name and protocol. One name may stand for different ports of different Pods: those are in
/// different slices.
#[derive(Default)]
pub(super) struct Backends<'a>(BTreeMap<(&'a str, &'a str), Candidates>);

#[derive(Default)]
struct Candidates {
    ready: BTreeSet<(Ipv4Addr, u16)>,
    draining: BTreeSet<(Ipv4Addr, u16)>,
}

impl<'a> Backends<'a> {
    /// The endpoints of these slices, each at the address by which it is reached; only those on `node`, if that is given.
    pub(super) fn gather(
        slices: impl Iterator<Item = &'a Slice>,
        node: Option<&str>,
        reached_at: impl Fn(&Slice, Ipv4Addr) -> Ipv4Addr,
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

    /// `Load_Balancer:vips` value: the ready endpoints; if there are none, those that terminate and still serve, so
    /// that the last Pods of a roll-out keep answering (KEP-1669).
    pub(super) fn text(&self, port: &ServicePort) -> String {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let name = port.name.as_deref().unwrap_or_default();
        let Some(candidates) = self.0.get(&(name, protocol)) else {
            return String::new();
        };
        let chosen = if candidates.ready.is_empty() {
            &candidates.draining
        } else {
            &candidates.ready
        };
        let mut text = String::with_capacity(chosen.len() * 22);
        for (ip, port) in chosen {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{ip}:{port}");
        }
        text
    }
}
