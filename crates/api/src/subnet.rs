//! `Subnet`: an address range of a Vpc, one `Logical_Switch`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// An address range of a Vpc: one logical switch, reached through the Vpc's router.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[kube(
    group = "iaas.yusur.io", version = "v1", kind = "Subnet", plural = "subnets", shortname = "sn",
    doc = "An address range of a Vpc: one logical switch, reached through the Vpc's router.",
    status = "SubnetStatus", derive = "PartialEq", derive = "Default",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters; OVN and labels carry it"),
    printcolumn = r#"{"name":"VPC","type":"string","jsonPath":".spec.vpc"}"#,
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"IPv6-CIDR","type":"string","jsonPath":".spec.ipv6.cidr"}"#,
    printcolumn = r#"{"name":"Gateway","type":"string","jsonPath":".status.gateway"}"#,
    printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.addresses.used"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.addresses.free"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("has(self.cidr) || has(self.ipv6)").message("spec: set cidr (IPv4), ipv6.cidr, or both"))]
#[x_kube(validation = Rule::new("!has(self.gateway) || has(self.cidr)").message("spec.gateway: needs spec.cidr; the IPv6 gateway is spec.ipv6.gateway"))]
#[x_kube(validation = Rule::new("!has(self.gateway) || !has(self.cidr) || !isIP(self.gateway) || !isCIDR(self.cidr) || (cidr(self.cidr).containsIP(self.gateway) && !self.cidr.startsWith(self.gateway + '/'))").message("spec.gateway: outside spec.cidr, or its network address; take an address inside, for example its first"))]
#[serde(rename_all = "camelCase")]
pub struct SubnetSpec {
    /// Name of the Vpc, 1 to 63 characters. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.vpc is immutable; make a new Subnet"))]
    #[schemars(length(min = 1, max = 63))]
    pub vpc: String,
    /// IPv4 range in CIDR notation, prefix length 8 to 30, for example 10.0.1.0/24. Default: none, the Subnet is IPv6
    /// only. It may grow or shrink as long as every address in use stays inside and the gateway stays the same. Never
    /// overlaps another Subnet of the Vpc, the service range, a system range, an EipGateway's range or the link to its
    /// upstream router, or addresses of nodes or the API server. A Subnet of the default Vpc and one of another Vpc
    /// never overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self) == cidr(self).masked() && cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 30").message("spec.cidr: an IPv4 network such as 10.0.1.0/24, prefix length 8 to 30, no host bits set"))]
    #[x_kube(validation = Rule::new("!isCIDR(self) || ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4'].all(r, !cidr(r).containsCIDR(self) && !cidr(self).containsCIDR(r))").message("spec.cidr: hosts cannot have addresses of 0.0.0.0/8, loopback, link-local, multicast or reserved ranges; choose a private range such as 10.0.1.0/24"))]
    #[schemars(length(max = 18))]
    pub cidr: Option<String>,
    /// The router's IPv4 address on this subnet. It cannot change while addresses are in use. Default: the first usable
    /// address of `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 4").message("spec.gateway: an IPv4 address inside spec.cidr"))]
    #[schemars(length(max = 15))]
    pub gateway: Option<String>,
    /// The IPv6 side. May be added while the Subnet is in use, and taken away once nobody holds an IPv6 address of it.
    /// Default: none, the Subnet is IPv4 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<SubnetIpv6>,
    /// Addresses never given out, of either family: single ones (10.0.1.9) or inclusive ranges
    /// (10.0.1.200-10.0.1.254); at most 256. Default: none.
    #[serde(default, rename = "excludeIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::ranges")]
    pub exclude_ips: Vec<String>,
    /// Namespaces whose Pods land here unless a Pod's annotation says otherwise, and which may use the Vpc. Of two
    /// Subnets that name a namespace, its Pods land in the older one, even if that was never accepted. Each of them
    /// permits it its own Vpc. At most 1024. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::namespaces")]
    pub namespaces: Vec<String>,
}

impl SubnetSpec {
    /// Its ranges, IPv4 first.
    pub fn cidrs(&self) -> impl Iterator<Item = &str> {
        let ipv6 = self.ipv6.as_ref().map(|ipv6| ipv6.cidr.as_str());
        self.cidr.as_deref().into_iter().chain(ipv6)
    }
}

