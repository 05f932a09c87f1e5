//! All Services' rules → the table in the kernel, and the difference between two such tables as a script of nft(8). Pure but for
//! [`Table::stands`].
//!
//! ```text
//!   tables ip and, where the default Vpc has IPv6, ip6 ycloud-services
//!     addresses, node-ports              frontend → cluster address
//!     address-chains, node-port-chains   frontend → chain that picks an endpoint
//!     outer-addresses, outer-node-ports  the same, asked first, for clients outside the cluster
//! ```
//!
//! A packet's way is a look-up in six maps, however many Services there are, and a change is a few elements.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;

use ipnet::IpNet;
use ycloud_api::service::Protocol;

use super::rules::{Chain, Frontend, ServiceRules, Way, lower};
use crate::agent::family::{Family, Words, words};
use crate::agent::nft::{self, concatenated};
use crate::agent::objects::Key;

/// Name of the tables, of the families `ip` and `ip6`.
pub const TABLE: &str = "ycloud-services";

/// Elements of one statement: a line that a person can still look at.
const STATEMENT: usize = 200;

/// A set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    Addresses,
    AddressChains,
    Cluster,
    Elsewhere,
    NodePortChains,
    NodePorts,
    OuterAddresses,
    OuterNodePorts,
}

impl Set {
    const ALL: [Set; 8] = [
        Set::Addresses,
        Set::AddressChains,
        Set::Cluster,
        Set::Elsewhere,
        Set::NodePortChains,
        Set::NodePorts,
        Set::OuterAddresses,
        Set::OuterNodePorts,
    ];

    fn name(self) -> &'static str {
        match self {
            Set::Addresses => "addresses",
            Set::AddressChains => "address-chains",
            Set::Cluster => "cluster",
            Set::Elsewhere => "elsewhere",
            Set::NodePortChains => "node-port-chains",
            Set::NodePorts => "node-ports",
            Set::OuterAddresses => "outer-addresses",
            Set::OuterNodePorts => "outer-node-ports",
        }
    }

    fn declaration(self, family: Family) -> String {
        let address = words(family).address;
        let at = format!("{address} . inet_proto . inet_service");
        let port = "inet_proto . inet_service";
        let (kind, keys) = match self {
            Set::Addresses => ("map", format!("{at} : {address} . inet_service")),
            Set::AddressChains | Set::OuterAddresses => ("map", format!("{at} : verdict")),
            Set::NodePorts => ("map", format!("{port} : {address} . inet_service")),
            Set::NodePortChains | Set::OuterNodePorts => ("map", format!("{port} : verdict")),
            Set::Elsewhere => ("set", at),
            Set::Cluster => ("set", format!("{address}; flags interval")),
        };
        format!("  {kind} {} {{ type {keys}; }}\n", self.name())
    }
}

/// The tables as they shall be, or as they were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Those that there are.
    families: BTreeMap<Family, Contents>,
    /// Frontends of UDP, and where their packets may be sent. The kernel keeps sending a client's datagrams where the first
    /// one went, so those that go elsewhere must be forgotten.
    datagrams: BTreeMap<Frontend, BTreeSet<SocketAddr>>,
}

/// The table of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Contents {
    elements: BTreeMap<(Set, String), String>,
    chains: BTreeMap<String, Vec<String>>,
}

