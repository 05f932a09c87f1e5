//! Which backends an address leads to, as the Southbound database has it, and what of that is gone: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ycloud_ovsdb::{Config, Row, Snapshot};

/// `Load_Balancer:options` key of the backends that take no new connections and keep those they have: items
/// `<vip:port>=<backend:port>`, separated by spaces. OVN knows nothing of it; northd copies all options.
pub const DRAINING: &str = "draining";

/// The table.
const LOAD_BALANCER: &str = "Load_Balancer";

/// A way that connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// IP protocol number.
    pub protocol: u8,
    /// Address and port that are called.
    pub vip: SocketAddr,
    /// Address and port that answer.
    pub backend: SocketAddr,
}

/// An address, with a port or with any.
pub type End = (IpAddr, Option<u16>);

/// Connections to take out of the connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flush {
    /// IP protocol number.
    pub protocol: u8,
    /// What was called.
    pub vip: End,
    /// Who answered; `None`: whoever did.
    pub backend: Option<End>,
}

impl Flush {
    /// Whether this takes out what a pair is.
    pub fn is_for(&self, pair: &Pair) -> bool {
        let is = |end: End, address: SocketAddr| {
            end.0 == address.ip() && end.1.is_none_or(|port| port == address.port())
        };
        let backend = self.backend.is_none_or(|backend| is(backend, pair.backend));
        self.protocol == pair.protocol && is(self.vip, pair.vip) && backend
    }
}

fn exactly(address: SocketAddr) -> End {
    (address.ip(), Some(address.port()))
}

/// Adds what is read of the Southbound database.
pub fn monitored(config: Config) -> Config {
    config
        .monitor(LOAD_BALANCER, &["vips", "protocol", "options"])
        .monitor("SB_Global", &["nb_cfg"])
}

/// The newest number that ycloud-controller gave to a state of the Northbound database, `SB_Global:nb_cfg`.
pub fn number(southbound: &Snapshot) -> i64 {
    let mut rows = southbound.table("SB_Global").iter();
    let number = rows.next().and_then(|row| row.get("nb_cfg")?.as_integer());
    number.unwrap_or_default()
}

/// The pairs of all load balancers.
#[derive(Debug, Default)]
pub struct Pairs {
    /// What they were read from.
    seen: Snapshot,
    /// In how many rows a pair is.
    counts: BTreeMap<Pair, usize>,
    /// Whether they are others than when that was last asked.
    changed: bool,
}

impl Pairs {
    /// Takes a new state in, and returns the pairs that it has not got any more. Reads only rows that are not as they were,
    /// and finds these without a look at the others.
    pub fn update(&mut self, southbound: &Snapshot) -> BTreeSet<Pair> {
        let before = std::mem::replace(&mut self.seen, southbound.clone());
        let changes = before.difference(southbound);
        let mut left = Vec::new();
        for change in changes.iter().filter(|c| &*c.table == LOAD_BALANCER) {
            self.changed = true;
            left.extend(change.old.as_deref().map(pairs).unwrap_or_default());
            for pair in change.new.as_deref().map(pairs).unwrap_or_default() {
                *self.counts.entry(pair).or_default() += 1;
            }
        }
        // After the new ones are counted: most of a row's pairs are in it before and after.
        let mut gone = BTreeSet::new();
        for pair in left {
            if let Some(count) = self.counts.get_mut(&pair) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&pair);
                    gone.insert(pair);
                }
            }
        }
        gone
    }

    /// Whether any row has changed since this was last asked.
    pub fn is_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// All pairs.
    pub fn all(&self) -> impl Iterator<Item = &Pair> {
        self.counts.keys()
    }

    /// Whether some load balancer has the pair.
    pub fn has(&self, pair: &Pair) -> bool {
        self.counts.contains_key(pair)
    }

    /// What to take out for pairs that are gone, in as few requests as can be, as each makes Open vSwitch look through all
    /// connections: where an address and port lead nowhere any more, one for all backends; where an address leads to a backend
    /// by no port any more, one for all ports.
    pub fn flushes(&self, gone: impl IntoIterator<Item = Pair>) -> BTreeSet<Flush> {
        let flush = |pair: Pair| {
            let (vip, backend) = (pair.vip, pair.backend);
            let (vip, backend) = if !self.of(pair.protocol, vip.ip()).any(|p| p.vip == vip) {
                (exactly(vip), None)
            } else if self
                .of(pair.protocol, vip.ip())
                .all(|p| p.backend.ip() != backend.ip())
            {
                ((vip.ip(), None), Some((backend.ip(), None)))
            } else {
                (exactly(vip), Some(exactly(backend)))
            };
            Flush {
                protocol: pair.protocol,
                vip,
                backend,
            }
        };
        gone.into_iter().map(flush).collect()
    }

    /// The pairs of an address that is called.
    fn of(&self, protocol: u8, vip: IpAddr) -> impl Iterator<Item = &Pair> {
        let lowest = Pair {
            protocol,
            vip: (vip, 0).into(),
            backend: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let pairs = self.counts.range(lowest..).map(|(pair, _)| pair);
        pairs.take_while(move |pair| (pair.protocol, pair.vip.ip()) == (protocol, vip))
    }
}