/// The IPv6 side of a Subnet.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!has(self.gateway) || !isIP(self.gateway) || !isCIDR(self.cidr) || (cidr(self.cidr).containsIP(self.gateway) && !(ip(self.gateway) == cidr(self.cidr).ip()))").message("spec.ipv6.gateway: outside spec.ipv6.cidr, or its first address, which every router answers for; take the next one, for example"))]
#[serde(rename_all = "camelCase")]
pub struct SubnetIpv6 {
    /// IPv6 range in CIDR notation, prefix length 64 to 126, for example fd00:10:0:1::/64; not link-local or multicast.
    /// It may grow or shrink as `spec.cidr` may, and overlaps nothing that `spec.cidr` may not overlap.
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self).ip().family() == 6 && cidr(self) == cidr(self).masked() && cidr(self).ip().isGlobalUnicast() && cidr(self).prefixLength() >= 64 && cidr(self).prefixLength() <= 126").message("spec.ipv6.cidr: an IPv6 network such as fd00:10:0:1::/64, prefix length 64 to 126, no host bits set, not link-local or multicast"))]
    #[schemars(length(max = 43))]
    pub cidr: String,
    /// The router's IPv6 address on this subnet. It cannot change while addresses are in use. Default: the address
    /// after the first of `cidr`; the first one is every router's (RFC 4291 §2.6.1) and never given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isIP(self) && ip(self).family() == 6").message("spec.ipv6.gateway: an IPv6 address inside spec.ipv6.cidr"))]
    #[schemars(length(max = 39))]
    pub gateway: Option<String>,
}

/// What ycloud-controller made of a Subnet: the network that is in force. That is what the spec asks for or, while an
/// edit of the spec is refused, what it asked for before.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetStatus {
    /// The IPv4 range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// The router's IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// How many IPv4 addresses there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// The same of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<SubnetIpv6Status>,
    /// Addresses never given out, of either family, as `spec.excludeIPs` writes them.
    #[serde(default, rename = "excludeIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::ranges")]
    pub exclude_ips: Vec<String>,
    /// Ready: the switch exists, and the spec is in force; or the message says why not. It is False during a deletion.
    /// InUse: a deletion waits for the users that its message names.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What ycloud-controller made of the IPv6 side of a Subnet.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetIpv6Status {
    /// The IPv6 range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// The router's IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// How many IPv6 addresses there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
}

/// Address counts. Of a Subnet `total = used + free`. Of an EipGateway `total` also has those that rest. Network, broadcast,
/// gateway and excluded addresses are never free; an excluded one that is held is used. `total` and `free` are left out where
/// there are more than 9007199254740992 addresses, as in an IPv6 range of /64: that is more than ever run out.
#[derive(KubeSchema, Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Addresses that can be given out; left out above 9007199254740992 (2^53).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// Of those, held by a VNic or an Eip.
    pub used: i64,
    /// Of those, free; left out with `total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<i64>,
}

impl Addresses {
    /// The largest number that is told: every reader of JSON has it exactly, and so Kubernetes' API conventions want it.
    pub const MOST: i64 = 1 << 53;

    /// Of that many that are held and that many that are free.
    pub fn new(used: u128, free: u128) -> Self {
        let total = used.saturating_add(free);
        let told = |count: u128| i64::try_from(count).unwrap_or(Self::MOST).min(Self::MOST);
        let told_if_all_are = |count| (total <= Self::MOST as u128).then(|| told(count));
        Self {
            total: told_if_all_are(total),
            used: told(used),
            free: told_if_all_are(free),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_not_every_reader_of_json_has_are_left_out() {
        let most = Addresses::MOST as u128;
        let told = |used, free| serde_json::to_string(&Addresses::new(used, free)).unwrap();
        assert_eq!(told(3, 250), r#"{"total":253,"used":3,"free":250}"#);
        assert_eq!(
            told(0, most),
            r#"{"total":9007199254740992,"used":0,"free":9007199254740992}"#
        );
        assert_eq!(told(1, most), r#"{"used":1}"#);
        // A range of /64, and all of IPv6.
        assert_eq!(told(7, (1 << 64) - 9), r#"{"used":7}"#);
        assert_eq!(told(7, u128::MAX), r#"{"used":7}"#);
    }
}