impl Table {
    /// The table of all Services' rules. Of two with one frontend the older has it. Those of a family that the default Vpc has
    /// not are left out; IPv4 it has.
    pub fn new<'a>(
        services: impl Iterator<Item = (&'a Key, &'a ServiceRules)>,
        default_vpc: &BTreeSet<IpNet>,
    ) -> Self {
        let mut table = Table::default();
        table.families.insert(Family::Ipv4, Contents::default());
        let ranges: Vec<IpNet> = default_vpc.iter().copied().collect();
        for range in IpNet::aggregate(&ranges) {
            let contents = table.families.entry(Family::of(range.addr())).or_default();
            let key = (Set::Cluster, range.to_string());
            contents.elements.insert(key, String::new());
        }
        let mut services: Vec<_> = services.collect();
        services.sort_by_key(|(key, rules)| (rules.created, *key));
        let mut taken = BTreeSet::new();
        for rule in services.iter().flat_map(|(_, rules)| &rules.rules) {
            let family = rule.frontend.family();
            if table.families.contains_key(&family) && taken.insert(rule.frontend) {
                table.way(rule.frontend, &rule.way);
                if let Some(outer) = &rule.outer {
                    table.outer(rule.frontend, outer);
                }
            }
        }
        table
    }

    fn way(&mut self, frontend: Frontend, way: &Way) {
        match way {
            Way::ClusterIp(target) => {
                let set = match frontend {
                    Frontend::NodePort(..) => Set::NodePorts,
                    Frontend::Address(..) => Set::Addresses,
                };
                self.element(set, frontend, concatenated(*target));
                self.datagram(frontend, [*target]);
            }
            Way::Chain(chain) => {
                let set = match frontend {
                    Frontend::NodePort(..) => Set::NodePortChains,
                    Frontend::Address(..) => Set::AddressChains,
                };
                self.verdict(set, frontend, chain);
            }
        }
    }

    fn outer(&mut self, frontend: Frontend, chain: &Chain) {
        let set = match frontend {
            Frontend::NodePort(..) => Set::OuterNodePorts,
            Frontend::Address(..) => Set::OuterAddresses,
        };
        self.verdict(set, frontend, chain);
    }

    fn verdict(&mut self, set: Set, frontend: Frontend, chain: &Chain) {
        self.element(set, frontend, format!("goto {}", chain.name));
        self.datagram(frontend, chain.targets.iter().copied());
        for target in &chain.elsewhere {
            let target = Frontend::Address(target.ip(), chain.protocol, target.port());
            self.element(Set::Elsewhere, target, String::new());
        }
        let contents = self.families.entry(chain.family).or_default();
        contents
            .chains
            .insert(chain.name.clone(), statements(chain));
    }

    fn element(&mut self, set: Set, key: Frontend, value: String) {
        let contents = self.families.entry(key.family()).or_default();
        contents.elements.insert((set, self::key(key)), value);
    }

    fn datagram(&mut self, frontend: Frontend, targets: impl IntoIterator<Item = SocketAddr>) {
        if frontend.protocol() == Protocol::UDP {
            self.datagrams.entry(frontend).or_default().extend(targets);
        }
    }

    /// The script that replaces whatever tables there are by these.
    pub fn whole(&self) -> String {
        let of_family = |family| match self.families.get(&family) {
            Some(contents) => contents.whole(family),
            None => none(family),
        };
        Family::ALL.map(of_family).concat()
    }

    /// The script that makes these tables the `wanted` ones; empty if they are.
    pub fn difference(&self, wanted: &Table) -> String {
        let of_family = |family| {
            let (before, after) = (self.families.get(&family), wanted.families.get(&family));
            match (before, after) {
                (Some(before), Some(after)) => before.difference(family, after),
                (None, Some(after)) => after.whole(family),
                (Some(_), None) => none(family),
                (None, None) => String::new(),
            }
        };
        Family::ALL.map(of_family).concat()
    }

    /// The UDP frontends that differ in the `wanted` table, and where their datagrams may go there.
    pub fn changed_datagrams(&self, wanted: &Table) -> BTreeMap<Frontend, BTreeSet<SocketAddr>> {
        let frontends = self.datagrams.keys().chain(wanted.datagrams.keys());
        let changed = frontends.filter(|f| self.datagrams.get(f) != wanted.datagrams.get(f));
        changed
            .map(|f| (*f, wanted.datagrams.get(f).cloned().unwrap_or_default()))
            .collect()
    }

    /// All its UDP frontends.
    pub fn datagrams(&self) -> &BTreeMap<Frontend, BTreeSet<SocketAddr>> {
        &self.datagrams
    }

    /// How many frontends it serves.
    pub fn frontends(&self) -> usize {
        let sets = [
            Set::Addresses,
            Set::AddressChains,
            Set::NodePorts,
            Set::NodePortChains,
        ];
        let elements = self.families.values().flat_map(|c| c.elements.keys());
        elements.filter(|(set, _)| sets.contains(set)).count()
    }

    /// Whether the kernel has the tables with their rules.
    pub async fn stands(&self) -> bool {
        for family in self.families.keys() {
            let chain = nft::chain(words(*family).ip, TABLE, "prerouting").await;
            if !chain.is_ok_and(|text| text.contains("jump frontends")) {
                return false;
            }
        }
        true
    }
}

/// The script that takes away the table of a family, whether or not there is one.
fn none(family: Family) -> String {
    let ip = words(family).ip;
    format!("add table {ip} {TABLE}\ndelete table {ip} {TABLE}\n")
}

impl Contents {
    fn whole(&self, family: Family) -> String {
        let mut script = none(family);
        let _ = writeln!(script, "table {} {TABLE} {{", words(family).ip);
        for set in Set::ALL {
            script += &set.declaration(family);
        }
        script += &base_chains(family);
        script.push_str("}\n");
        script + &Contents::default().difference(family, self)
    }

