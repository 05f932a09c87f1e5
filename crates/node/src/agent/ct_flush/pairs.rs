//! Which backends an address leads to, as the Southbound database has it, and what of that is gone: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ycloud_ovsdb::{Config, Row, Snapshot, Uuid};

/// `Load_Balancer:options` key of the backends that take no new connections and keep those they have: items
/// `<vip:port>=<backend:port>`, separated by spaces. OVN knows nothing of it; northd copies all options.
pub const DRAINING: &str = "draining";

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

/// Connections to take out of the connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flush {
    /// IP protocol number.
    pub protocol: u8,
    /// Address and port that were called.
    pub vip: SocketAddr,
    /// Address and port that answered; `None`: whoever did.
    pub backend: Option<SocketAddr>,
}

impl Flush {
    /// Whether this takes out what a pair is.
    pub fn is_for(&self, pair: &Pair) -> bool {
        let backend = self.backend.is_none_or(|backend| backend == pair.backend);
        (self.protocol, self.vip) == (pair.protocol, pair.vip) && backend
    }
}

/// Adds what is read of the Southbound database.
pub fn monitored(config: Config) -> Config {
    config
        .monitor("Load_Balancer", &["vips", "protocol", "options"])
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
    rows: BTreeMap<Uuid, (Arc<Row>, Vec<Pair>)>,
    /// In how many rows a pair is.
    counts: BTreeMap<Pair, usize>,
}

impl Pairs {
    /// Takes a new state in, and returns the pairs that it has not got any more. Reads only rows that are not as they were.
    pub fn update(&mut self, southbound: &Snapshot) -> BTreeSet<Pair> {
        let table = southbound.table("Load_Balancer");
        let mut left = Vec::new();
        self.rows.retain(|uuid, (row, pairs)| {
            let same = table.get(*uuid).is_some_and(|now| Arc::ptr_eq(now, row));
            if !same {
                left.append(pairs);
            }
            same
        });
        for row in table.iter() {
            if self.rows.contains_key(&row.uuid()) {
                continue;
            }
            let pairs = pairs(row);
            for pair in &pairs {
                *self.counts.entry(*pair).or_default() += 1;
            }
            self.rows.insert(row.uuid(), (Arc::clone(row), pairs));
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

    /// Whether some load balancer has the pair.
    pub fn has(&self, pair: &Pair) -> bool {
        self.counts.contains_key(pair)
    }

    /// What to take out for pairs that are gone. Where an address leads nowhere any more, one request does for all of its
    /// backends: each makes Open vSwitch look through all connections.
    pub fn flushes(&self, gone: impl IntoIterator<Item = Pair>) -> BTreeSet<Flush> {
        let flush = |pair: Pair| Flush {
            protocol: pair.protocol,
            vip: pair.vip,
            backend: self.leads(pair.protocol, pair.vip).then_some(pair.backend),
        };
        gone.into_iter().map(flush).collect()
    }

    /// Whether any backend is behind an address.
    fn leads(&self, protocol: u8, vip: SocketAddr) -> bool {
        let lowest = Pair {
            protocol,
            vip,
            backend: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let next = self.counts.range(lowest..).next();
        next.is_some_and(|(pair, _)| (pair.protocol, pair.vip) == (protocol, vip))
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
    use ycloud_ovsdb::{Columns, Schema};

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
        let vip = parts.next().unwrap().parse().unwrap();
        let backend = parts.next().map(|b| b.parse().unwrap());
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
                &["17 10.96.0.7:80 10.0.0.1:80"],
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
                &["6 10.96.0.7:80 10.0.0.1:80", "6 10.96.0.7:80 10.0.0.9:80"],
            ),
            (
                "it comes back",
                vec![(1, "", &of_b, &drains)],
                vec![(1, "", &ab, "")],
                &["6 10.96.0.7:80 10.0.0.9:80"],
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
                &["6 10.96.0.7:80 10.0.0.2:80"],
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
                &["6 10.96.0.7:80 10.0.0.2:80"],
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
                &["6 [fd00::7]:80 [fd00::1]:80"],
            ),
            ("not ours", vec![(1, "", &odd, "x y=z")], vec![], &[]),
        ];
        for (name, before, after, gone) in cases {
            let mut pairs = Pairs::default();
            assert!(pairs.update(&database(&before)).is_empty(), "{name}");
            let left = pairs.update(&database(&after));
            assert!(left.iter().all(|pair| !pairs.has(pair)), "{name}");
            let flushes = pairs.flushes(left);
            let expected: BTreeSet<Flush> = gone.iter().map(|text| flush(text)).collect();
            assert_eq!(flushes, expected, "{name}");
            assert!(pairs.update(&database(&after)).is_empty(), "{name}: again");
        }
    }
}
