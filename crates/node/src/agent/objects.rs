//! What the agent reads from the API server: VNics of its node, Subnets, service ranges, EipGateways. Services, of which
//! there may be many, are [`super::services::feed`]'s.
//!
//! Each kind is mirrored by one watch. A list that is read again (after the API server restarted) takes the old one's
//! place in one step, and until the first one is complete nothing is concluded from what is missing. Of NetworkProbes, of which
//! one node may ask ten thousand, those of the first list are there as they come.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use ycloud_api::{EipGateway, NetworkProbe, Subnet, VNic, mirror};
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Heartbeat, Retry, Supervisor};

use super::family::is_usable;

/// Namespace (empty for cluster-scoped kinds) and name.
pub type Key = (String, String);

/// All objects of a kind that a watch selects.
#[derive(Debug)]
pub struct Objects<K> {
    /// Whether the first list is complete.
    pub synced: bool,
    /// The objects.
    pub by_key: BTreeMap<Key, K>,
}

/// The mirrors. Cheap to clone.
#[derive(Clone)]
pub struct Mirrors {
    /// VNics attached on this node.
    pub vnics: watch::Receiver<Objects<VNic>>,
    /// All Subnets.
    pub subnets: watch::Receiver<Objects<Subnet>>,
    /// All service ranges.
    pub service_cidrs: watch::Receiver<Objects<ServiceCIDR>>,
    /// All EipGateways.
    pub eip_gateways: watch::Receiver<Objects<EipGateway>>,
}

impl Mirrors {
    /// Starts the watches of all but the VNics, see [`vnics`]; they run as long as the process.
    pub fn start(
        supervisor: &Supervisor,
        client: &Client,
        vnics: watch::Receiver<Objects<VNic>>,
    ) -> Self {
        let all = watcher::Config::default();
        Self {
            vnics,
            subnets: mirror(supervisor, Api::all(client.clone()), all.clone()),
            service_cidrs: mirror(supervisor, Api::all(client.clone()), all.clone()),
            eip_gateways: mirror(supervisor, Api::all(client.clone()), all),
        }
    }

    /// What has not been listed yet, in words.
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = [
            ("the VNics of this node", self.vnics.borrow().synced),
            ("the Subnets", self.subnets.borrow().synced),
            ("the service ranges", self.service_cidrs.borrow().synced),
        ];
        parts
            .iter()
            .filter(|(_, synced)| !synced)
            .map(|(name, _)| *name)
            .collect()
    }
}

/// The NetworkProbes that `node` asks.
pub fn probes(
    supervisor: &Supervisor,
    client: &Client,
    node: &str,
) -> watch::Receiver<Objects<NetworkProbe>> {
    let of_node = format!("status.prober={node}");
    let config = watcher::Config::default().fields(&of_node);
    let api = Api::all(client.clone());
    start(supervisor, api, config, First::AsItComes)
}

/// Starts the watch of the VNics attached on a chassis; it runs as long as the process.
pub fn vnics(
    supervisor: &Supervisor,
    client: &Client,
    chassis: &str,
) -> watch::Receiver<Objects<VNic>> {
    let attached = format!("spec.attachment.chassis={chassis}");
    let config = watcher::Config::default().fields(&attached);
    mirror(supervisor, Api::all(client.clone()), config)
}

/// When the objects of the first list are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// All at once.
    Whole,
    /// Each when it was read.
    AsItComes,
}

fn mirror<K>(
    supervisor: &Supervisor,
    api: Api<K>,
    config: watcher::Config,
) -> watch::Receiver<Objects<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    start(supervisor, api, config, First::Whole)
}

fn start<K>(
    supervisor: &Supervisor,
    api: Api<K>,
    config: watcher::Config,
    first: First,
) -> watch::Receiver<Objects<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let empty = Objects {
        synced: false,
        by_key: BTreeMap::new(),
    };
    let (sender, receiver) = watch::channel(empty);
    let name = format!("watch of {}", K::kind(&K::DynamicType::default()));
    supervisor.spawn(name, LIMIT, |heartbeat| {
        run(api, config, first, sender, heartbeat)
    });
    receiver
}

async fn run<K>(
    api: Api<K>,
    config: watcher::Config,
    first: First,
    sender: watch::Sender<Objects<K>>,
    heartbeat: Heartbeat,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let events = watcher(api, config).backoff(Retry::default());
    let mut events = std::pin::pin!(events);
    let mut listing = BTreeMap::new();
    while let Some(event) = events.next().await {
        heartbeat.beat();
        match event {
            Ok(event) => apply(reduced(event), first, &mut listing, &sender),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(kind, error, "watch failed; trying again");
            }
        }
    }
}

/// Takes away what nobody here reads.
fn reduced<K: Resource>(event: Event<K>) -> Event<K> {
    event.modify(|object| mirror::reduce(object.meta_mut()))
}

