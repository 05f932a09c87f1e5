//! Which NetworkProbes this node asks, and what its [`Prober`](ycloud_probe::Prober) is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use ycloud_api::network_probe::gateway;
use ycloud_api::{NetworkProbe, VNic, key};
use ycloud_probe::kind::icmp::Icmp;
use ycloud_probe::{Check, Handle, Probe, Role, Target, Timing, Trust, Way};

use super::network::{Device, Sources};
use super::records::{Key, Records};
use super::space::MARK;
use crate::agent::family::{Family, is_usable};
use crate::agent::objects::Objects;

/// How a Vpc's router is asked, as often as any target may be.
const CONTROL: Timing = Timing {
    period: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    successes: 1,
    failures: 3,
};

/// How long a target waits for its Vpc's device before its state says so: a device is there within a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// A NetworkProbe that this node shall ask.
#[derive(Debug)]
pub struct Order<'a> {
    /// Its key as a target.
    pub key: Key,
    /// The object.
    pub object: &'a NetworkProbe,
    source: IpAddr,
}

impl<'a> Order<'a> {
    /// The order in an object, if it is one for `node`.
    fn of(object: &'a NetworkProbe, node: &str) -> Option<Self> {
        let status = object.status.as_ref()?;
        let source = status.source.as_ref()?.parse().ok()?;
        let meta = &object.metadata;
        let (namespace, name) = (meta.namespace.as_ref()?, meta.name.as_ref()?);
        let key = format!("{namespace}/{name}/{}", meta.uid.as_ref()?);
        (status.prober.as_deref() == Some(node)).then_some(Self {
            key: key.into(),
            object,
            source,
        })
    }

    fn vpc(&self) -> &'a str {
        &self.object.spec.target.vpc
    }
}

/// All orders for `node`.
pub fn orders<'a>(objects: &'a Objects<NetworkProbe>, node: &str) -> Vec<Order<'a>> {
    let objects = objects.by_key.values();
    objects.filter_map(|o| Order::of(o, node)).collect()
}

/// The Vpcs in which there is something to ask, and from which addresses.
pub fn networks(orders: &[Order<'_>]) -> BTreeMap<String, Sources> {
    let mut networks: BTreeMap<String, Sources> = BTreeMap::new();
    for order in orders.iter().filter(|order| is_usable(order.source)) {
        let sources = networks.entry(order.vpc().to_owned()).or_default();
        sources.insert(Family::of(order.source), order.source);
    }
    networks
}

/// Addresses, each with its Vpc.
pub type Addresses = BTreeSet<(String, IpAddr)>;

/// The addresses that are on this chassis; `None` while that is not known.
pub fn here(vnics: &Objects<VNic>) -> Option<Addresses> {
    let of = |vnic: &VNic| {
        let status = vnic.status.as_ref()?;
        let ipv6 = status.ipv6.as_ref().map(|ipv6| &ipv6.ip);
        let ips = status.ip.iter().chain(ipv6);
        let ips = ips.filter_map(|ip| ip.parse::<IpAddr>().ok());
        let vpc = status.vpc.as_ref()?;
        Some(ips.map(|ip| (vpc.clone(), ip)).collect::<Vec<_>>())
    };
    let all = vnics.by_key.values().filter_map(of).flatten();
    vnics.synced.then(|| all.collect())
}

/// What a target was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    generation: i64,
    /// Of the device that it is asked by.
    device: String,
    source: IpAddr,
    /// Whether it is on another chassis.
    far: bool,
}

/// The targets of a running prober.
pub struct Targets {
    handle: Handle,
    netns: Arc<OwnedFd>,
    node: String,
    trust: Trust,
    made: BTreeMap<Key, Made>,
    /// Those that cannot be asked: at which generation, and from where.
    refused: BTreeMap<Key, (i64, IpAddr)>,
    controls: BTreeMap<Key, Made>,
    /// The Vpcs in which there is something to ask and no device, and since when.
    lacking: BTreeMap<String, Instant>,
    /// The addresses on this chassis; `None`: not known yet.
    here: Option<Addresses>,
}

impl Targets {
    /// None yet. `netns` is where their sockets are.
    pub fn new(handle: Handle, netns: Arc<OwnedFd>, node: &str) -> Self {
        Self {
            handle,
            netns,
            node: node.to_owned(),
            lacking: BTreeMap::new(),
            trust: Trust::default(),
            made: BTreeMap::new(),
            refused: BTreeMap::new(),
            controls: BTreeMap::new(),
            here: None,
        }
    }