/// The pairs of a row. What is not an address with a port is none of ours, and left out.
fn pairs(row: &Row) -> Vec<Pair> {
    let protocol = match row.get("protocol").and_then(|p| p.as_str()) {
        Some("udp") => 17,
        Some("sctp") => 132,
        // ovn-sb(5): tcp where it is empty.
        _ => 6,
    };
    let pair = |vip: &str, backend: &str| {
        Some(Pair {
            protocol,
            vip: vip.parse().ok()?,
            backend: backend.trim().parse().ok()?,
        })
    };
    let mut pairs = Vec::new();
    for (vip, backends) in map(row, "vips") {
        pairs.extend(
            backends
                .split(',')
                .filter_map(|backend| pair(&vip, backend)),
        );
    }
    let draining = map(row, "options").remove(DRAINING).unwrap_or_default();
    let items = draining.split_ascii_whitespace();
    pairs.extend(items.filter_map(|item| {
        let (vip, backend) = item.split_once('=')?;
        pair(vip, backend)
    }));
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn map(row: &Row, column: &str) -> BTreeMap<String, String> {
    let map = row.get(column).and_then(|map| map.try_into().ok());
    map.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use ycloud_ovsdb::{Columns, Schema, Uuid};

    const SCHEMA: &str = include_str!("../../../../ovsdb/schemas/ovn-sb.ovsschema");

    type Lb<'a> = (u128, &'a str, &'a [(&'a str, &'a str)], &'a str);

    fn database(rows: &[Lb<'_>]) -> Snapshot {
        let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
        let rows = rows.iter().map(|(number, protocol, vips, draining)| {
            let vips = vips.iter().map(|(v, b)| ((*v).to_owned(), (*b).to_owned()));
            let mut options =
                BTreeMap::from([("hairpin_orig_tuple".to_owned(), "true".to_owned())]);
            if !draining.is_empty() {
                options.insert(DRAINING.to_owned(), (*draining).to_owned());
            }
            let mut columns = Columns::new()
                .with("vips", vips.collect::<BTreeMap<_, _>>())
                .with("options", options);
            if !protocol.is_empty() {
                columns.set("protocol", *protocol);
            }
            ("Load_Balancer", Uuid::from_u128(*number), columns)
        });
        Snapshot::of(&schema, rows.collect::<Vec<_>>()).unwrap()
    }

    fn flush(text: &str) -> Flush {
        let mut parts = text.split(' ');
        let protocol = parts.next().unwrap().parse().unwrap();
        // An address alone: any port.
        let end = |text: &str| {
            let one = text.parse().map(exactly);
            one.unwrap_or_else(|_| (text.parse().unwrap(), None))
        };
        let vip = end(parts.next().unwrap());
        let backend = parts.next().map(end);
        Flush {
            protocol,
            vip,
            backend,
        }
    }

    #[test]
    fn what_leaves_the_last_load_balancer_that_has_it_is_gone() {
        const VIP: &str = "10.96.0.7:80";
        let (a, b) = ("10.0.0.1:80", "10.0.0.2:80");
        let both = format!("{a},{b}");
        let item = |backend: &str| format!("{VIP}={backend}");
        let (ab, of_a, of_b) = ([(VIP, both.as_str())], [(VIP, a)], [(VIP, b)]);
        let (empty, drains) = ([(VIP, "")], format!("{} {}", item(a), item("10.0.0.9:80")));
        let v6 = [("[fd00::7]:80", "[fd00::1]:80,[fd00::2]:80")];
        let v6_less = [("[fd00::7]:80", "[fd00::2]:80")];
        let other = "10.0.0.1:443,10.0.0.2:443";
        let ports = [(VIP, both.as_str()), ("10.96.0.7:443", other)];
        let ports_of_b = [(VIP, b), ("10.96.0.7:443", "10.0.0.2:443")];
        let port_less = [(VIP, b), ("10.96.0.7:443", other)];
        let odd = [("10.96.0.8", "10.0.0.1"), ("x:80", "y:80")];
        type Case<'a> = (&'a str, Vec<Lb<'a>>, Vec<Lb<'a>>, &'a [&'a str]);
        let cases: Vec<Case<'_>> = vec![
            (
                "nothing changes",
                vec![(1, "", &ab, "")],
                vec![(1, "tcp", &ab, "")],
                &[],
            ),
            (
                "one more",
                vec![(1, "", &of_a, "")],
                vec![(1, "", &ab, "")],
                &[],
            ),
            (
                "one leaves",
                vec![(1, "udp", &ab, "")],
                vec![(1, "udp", &of_b, "")],
                &["17 10.96.0.7 10.0.0.1"],
            ),
            (
                "one drains",
                vec![(1, "", &ab, "")],
                vec![(1, "", &of_b, &drains)],
                &[],
            ),
            (
                "it has drained",
                vec![(1, "", &of_b, &drains)],
                vec![(1, "", &of_b, "")],
                &["6 10.96.0.7 10.0.0.1", "6 10.96.0.7 10.0.0.9"],
            ),
            (
                "it comes back",
                vec![(1, "", &of_b, &drains)],
                vec![(1, "", &ab, "")],
                &["6 10.96.0.7 10.0.0.9"],
            ),
            (
                "all leave",
                vec![(1, "sctp", &ab, "")],
                vec![(1, "sctp", &empty, "")],
                &["132 10.96.0.7:80"],
            ),
            (
                "the last ones drain",
                vec![(1, "", &ab, "")],
                vec![(1, "", &empty, &drains)],
                &["6 10.96.0.7 10.0.0.2"],
            ),
            (
                "it is deleted",
                vec![(1, "", &ab, "")],
                vec![],
                &["6 10.96.0.7:80"],
            ),
            (
                "another one has it",
                vec![(1, "", &ab, ""), (2, "", &of_a, "")],
                vec![(2, "", &of_a, "")],
                &["6 10.96.0.7 10.0.0.2"],
            ),
            (
                "another row takes its place",
                vec![(1, "", &ab, "")],
                vec![(2, "", &ab, "")],
                &[],
            ),
            (
                "another protocol",
                vec![(1, "tcp", &ab, ""), (2, "udp", &ab, "")],
                vec![(1, "tcp", &ab, "")],
                &["17 10.96.0.7:80"],
            ),
            (
                "IPv6",
                vec![(1, "", &v6, "")],
                vec![(1, "", &v6_less, "")],
                &["6 fd00::7 fd00::1"],
            ),
            (
                "one leaves all ports",
                vec![(1, "", &ports, "")],
                vec![(1, "", &ports_of_b, "")],
                &["6 10.96.0.7 10.0.0.1"],
            ),
            (
                "one leaves a port of two",
                vec![(1, "", &ports, "")],
                vec![(1, "", &port_less, "")],
                &["6 10.96.0.7:80 10.0.0.1:80"],
            ),
            ("not ours", vec![(1, "", &odd, "x y=z")], vec![], &[]),
        ];
        for (name, before, after, gone) in cases {
            let mut pairs = Pairs::default();
            assert!(pairs.update(&database(&before)).is_empty(), "{name}");
            let left = pairs.update(&database(&after));
            assert!(left.iter().all(|pair| !pairs.has(pair)), "{name}");
            let flushes = pairs.flushes(left.iter().copied());
            let of = |pair: &Pair| flushes.iter().filter(|flush| flush.is_for(pair)).count();
            assert!(left.iter().all(|pair| of(pair) == 1), "{name}");
            assert!(pairs.counts.keys().all(|pair| of(pair) == 0), "{name}");
            let expected: BTreeSet<Flush> = gone.iter().map(|text| flush(text)).collect();
            assert_eq!(flushes, expected, "{name}");
            assert!(pairs.update(&database(&after)).is_empty(), "{name}: again");
        }
    }
}
