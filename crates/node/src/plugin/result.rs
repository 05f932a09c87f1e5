//! What the plugin writes: CNI specification, "Result Types", in the version that the configuration has.

use serde_json::{Map, Value, json};

use crate::protocol::{Failure, Wiring};

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
    let address = format!("{}/{}", wiring.ip, wiring.prefix_length);
    let mut ip = json!({"interface": 1, "address": address, "gateway": wiring.gateway});
    if has_ip_version {
        ip["version"] = "4".into();
    }
    let dns = dns.cloned().unwrap_or(Value::Object(Map::new()));
    json!({
        "cniVersion": version,
        "interfaces": [host, pod],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": wiring.gateway}],
        "dns": dns,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn wiring() -> Wiring {
        Wiring {
            host_interface: "yc0123456789a".into(),
            host_mac: "5a:b1:02:cd:5a:65".into(),
            mac: "0a:02:0a:00:01:05".into(),
            ip: Ipv4Addr::new(10, 0, 1, 5),
            prefix_length: 24,
            gateway: Ipv4Addr::new(10, 0, 1, 1),
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
    fn errors_are_reported_in_a_version_that_exists() {
        assert_eq!(reporting("0.4.0"), "0.4.0");
        assert_eq!(reporting("9.9.9"), CURRENT);
        let answer: Value = serde_json::from_str(&versions("0.1.0")).unwrap();
        assert_eq!(answer["supportedVersions"], json!(SUPPORTED));
    }
}