    /// Takes in which addresses are on this chassis. Returns whether they are others than before.
    pub fn is_here(&mut self, here: Option<Addresses>) -> bool {
        let before = std::mem::replace(&mut self.here, here);
        before != self.here
    }

    /// Whether a tunnel leads to what is asked. As long as nothing is known, none does: its router vouches for it.
    fn is_far(&self, order: &Order<'_>) -> bool {
        let target = &order.object.spec.target;
        let at = target.ip.parse().ok().map(|ip| (target.vpc.clone(), ip));
        let here = self.here.as_ref().zip(at);
        here.is_some_and(|(here, at)| !here.contains(&at))
    }

    /// Removes the targets of which there is no order any more.
    pub fn retain(&mut self, orders: &[Order<'_>]) {
        let keys: BTreeSet<&Key> = orders.iter().map(|order| &order.key).collect();
        let gone = self.made.keys().filter(|key| !keys.contains(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.made.remove(&key);
            self.handle.remove(key);
        }
        self.refused.retain(|key, _| keys.contains(key));
        let groups: BTreeSet<Key> = orders
            .iter()
            .map(|order| control_key(order.vpc(), Family::of(order.source)))
            .collect();
        let gone = self.controls.keys().filter(|key| !groups.contains(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.controls.remove(&key);
            self.handle.remove(key);
        }
    }

    /// Forgets what is known of a target: the next [`Self::set`] begins anew with what its record says.
    pub fn forget(&mut self, key: &Key) {
        if self.made.remove(key).is_some() {
            self.handle.remove(key.clone());
        }
    }

    /// Adds and changes targets, as far as there are devices for them. Those for which there is none for long are Unknown,
    /// and `lack` says why. Returns when the next one is.
    pub fn set(
        &mut self,
        orders: &[Order<'_>],
        devices: &BTreeMap<String, Device>,
        lack: &str,
        records: &mut Records,
        now: (Instant, Timestamp),
    ) -> Option<Instant> {
        self.count(orders, devices, now.0);
        for order in orders {
            let generation = order.object.metadata.generation.unwrap_or_default();
            let question = (generation, order.source);
            if self.refused.get(&order.key) == Some(&question) {
                continue;
            }
            let device = devices.get(order.vpc());
            let family = Family::of(order.source);
            let source = device.and_then(|device| device.sources.get(&family));
            let made = device.zip(source).map(|(device, source)| Made {
                generation,
                device: device.name.clone(),
                source: *source,
                far: self.is_far(order),
            });
            let before = self.made.get(&order.key);
            let same = before.is_some_and(|before| match &made {
                Some(made) => before == made,
                // Its device is away: that shows in its rounds.
                None => before.generation == generation,
            });
            if same {
                continue;
            }
            match (self.probe(order), made) {
                (Ok(probe), Some(made)) => self.add(order, probe, made, records),
                // It waits for its device. What was asked of it before is asked no more.
                (Ok(_), None) if self.is_overdue(order.vpc(), now.0) => {
                    let (vpc, node) = (order.vpc(), &self.node);
                    let words = format!("no device in Vpc {vpc} on {node}: {lack}");
                    records.refuse(&order.key, words, now.0, now.1);
                    self.forget(&order.key);
                }
                (Ok(_), None) => {}
                (Err(words), _) => {
                    records.refuse(&order.key, words, now.0, now.1);
                    self.refused.insert(order.key.clone(), question);
                    self.forget(&order.key);
                }
            }
        }
        let ends = self.lacking.values().map(|since| *since + PATIENCE);
        ends.filter(|end| *end > now.0).min()
    }

    /// Notes since when Vpcs have no device.
    fn count(&mut self, orders: &[Order<'_>], devices: &BTreeMap<String, Device>, now: Instant) {
        let vpcs = orders.iter().map(Order::vpc);
        let lacking: BTreeSet<&str> = vpcs.filter(|vpc| !devices.contains_key(*vpc)).collect();
        self.lacking.retain(|vpc, _| lacking.contains(vpc.as_str()));
        for vpc in lacking {
            self.lacking.entry(vpc.to_owned()).or_insert(now);
        }
    }

    fn is_overdue(&self, vpc: &str, now: Instant) -> bool {
        let since = self.lacking.get(vpc);
        since.is_some_and(|since| now >= *since + PATIENCE)
    }

    fn probe(&mut self, order: &Order<'_>) -> Result<Probe, String> {
        let probe = Probe::new(&order.object.spec, &mut self.trust);
        let probe = probe.map_err(|invalid| invalid.to_string())?;
        if !is_usable(probe.address) {
            return Err("the prober's kernel has no IPv6".to_owned());
        }
        if Family::of(probe.address) != Family::of(order.source) {
            let (source, ip) = (order.source, probe.address);
            return Err(format!(
                "status.source: {source}: not of the family of spec.target.ip {ip}"
            ));
        }
        Ok(probe)
    }

    fn add(&mut self, order: &Order<'_>, probe: Probe, made: Made, records: &Records) {
        let family = Family::of(made.source);
        let group = group(order.vpc(), family);
        let way = Way::default().namespace(self.netns.clone()).mark(MARK);
        let sockets = Arc::new(way.device(&made.device).source(made.source));
        let control = control_key(order.vpc(), family);
        let of_control = Made {
            generation: 0,
            far: false,
            ..made.clone()
        };
        if self.controls.get(&control) != Some(&of_control) {
            let target = Target {
                probe: Probe {
                    address: gateway(made.source),
                    check: Check::Icmp(Icmp),
                    timing: CONTROL,
                },
                group: group.clone(),
                role: Role::Control,
                far: false,
                sockets: sockets.clone(),
                generation: 0,
            };
            self.handle.set(control.clone(), target, None);
            self.controls.insert(control, of_control);
        }
        let target = Target {
            probe,
            group,
            role: role(order),
            far: made.far,
            sockets,
            generation: made.generation,
        };
        let known = records.known(&order.key);
        self.refused.remove(&order.key);
        self.handle.set(order.key.clone(), target, known);
        self.made.insert(order.key.clone(), made);
    }
}

/// A NetworkProbe that ycloud-controller made to ask for a chassis tells whether tunnels work.
fn role(order: &Order<'_>) -> Role {
    let meta = &order.object.metadata;
    let labelled = meta.labels.as_ref();
    let labelled = labelled.is_some_and(|labels| labels.contains_key(key::CHASSIS_PROBE));
    match labelled && meta.namespace.as_deref() == Some(key::SYSTEM_NAMESPACE) {
        true => Role::Machine,
        false => Role::Backend,
    }
}

/// What shares a way: the targets of a family in a Vpc. No Vpc's name has a slash.
fn group(vpc: &str, family: Family) -> Arc<str> {
    format!("{vpc}/{family}").into()
}

/// The key of a group's control: one part less than a target's.
fn control_key(vpc: &str, family: Family) -> Key {
    group(vpc, family)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn objects(all: &[(&str, &str, &str, Value)]) -> Objects<NetworkProbe> {
        let object = |(name, prober, source, spec): &(&str, &str, &str, Value)| {
            let object = json!({
                "apiVersion": "iaas.yusur.io/v1",
                "kind": "NetworkProbe",
                "metadata": {"namespace": "ns", "name": name, "uid": "u", "generation": 1},
                "spec": spec,
                "status": {"prober": prober, "source": source},
            });
            let object = serde_json::from_value(object).expect("a NetworkProbe");
            (("ns".to_owned(), (*name).to_owned()), object)
        };
        Objects {
            synced: true,
            by_key: all.iter().map(object).collect(),
        }
    }

    fn tcp(vpc: &str, ip: &str) -> Value {
        json!({"target": {"vpc": vpc, "ip": ip, "port": 80}})
    }

    #[test]
    fn a_device_has_the_sources_of_those_that_this_node_asks() {
        let objects = objects(&[
            ("a", "n1", "100.68.0.7", tcp("v1", "10.0.0.1")),
            ("b", "n1", "fd00:100:64:44::7", tcp("v1", "fd00::1")),
            ("c", "n1", "100.68.0.7", tcp("v2", "10.0.0.1")),
            ("d", "n2", "100.68.0.8", tcp("v3", "10.0.0.1")),
            ("e", "n1", "nowhere", tcp("v4", "10.0.0.1")),
        ]);
        let networks = networks(&orders(&objects, "n1"));
        let text: Vec<String> = networks
            .iter()
            .map(|(vpc, sources)| {
                let sources = sources.values().map(|ip| format!(" {ip}"));
                format!("{vpc}:{}", sources.collect::<String>())
            })
            .collect();
        assert_eq!(text, ["v1: 100.68.0.7 fd00:100:64:44::7", "v2: 100.68.0.7"]);
    }

    #[tokio::test]
    async fn what_cannot_be_asked_says_so_and_the_rest_waits_for_its_device() {
        let bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let mut https = tcp("v1", "10.0.0.1");
        https["https"] = json!({"caBundle": bundle});
        let objects = objects(&[
            ("ca", "n1", "100.68.0.7", https),
            ("family", "n1", "100.68.0.7", tcp("v1", "fd00::1")),
            ("good", "n1", "100.68.0.7", tcp("v1", "10.0.0.1")),
        ]);
        let orders = orders(&objects, "n1");
        let (prober, handle, _reports) = ycloud_probe::Prober::new(Default::default());
        let running = tokio::spawn(prober.run());
        let netns = std::fs::File::open("/proc/self/ns/net").expect("a namespace");
        let mut targets = Targets::new(handle.clone(), Arc::new(netns.into()), "n1");
        let mut records = Records::default();
        for order in &orders {
            assert!(!records.observe(&order.key, order.object, Instant::now()));
        }
        let start = Instant::now();
        let at = |seconds| (start + Duration::from_secs(seconds), Timestamp::UNIX_EPOCH);
        let none = BTreeMap::new();
        let next = targets.set(&orders, &none, "why", &mut records, at(0));
        assert_eq!(next, Some(start + PATIENCE));
        assert!(targets.made.is_empty());
        let mut words = Vec::new();
        while let Some(write) = records.write(Instant::now(), Timestamp::UNIX_EPOCH) {
            let status = &write.patch["status"];
            words.push(format!(
                "{}: {} {}",
                write.name, status["state"], status["lastError"]
            ));
        }
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(words[0].starts_with("ca: \"Unknown\" \"spec.https.caBundle: certificate 1"));
        assert!(words[1].starts_with("family: \"Unknown\" \"status.source: 100.68.0.7: not of"));

        targets.set(&orders, &none, "why", &mut records, at(4));
        assert_eq!(records.next(), None, "it may come yet");
        let next = targets.set(&orders, &none, "why", &mut records, at(5));
        assert_eq!(next, None);
        let write = records.write(at(5).0, at(5).1).expect("a write");
        assert_eq!(
            (&*write.name, &write.patch["status"]["lastError"]),
            ("good", &"no device in Vpc v1 on n1: why".into())
        );

        let device = Device {
            name: "yp1".into(),
            sources: networks(&orders)["v1"].clone(),
        };
        let devices = [("v1".to_owned(), device)].into();
        targets.set(&orders, &devices, "why", &mut records, at(6));
        assert!(targets.lacking.is_empty());
        let far = |targets: &Targets| targets.made.values().any(|made| made.far);
        assert!(!far(&targets), "nobody knows");
        let vnic = json!({
            "apiVersion": "iaas.yusur.io/v1",
            "kind": "VNic",
            "metadata": {"namespace": "ns", "name": "x"},
            "spec": {"subnet": "s", "attachment": {"kind": "VM"}},
            "status": {"vpc": "v1", "ip": "10.0.0.1"},
        });
        let vnic: VNic = serde_json::from_value(vnic).expect("a VNic");
        for (by_key, expected) in [
            (BTreeMap::new(), true),
            ([(("ns".to_owned(), "x".to_owned()), vnic)].into(), false),
        ] {
            let vnics = Objects {
                synced: true,
                by_key,
            };
            assert!(targets.is_here(here(&vnics)));
            assert!(!targets.is_here(here(&vnics)), "nothing new");
            targets.set(&orders, &devices, "why", &mut records, at(6));
            assert_eq!(far(&targets), expected);
        }
        let keys: Vec<&str> = targets.made.keys().map(|key| &**key).collect();
        assert_eq!(keys, ["ns/good/u"]);
        let keys: Vec<&str> = targets.controls.keys().map(|key| &**key).collect();
        assert_eq!(keys, ["v1/IPv4"]);
        targets.retain(&[]);
        assert!(targets.made.is_empty() && targets.controls.is_empty());
        running.abort();
    }
}
