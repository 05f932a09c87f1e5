//! Which addresses this chassis answers for on physical networks, as the Southbound database has it: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ycloud_ovsdb::{AtomSet, Condition, Config, Datum, Function, Row, Snapshot, Uuid};

const PORT_BINDING: &str = "Port_Binding";

/// `Port_Binding:type` of a gateway's port, which one chassis of several has; and of a physical network's.
const CHASSIS_REDIRECT: &str = "chassisredirect";
const LOCALNET: &str = "localnet";

/// An address to be announced, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announcement {
    /// `Datapath_Binding:tunnel_key` of the logical switch that has the physical network.
    pub datapath: u64,
    /// `Port_Binding:tunnel_key` of its port to the router that has the address.
    pub port: u32,
    /// The router's MAC there.
    pub mac: [u8; 6],
    /// The address; `None`: of this MAC none is told.
    pub address: Option<IpAddr>,
}

/// Adds what is read of the Southbound database: of the ports, which are many, those of gateways and of physical networks,
/// and those that tell of addresses.
pub fn monitored(config: Config) -> Config {
    let is = |kind: &str| Condition::equal("type", kind);
    let tells = Condition::new("nat_addresses", Function::NotEqual, AtomSet::default());
    let columns = [
        "type",
        "logical_port",
        "datapath",
        "tunnel_key",
        "chassis",
        "nat_addresses",
    ];
    config
        .monitor("Chassis", &["name", "hostname"])
        .monitor(PORT_BINDING, &columns)
        .only(
            PORT_BINDING,
            vec![is(CHASSIS_REDIRECT), is(LOCALNET), tells],
        )
}

/// What the chassis of this name, or host name, answers for.
///
/// A router's port on a logical switch tells of its addresses in `nat_addresses`: `MAC address … is_chassis_resident("port")`,
/// where the port is the gateway's, `chassisredirect`.
pub fn claimed(southbound: &Snapshot, chassis: &str) -> BTreeSet<Announcement> {
    let own: BTreeSet<Uuid> = southbound
        .table("Chassis")
        .iter()
        .filter(|row| {
            ["name", "hostname"]
                .iter()
                .any(|key| text(row, key) == Some(chassis))
        })
        .map(|row| row.uuid())
        .collect();
    let ports = || southbound.table(PORT_BINDING).iter();
    let of_kind = |kind: &'static str| ports().filter(move |row| text(row, "type") == Some(kind));
    let resident: BTreeSet<&str> = of_kind(CHASSIS_REDIRECT)
        .filter(|row| uuid(row, "chassis").is_some_and(|chassis| own.contains(&chassis)))
        .filter_map(|row| text(row, "logical_port"))
        .collect();
    let physical: BTreeSet<Uuid> = of_kind(LOCALNET)
        .filter_map(|row| uuid(row, "datapath"))
        .collect();
    let keys: BTreeMap<Uuid, u64> = southbound
        .table("Datapath_Binding")
        .iter()
        .filter_map(|row| Some((row.uuid(), key(row)?)))
        .collect();
    let mut claimed = BTreeSet::new();
    for row in ports() {
        let datapath = uuid(row, "datapath").filter(|datapath| physical.contains(datapath));
        let datapath = datapath.and_then(|datapath| keys.get(&datapath));
        let port = key(row).and_then(|key| u32::try_from(key).ok());
        let (Some(&datapath), Some(port)) = (datapath, port) else {
            continue;
        };
        let told = row.get("nat_addresses").and_then(Datum::as_set);
        let told = told
            .into_iter()
            .flat_map(AtomSet::iter)
            .filter_map(|atom| atom.as_str());
        for (mac, addresses) in told.filter_map(|told| told_of(told, &resident)) {
            let announcement = |address| Announcement {
                datapath,
                port,
                mac,
                address,
            };
            match addresses.is_empty() {
                true => claimed.extend([announcement(None)]),
                false => claimed.extend(addresses.into_iter().map(Some).map(announcement)),
            }
        }
    }
    claimed
}

/// A MAC and its addresses, where the port that it says is one of these.
fn told_of(told: &str, resident: &BTreeSet<&str>) -> Option<([u8; 6], Vec<IpAddr>)> {
    let (rest, port) = told.split_once("is_chassis_resident(\"")?;
    let port = port.strip_suffix("\")")?;
    resident.get(port)?;
    let mut words = rest.split_whitespace();
    let mut mac = [0; 6];
    let mut bytes = words.next()?.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(bytes.next()?, 16).ok()?;
    }
    let addresses: Result<Vec<IpAddr>, _> = words.map(str::parse).collect();
    Some((mac, addresses.ok()?))
}

fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column)?.as_str()
}

fn uuid(row: &Row, column: &str) -> Option<Uuid> {
    row.get(column)?.as_uuid()
}

fn key(row: &Row) -> Option<u64> {
    u64::try_from(row.get("tunnel_key")?.as_integer()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use ycloud_ovsdb::{Columns, Schema};

    const SCHEMA: &str = include_str!("../../../../ovsdb/schemas/ovn-sb.ovsschema");
    const CHASSIS: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const PHYSICAL: Uuid = Uuid::from_u128(3);
    const TRANSIT: Uuid = Uuid::from_u128(4);

    /// Type, name, switch, chassis, what it tells.
    type Port<'a> = (&'a str, &'a str, Uuid, Option<Uuid>, &'a [&'a str]);

    /// Two chassis, a switch with a physical network and one without, and these ports.
    fn claimed_of(ports: &[Port<'_>]) -> Vec<String> {
        let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
        let chassis = |name: &str| Columns::new().with("name", name).with("hostname", "");
        let datapath = |key: i64| Columns::new().with("tunnel_key", key);
        let mut rows = vec![
            ("Chassis", CHASSIS, chassis("node-1")),
            ("Chassis", OTHER, chassis("node-2")),
            ("Datapath_Binding", PHYSICAL, datapath(7)),
            ("Datapath_Binding", TRANSIT, datapath(8)),
        ];
        for (n, (kind, name, datapath, chassis, told)) in ports.iter().enumerate() {
            let told: AtomSet = told.iter().map(|told| (*told).to_owned()).collect();
            let columns = Columns::new()
                .with("type", *kind)
                .with("logical_port", *name)
                .with("datapath", *datapath)
                .with("tunnel_key", n as i64 + 1)
                .with("chassis", *chassis)
                .with("nat_addresses", told);
            rows.push((PORT_BINDING, Uuid::from_u128(16 + n as u128), columns));
        }
        let southbound = Snapshot::of(&schema, rows).unwrap();
        let claimed = claimed(&southbound, "node-1").into_iter();
        let shown = |one: Announcement| {
            let address = one
                .address
                .map_or_else(|| "-".to_owned(), |ip| ip.to_string());
            format!(
                "{} {} {:02x?} {address}",
                one.datapath, one.port, one.mac[5]
            )
        };
        claimed.map(shown).collect()
    }

    #[test]
    fn only_what_this_chassis_has_on_physical_networks_is_claimed() {
        let localnet = ("localnet", "net", PHYSICAL, None, [].as_slice());
        let gateway = |chassis| ("chassisredirect", "cr-a", PHYSICAL, chassis, [].as_slice());
        let told = ["0e:00:00:00:00:05 192.0.2.1 2001:db8::1 is_chassis_resident(\"cr-a\")"];
        let tells = ("patch", "lsp", PHYSICAL, None, told.as_slice());
        let both = ["7 3 05 192.0.2.1", "7 3 05 2001:db8::1"];
        assert_eq!(claimed_of(&[localnet, gateway(Some(CHASSIS)), tells]), both);
        for chassis in [None, Some(OTHER)] {
            assert!(
                claimed_of(&[localnet, gateway(chassis), tells]).is_empty(),
                "{chassis:?}"
            );
        }
        let elsewhere = ("patch", "lsp", TRANSIT, None, told.as_slice());
        assert!(claimed_of(&[localnet, gateway(Some(CHASSIS)), elsewhere]).is_empty());
        assert!(
            claimed_of(&[gateway(Some(CHASSIS)), tells]).is_empty(),
            "no physical network"
        );
        let odd = [
            "0e:00:00:00:00:06 is_chassis_resident(\"cr-a\")",
            "0e:00:00:00:00:07 192.0.2.7",
            "0e:00:00:00:00 192.0.2.8 is_chassis_resident(\"cr-a\")",
            "0e:00:00:00:00:09 nowhere is_chassis_resident(\"cr-a\")",
            "",
        ];
        let odd = ("patch", "lsp", PHYSICAL, None, odd.as_slice());
        assert_eq!(
            claimed_of(&[localnet, gateway(Some(CHASSIS)), odd]),
            ["7 3 06 -"]
        );
    }
}
