//! Backends that take no new connections and keep those they have: endpoints that terminate and still serve, where others are
//! ready. OVN reads nothing of it; the node agents end the connections of a backend that has left `vips`, unless it stands
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use ycloud_api::address::Family;

use super::backends::Backends;
use super::{at, ports};
use crate::snapshot::Slice;

/// Key of `Load_Balancer:options`: `<VIP>=<backend>`, sorted, a space between; each with its port, IPv6 addresses in
/// brackets. northd hands options on to the Southbound database as they are.
pub(super) const DRAINING: &str = "draining";

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

fn option(items: BTreeSet<String>) -> Option<(String, String)> {
    let items: Vec<String> = items.into_iter().collect();
    (!items.is_empty()).then(|| (DRAINING.to_owned(), items.join(" ")))
}