fn apply<K: Resource + Clone>(
    event: Event<K>,
    first: First,
    listing: &mut BTreeMap<Key, K>,
    sender: &watch::Sender<Objects<K>>,
) {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(object) => {
            if first == First::AsItComes && !sender.borrow().synced {
                let object = object.clone();
                sender.send_modify(|objects| {
                    objects.by_key.insert(key(&object), object);
                });
            }
            listing.insert(key(&object), object);
        }
        Event::InitDone => sender.send_modify(|objects| {
            objects.by_key = std::mem::take(listing);
            objects.synced = true;
        }),
        Event::Apply(object) => sender.send_modify(|objects| {
            objects.by_key.insert(key(&object), object);
        }),
        Event::Delete(object) => sender.send_modify(|objects| {
            objects.by_key.remove(&key(&object));
        }),
    }
}

/// The ranges of a Subnet that the kernel can use.
pub fn ranges(subnet: &Subnet) -> impl Iterator<Item = IpNet> {
    let ranges = subnet.spec.cidrs().filter_map(|cidr| cidr.parse().ok());
    ranges.filter(|range: &IpNet| is_usable(range.addr()))
}

/// The range from which an EipGateway's EIPs are: the one that ycloud-controller accepted last, if there is one.
pub fn eip_range(gateway: &EipGateway) -> Option<IpNet> {
    let accepted = gateway.status.as_ref().and_then(|s| s.cidr.as_ref());
    accepted.unwrap_or(&gateway.spec.cidr).parse().ok()
}

/// That range, and the addresses of the EipGateway itself and of its upstream router, which may be outside.
pub fn eip_networks(gateway: &EipGateway) -> impl Iterator<Item = IpNet> {
    let accepted = gateway.status.as_ref().and_then(|s| s.address.as_ref());
    let own = accepted.or(gateway.spec.address.as_ref());
    let own = own.and_then(|address| address.parse().ok());
    let own = own.map(|address: IpNet| IpNet::from(address.addr()));
    let upstream = gateway.spec.gateway.parse().ok();
    let upstream = upstream.map(|ip: IpAddr| IpNet::from(ip));
    eip_range(gateway).into_iter().chain(own).chain(upstream)
}

/// Namespace and name of an object.
pub(super) fn key<K: Resource>(object: &K) -> Key {
    (
        object.meta().namespace.clone().unwrap_or_default(),
        object.name_any(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vnic(name: &str) -> VNic {
        let mut vnic = VNic::new(name, Default::default());
        vnic.metadata.namespace = Some("ns".into());
        vnic
    }

    #[test]
    fn an_eip_gateway_has_its_range_as_accepted_its_own_address_and_its_router() {
        let mut gateway = EipGateway::new("gw", Default::default());
        gateway.spec.cidr = "198.51.100.0/24".into();
        gateway.spec.gateway = "203.0.113.1".into();
        gateway.spec.address = Some("203.0.113.2/30".into());
        let networks = |gateway: &EipGateway| -> Vec<String> {
            let networks = eip_networks(gateway);
            networks.map(|net| net.to_string()).collect()
        };
        let expected = ["198.51.100.0/24", "203.0.113.2/32", "203.0.113.1/32"];
        assert_eq!(networks(&gateway), expected);
        gateway.status = Some(ycloud_api::EipGatewayStatus {
            cidr: Some(gateway.spec.cidr.clone()),
            address: gateway.spec.address.clone(),
            ..Default::default()
        });
        gateway.spec.cidr = "10.96.0.0/12".into();
        gateway.spec.address = None;
        assert_eq!(networks(&gateway), expected, "a change that is refused");
    }

    #[test]
    fn what_nobody_reads_is_not_mirrored() {
        let entry = k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry::default();
        let mut object = vnic("a");
        object.metadata.managed_fields = Some(vec![entry]);
        for event in [Event::InitApply(object.clone()), Event::Apply(object)] {
            match reduced(event) {
                Event::InitApply(object) | Event::Apply(object) => assert_eq!(object, vnic("a")),
                event => panic!("{event:?}"),
            }
        }
    }

    #[test]
    fn a_list_read_again_takes_the_old_one_s_place_in_one_step() {
        for (first, early) in [(First::Whole, &[][..]), (First::AsItComes, &["a"])] {
            let empty = Objects {
                synced: false,
                by_key: BTreeMap::new(),
            };
            let (sender, receiver) = watch::channel(empty);
            let mut listing = BTreeMap::new();
            let mut feed = |event| apply(event, first, &mut listing, &sender);
            let names = || -> Vec<String> {
                let objects = receiver.borrow();
                let keys = objects.by_key.keys();
                keys.map(|(_, name)| name.clone()).collect()
            };
            feed(Event::Init);
            feed(Event::InitApply(vnic("a")));
            assert!(!receiver.borrow().synced);
            assert_eq!(names(), early, "{first:?}");
            // It breaks off, and is read from its start; another object is gone meanwhile.
            feed(Event::Init);
            feed(Event::InitApply(vnic("c")));
            feed(Event::InitDone);
            feed(Event::Apply(vnic("b")));
            assert!(receiver.borrow().synced);
            assert_eq!(names(), ["b", "c"]);
            feed(Event::Init);
            feed(Event::InitApply(vnic("b")));
            assert_eq!(names(), ["b", "c"], "kept until the new list is complete");
            feed(Event::InitDone);
            assert_eq!(names(), ["b"]);
            feed(Event::Delete(vnic("b")));
            assert!(names().is_empty());
        }
    }
}
