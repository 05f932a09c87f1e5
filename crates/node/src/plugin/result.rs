//! What the plugin writes: CNI specification, "Result Types", in the version that the configuration has.

use serde_json::{Map, Value, json};

use crate::protocol::{Address, Failure, Wiring};

/// The versions of configurations and results, oldest first.
pub const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest of [`SUPPORTED`].
pub const CURRENT: &str = "1.1.0";

/// The version to report an error in: the configuration's, unless it is unknown.
pub fn reporting(version: &str) -> &'static str {
    SUPPORTED
        .into_iter()
        .find(|v| *v == version)
        .unwrap_or(CURRENT)
}

/// The answer to VERSION.
pub fn versions(asked: &str) -> String {
    json!({"cniVersion": reporting(asked), "supportedVersions": SUPPORTED}).to_string()
}

/// An error.
pub fn error(version: &str, failure: &Failure) -> String {
    json!({
        "cniVersion": version,
        "code": failure.code,
        "msg": failure.msg,
        "details": failure.details,
    })
    .to_string()
}

/// The result of ADD.
pub fn added(
    version: &str,
    wiring: &Wiring,
    ifname: &str,
    sandbox: &str,
    dns: Option<&Value>,
) -> String {
    let has_mtu = version == "1.1.0";
    let has_ip_version = version.starts_with("0.");
    let mut host = json!({"name": wiring.host_interface, "mac": wiring.host_mac});
    let mut pod = json!({"name": ifname, "mac": wiring.mac, "sandbox": sandbox});
    if has_mtu {
        host["mtu"] = wiring.mtu.into();
        pod["mtu"] = wiring.mtu.into();
    }
    let ip = |address: &Address| {
        let Address { gateway, ip, .. } = *address;
        let mut entry = json!({"interface": 1, "address": address.net(), "gateway": gateway});
        if has_ip_version {
            entry["version"] = if ip.is_ipv4() { "4" } else { "6" }.into();
        }
        entry
    };
    let route = |Address { gateway, .. }: &Address| {
        let to = if gateway.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        json!({"dst": to, "gw": gateway})
    };
    let dns = dns.cloned().unwrap_or(Value::Object(Map::new()));
    json!({
        "cniVersion": version,
        "interfaces": [host, pod],
        "ips": wiring.addresses.iter().map(ip).collect::<Vec<_>>(),
        "routes": wiring.addresses.iter().map(route).collect::<Vec<_>>(),
        "dns": dns,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Addresses;

    fn address(ip: &str, prefix_length: u8, gateway: &str) -> Address {
        Address {
            ip: ip.parse().unwrap(),
            prefix_length,
            gateway: gateway.parse().unwrap(),
        }
    }

    fn wiring() -> Wiring {
        Wiring {
            host_interface: "yc0123456789a".into(),
            host_mac: "5a:b1:02:cd:5a:65".into(),
            mac: "0a:02:0a:00:01:05".into(),
            addresses: Addresses {
                first: address("10.0.1.5", 24, "10.0.1.1"),
                second: None,
            },
            mtu: 1400,
        }
    }

    /// What differs between the versions: CNI specification, "Released versions".
    #[test]
    fn results_have_the_form_of_their_version() {
        let cases = [
            ("0.3.1", true, false),
            ("0.4.0", true, false),
            ("1.0.0", false, false),
            ("1.1.0", false, true),
        ];
        assert_eq!(cases.map(|(version, ..)| version), SUPPORTED);
        for (version, ip_version, mtu) in cases {
            let text = added(version, &wiring(), "eth0", "/var/run/netns/a", None);
            let result: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(result["cniVersion"], version);
            let mut ip = json!({"interface": 1, "address": "10.0.1.5/24", "gateway": "10.0.1.1"});
            let mut pod =
                json!({"name": "eth0", "mac": "0a:02:0a:00:01:05", "sandbox": "/var/run/netns/a"});
            if ip_version {
                ip["version"] = "4".into();
            }
            if mtu {
                pod["mtu"] = 1400.into();
            }
            assert_eq!(result["ips"], json!([ip]), "{version}");
            assert_eq!(result["interfaces"][1], pod, "{version}");
            assert_eq!(result["interfaces"][0]["name"], "yc0123456789a");
            assert!(result["interfaces"][0].get("sandbox").is_none());
            assert_eq!(
                result["routes"],
                json!([{"dst": "0.0.0.0/0", "gw": "10.0.1.1"}])
            );
            assert_eq!(result["dns"], json!({}));
        }
    }

    #[test]
    fn a_second_address_comes_second_and_an_only_one_first() {
        let ipv6 = address("fd00:1::5", 64, "fd00:1::1");
        let of = |ipv4| Wiring {
            addresses: Addresses::of(ipv4, Some(ipv6)).unwrap(),
            ..wiring()
        };
        let (both, only) = (of(Some(wiring().addresses.first)), of(None));
        let (v4, v6) = (json!("10.0.1.5/24"), json!("fd00:1::5/64"));
        let (to4, to6) = (json!("0.0.0.0/0"), json!("::/0"));
        let cases = [
            (both, vec![&v4, &v6], vec![&to4, &to6]),
            (only, vec![&v6], vec![&to6]),
        ];
        for (wiring, addresses, routes) in cases {
            let text = added("0.4.0", &wiring, "eth0", "/var/run/netns/a", None);
            let result: Value = serde_json::from_str(&text).unwrap();
            let all = |list: &str, field: &str| -> Vec<Value> {
                let list = result[list].as_array().unwrap().iter();
                list.map(|entry| entry[field].clone()).collect()
            };
            assert_eq!(all("ips", "address").iter().collect::<Vec<_>>(), addresses);
            assert_eq!(all("routes", "dst").iter().collect::<Vec<_>>(), routes);
            assert_eq!(all("ips", "version").last(), Some(&json!("6")));
            assert_eq!(all("routes", "gw").last(), Some(&json!("fd00:1::1")));
        }
    }

    #[test]
    fn errors_are_reported_in_a_version_that_exists() {
        assert_eq!(reporting("0.4.0"), "0.4.0");
        assert_eq!(reporting("9.9.9"), CURRENT);
        let answer: Value = serde_json::from_str(&versions("0.1.0")).unwrap();
        assert_eq!(answer["supportedVersions"], json!(SUPPORTED));
    }
}
