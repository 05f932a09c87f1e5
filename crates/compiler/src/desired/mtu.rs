//! Which router ports refuse packets that the tunnels do not carry.

use std::collections::BTreeMap;

use crate::desired::none;
use crate::snapshot::{MtuCheck, Settings};

/// The options of a port that checks, in both directions: the sender of a packet that is longer than the MTU is told so. Bytes,
/// without the Ethernet header. ovn-nb(5) Logical_Router_Port options:gateway_mtu.
fn checks(settings: &Settings) -> BTreeMap<String, String> {
    BTreeMap::from([("gateway_mtu".to_owned(), settings.mtu.to_string())])
}

/// Of the port of an EipGateway's router on the physical network.
///
/// Left out by ovn-nb(5) options:gateway_mtu_bypass, so that cards take these flows over: TCP; and what goes out, which came by a
/// tunnel. On the way in no port has been chosen yet where OVN checks, and the second part is false.
pub(crate) fn at_gateway(settings: &Settings, port: &str) -> BTreeMap<String, String> {
    let mut options = match settings.mtu_check {
        MtuCheck::Off => return none(),
        MtuCheck::Outside | MtuCheck::Everywhere => checks(settings),
    };
    if settings.mtu_check == MtuCheck::Outside {
        let bypass = format!("tcp || outport == \"{port}\"");
        options.insert("gateway_mtu_bypass".to_owned(), bypass);
    }
    options
}

/// Of the port of a Vpc's router in a Subnet.
pub(crate) fn in_subnet(settings: &Settings) -> BTreeMap<String, String> {
    match settings.mtu_check {
        MtuCheck::Off | MtuCheck::Outside => none(),
        MtuCheck::Everywhere => checks(settings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_checks_what() {
        let of = |mtu_check| {
            let settings = Settings {
                mtu: 8900,
                mtu_check,
                ..Settings::default()
            };
            let text = |options: BTreeMap<String, String>| {
                let options = options.iter().map(|(key, value)| format!("{key}={value}"));
                options.collect::<Vec<_>>()
            };
            (text(at_gateway(&settings, "p")), text(in_subnet(&settings)))
        };
        let checks = || vec!["gateway_mtu=8900".to_owned()];
        let mut without_tcp = checks();
        without_tcp.push("gateway_mtu_bypass=tcp || outport == \"p\"".to_owned());
        assert_eq!(of(MtuCheck::Off), (vec![], vec![]));
        assert_eq!(of(MtuCheck::Outside), (without_tcp, vec![]));
        assert_eq!(of(MtuCheck::Everywhere), (checks(), checks()));
    }
}