    fn difference(&self, family: Family, wanted: &Contents) -> String {
        let ip = words(family).ip;
        let mut script = String::new();
        for (name, statements) in &wanted.chains {
            if self.chains.get(name) == Some(statements) {
                continue;
            }
            let _ = writeln!(
                script,
                "add chain {ip} {TABLE} {name}\nflush chain {ip} {TABLE} {name}"
            );
            for statement in statements {
                let _ = writeln!(script, "add rule {ip} {TABLE} {name} {statement}");
            }
        }
        let gone = self.elements.iter();
        let gone = gone.filter(|(key, value)| wanted.elements.get(key) != Some(value));
        elements(
            &mut script,
            &format!("delete element {ip} {TABLE}"),
            gone.map(|((set, key), _)| (*set, key.clone())),
        );
        let new = wanted.elements.iter();
        let new = new.filter(|(key, value)| self.elements.get(key) != Some(value));
        let with_value = |((set, key), value): (&(Set, String), &String)| match value.as_str() {
            "" => (*set, key.clone()),
            value => (*set, format!("{key} : {value}")),
        };
        let add = format!("add element {ip} {TABLE}");
        elements(&mut script, &add, new.map(with_value));
        let unused = self
            .chains
            .keys()
            .filter(|name| !wanted.chains.contains_key(*name));
        for name in unused {
            let _ = writeln!(
                script,
                "flush chain {ip} {TABLE} {name}\ndelete chain {ip} {TABLE} {name}"
            );
        }
        script
    }
}

fn elements(script: &mut String, statement: &str, elements: impl Iterator<Item = (Set, String)>) {
    let mut by_set: BTreeMap<Set, Vec<String>> = BTreeMap::new();
    for (set, element) in elements {
        by_set.entry(set).or_default().push(element);
    }
    for (set, elements) in by_set {
        for some in elements.chunks(STATEMENT) {
            let (name, list) = (set.name(), some.join(", "));
            let _ = writeln!(script, "{statement} {name} {{ {list} }}");
        }
    }
}

fn key(frontend: Frontend) -> String {
    match frontend {
        Frontend::NodePort(_, protocol, port) => format!("{} . {port}", lower(protocol)),
        Frontend::Address(ip, protocol, port) => format!("{ip} . {} . {port}", lower(protocol)),
    }
}

fn statements(chain: &Chain) -> Vec<String> {
    let (ip, mut statements) = (words(chain.family).ip, Vec::new());
    if !chain.sources.is_empty() {
        let sources: Vec<IpNet> = chain.sources.iter().copied().collect();
        let sources = nft::ranges(&sources);
        statements.push(format!("{ip} saddr != {{ {sources} }} drop"));
    }
    let protocol = lower(chain.protocol);
    statements.push(match chain.targets.as_slice() {
        [] => "drop".to_owned(),
        [target] => format!("meta l4proto {protocol} dnat to {target}"),
        targets => {
            // The hash is of the address alone, so that every frontend of the Service leads a client to one target.
            let number = targets.len();
            let choice = match chain.by_client {
                true => format!("jhash {ip} saddr mod {number} seed 0x1"),
                false => format!("numgen random mod {number}"),
            };
            let numbered = targets.iter().enumerate();
            let numbered: Vec<String> = numbered
                .map(|(index, target)| format!("{index} : {}", concatenated(*target)))
                .collect();
            format!(
                "meta l4proto {protocol} dnat to {choice} map {{ {} }}",
                numbered.join(", ")
            )
        }
    });
    statements
}

/// The part that is the same for all. Node ports are those of every address but the loopback ones. What the node sends
/// to an endpoint that is not its own gets its own address, or the answer would not come back through it.
fn base_chains(family: Family) -> String {
    let Words { ip, loopback, .. } = words(family);
    let address = format!("{ip} daddr . meta l4proto . th dport");
    let node = format!("{ip} daddr != {loopback} fib daddr type local");
    let port = "meta l4proto . th dport";
    format!(
        "  chain outer {{
    {address} vmap @outer-addresses
    {node} {port} vmap @outer-node-ports
  }}
  chain frontends {{
    {address} vmap @address-chains
    dnat to {address} map @addresses
    {node} {port} vmap @node-port-chains
    {node} dnat to {port} map @node-ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {ip} saddr != @cluster jump outer
    jump frontends
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump frontends
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat - 10; policy accept;
    oifname != \"lo\" ct status dnat {address} @elsewhere masquerade fully-random
  }}
"
    )
}
