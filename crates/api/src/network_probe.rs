//! `NetworkProbe`: one address that is asked again and again whether it serves, from inside its Vpc.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::BackendKind;
use crate::probe::HealthCheck;

/// One address that is asked again and again whether it serves, from inside its Vpc. yusurservice-controller makes one
/// for each backend of a YusurService with a health check; equal ones are shared. It may also be used alone.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io",
    version = "v1",
    kind = "NetworkProbe",
    plural = "networkprobes",
    shortname = "nprobe",
    namespaced,
    doc = "One address that is asked again and again whether it serves, from inside its Vpc.",
    status = "NetworkProbeStatus",
    derive = "PartialEq",
    selectable = ".status.prober",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".spec.target.kind"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.target.name"}"#,
    printcolumn = r#"{"name":"VPC","type":"string","jsonPath":".spec.target.vpc"}"#,
    printcolumn = r#"{"name":"IP","type":"string","jsonPath":".spec.target.ip"}"#,
    printcolumn = r#"{"name":"Port","type":"integer","jsonPath":".spec.target.port"}"#,
    printcolumn = r#"{"name":"Prober","type":"string","jsonPath":".status.prober"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.since"}"#,
    printcolumn = r#"{"name":"Error","type":"string","jsonPath":".status.lastError","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("has(self.target.port) || has(self.icmp) || (has(self.tcp) && has(self.tcp.port)) || (has(self.http) && has(self.http.port)) || (has(self.https) && has(self.https.port)) || (has(self.grpc) && has(self.grpc.port)) || (has(self.udp) && has(self.udp.port))").message("spec.target.port: required, except with icmp"))]
#[serde(rename_all = "camelCase")]
pub struct NetworkProbeSpec {
    /// What is asked.
    pub target: ProbeTarget,
    /// How, how often, and what counts.
    #[serde(flatten)]
    pub check: HealthCheck,
}

/// The address that a NetworkProbe asks.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTarget {
    /// Kind of the backend that has the address: Pod, VM, BM or VNicIP. For people only. Default: none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BackendKind>,
    /// Its name, up to 253 characters. For people only. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// The Vpc from inside which it is asked, 1 to 63 characters. It must permit the NetworkProbe's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub vpc: String,
    /// Its address, of either family: a usable one of a Subnet of the Vpc.
    #[x_kube(validation = Rule::new("isIP(self)").message("spec.target.ip: an address, for example 10.0.1.7 or fd00:1::7"))]
    #[schemars(length(max = 45))]
    pub ip: String,
    /// Port, 1 to 65535. Required, except with icmp or where the check names one; without effect there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// What the target's prober found.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkProbeStatus {
    /// Healthy, Unhealthy, or Unknown: not asked yet, or nobody can tell. Default: Unknown.
    #[serde(default)]
    pub state: ProbeState,
    /// Healthy or Unhealthy: the last state that rounds came to, if it is not `state`: while that is Unknown, or Unhealthy for
    /// no failure of the target's, as its chassis does not answer. Where it is Unhealthy, `successThreshold` successes are needed to
    /// be Healthy, as if it still were; where it is Healthy, one is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known: Option<ProbeState>,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The chassis whose ycloud-cni asks; chosen by ycloud-controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prober: Option<String>,
    /// The address that it asks from, of the target's family: of the system range, the same in each Vpc, never a tenant's.
    /// Written with `prober`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What was wrong the last time that something was, in words, up to 512 characters. Empty while Healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Microseconds from the first packet of a check to its verdict, at the last report of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_microseconds: Option<i64>,
    /// When the prober last wrote this: on each change, and about once an hour without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Time>,
    /// Accepted: the Vpc permits it, a Subnet has the address, and somebody asks; or the message says why not. What is
    /// wrong with the check itself stands in `lastError`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What is known of a target.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProbeState {
    /// It passes its checks.
    Healthy,
    /// It fails them.
    Unhealthy,
    /// Not asked yet, or nobody can tell.
    #[default]
    Unknown,
}

/// Prefix length of the probe network of IPv4: 256 × 256 addresses, of which each chassis has one, the same in each Vpc.
pub const PREFIX_LENGTH: u8 = 16;

/// Prefix length of the probe network of IPv6.
pub const IPV6_PREFIX_LENGTH: u8 = 64;

/// The router's address on the probe network of which `source` is: the network's first. What probers have as next hop.
pub fn gateway(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(ip) => Ipv4Addr::from_bits((ip.to_bits() & 0xffff_0000) | 1).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits((ip.to_bits() >> 64 << 64) | 1).into(),
    }
}

/// The MAC address of the chassis with the source address `source` on each probe network. It follows from the lower 16 bits,
/// which both families have in common.
pub fn source_mac(source: IpAddr) -> String {
    let [high, low] = match source {
        IpAddr::V4(ip) => [ip.octets()[2], ip.octets()[3]],
        IpAddr::V6(ip) => [ip.octets()[14], ip.octets()[15]],
    };
    format!("0e:00:00:00:{high:02x}:{low:02x}")
}

/// The name of the `Logical_Switch_Port` by which `chassis` probes inside `vpc`, and the `iface-id` of its OVS interface.
pub fn prober_port(vpc: &str, chassis: &str) -> String {
    format!("probe:{vpc}/{chassis}")
}

/// The name of the NetworkProbe in `ycloud-system` that asks whether `chassis` is there. A chassis' name is that of an object, so
/// that the two together are at most 253 characters long, unless it is longer than any host's.
pub fn chassis_probe(chassis: &str) -> String {
    format!("chassis-{chassis}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_a_chassis_have_one_mac_and_a_gateway_each() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(gateway(ip("100.68.1.7")), ip("100.68.0.1"));
        assert_eq!(gateway(ip("fd00:100:64:44::107")), ip("fd00:100:64:44::1"));
        assert_eq!(source_mac(ip("100.68.1.7")), "0e:00:00:00:01:07");
        assert_eq!(source_mac(ip("fd00:100:64:44::107")), "0e:00:00:00:01:07");
    }
}
