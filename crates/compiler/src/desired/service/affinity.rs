//! `sessionAffinity` as a load balancer has it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;

/// `timeoutSeconds` of a Service that names none. Source: Kubernetes' API, `ClientIPConfig`.
pub(crate) const DEFAULT_TIMEOUT: i32 = 10_800;

/// Seconds, the longest idle time of a flow in OpenFlow. Kubernetes' API takes up to 86400.
const LONGEST_TIMEOUT: i32 = 65_535;

/// Whether, and for how long, connections of one client address go to one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// Each connection is balanced by itself.
    None,
    /// For as long as the set of backends stays: the hash of the client picks the backend. Nothing is remembered, so all
    /// chassis agree, and none loses it.
    Hash,
    /// Until there was no new connection for so many seconds, 1..=65535. Each chassis remembers its own clients.
    Timeout(i32),
}

impl Affinity {
    /// That of a Service. The default timeout, three hours, is taken for "long enough": for it the hash is the better way.
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.session_affinity.as_deref()) != Some("ClientIP") {
            return Self::None;
        }
        let config = spec.and_then(|spec| spec.session_affinity_config.as_ref());
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        match seconds.unwrap_or(DEFAULT_TIMEOUT) {
            DEFAULT_TIMEOUT => Self::Hash,
            seconds => Self::Timeout(seconds.clamp(1, LONGEST_TIMEOUT)),
        }
    }

    /// The same where no timeout can be had: load balancers with variables (ovn-controller does not parse their learning
    /// flows) and those of service gateways (of several, each would remember for itself).
    pub fn without_timeout(self) -> Self {
        match self {
            Self::Timeout(_) => Self::Hash,
            other => other,
        }
    }

    /// `Load_Balancer:selection_fields`, where there is no reason for others. For VIPs of IPv6 the client is its MAC
    /// address: `ip_src` is a field of IPv4 alone, so that every client would have the same hash, and `ipv6_src` is
    /// unknown to OVN 23.03. An IPv6 client is balanced on its own switch, where no router has changed that address yet.
    pub fn selection_fields(self, ipv6: bool) -> BTreeSet<&'static str> {
        match (self, ipv6) {
            (Self::Hash, false) => ["ip_src"].into(),
            (Self::Hash, true) => ["eth_src", "ip_src"].into(),
            (Self::None | Self::Timeout(_), _) => BTreeSet::new(),
        }
    }

    /// `Load_Balancer:options:affinity_timeout`, in seconds. The node agents' flows make it lose no connection.
    pub fn option(self) -> Option<(String, String)> {
        match self {
            Self::Timeout(seconds) => Some(("affinity_timeout".to_owned(), seconds.to_string())),
            Self::None | Self::Hash => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ClientIPConfig, ServiceSpec, SessionAffinityConfig};

    #[test]
    fn the_default_is_a_hash_and_every_other_timeout_is_kept_within_bounds() {
        use Affinity::{Hash, None as No, Timeout};
        let client = Some("ClientIP");
        let cases = [
            (None, Some(10), No),
            (Some("None"), Some(10), No),
            (client, None, Hash),
            (client, Some(10_800), Hash),
            (client, Some(10), Timeout(10)),
            (client, Some(0), Timeout(1)),
            (client, Some(86_400), Timeout(65_535)),
        ];
        for (affinity, seconds, wanted) in cases {
            let config = seconds.map(|seconds| SessionAffinityConfig {
                client_ip: Some(ClientIPConfig {
                    timeout_seconds: Some(seconds),
                }),
            });
            let spec = ServiceSpec {
                session_affinity: affinity.map(str::to_owned),
                session_affinity_config: config,
                ..ServiceSpec::default()
            };
            let service = Service {
                spec: Some(spec),
                ..Service::default()
            };
            assert_eq!(Affinity::of(&service), wanted, "{affinity:?} {seconds:?}");
        }
    }
}
