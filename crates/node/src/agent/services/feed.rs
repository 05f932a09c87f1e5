//! Watches of Services, EndpointSlices and Nodes that pass on only what concerns a node.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Retry, Supervisor};

use super::facts;
use super::world::{Change, Delta};
use crate::agent::objects::{Key, key};

/// Starts the watches; they run as long as the process.
pub fn start(supervisor: &Supervisor, client: &Client) -> mpsc::UnboundedReceiver<Change> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let to = (supervisor, &sender);
    follow(
        client,
        to,
        facts::service as fn(&Service) -> _,
        Change::Services,
    );
    follow(
        client,
        to,
        facts::slice as fn(&EndpointSlice) -> _,
        Change::Slices,
    );
    let node = |node: &Node| Some(facts::node(node));
    follow(client, to, node as fn(&Node) -> _, Change::Nodes);
    receiver
}

fn follow<K, T>(
    client: &Client,
    (supervisor, sender): (&Supervisor, &mpsc::UnboundedSender<Change>),
    part: fn(&K) -> Option<T>,
    change: fn(Delta<T>) -> Change,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
    T: Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let sender = sender.clone();
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let name = format!("watch of {kind}");
    supervisor.spawn(name, LIMIT, |heartbeat| async move {
        let events = watcher(api, watcher::Config::default()).backoff(Retry::default());
        let mut events = std::pin::pin!(events);
        let mut listing = BTreeMap::new();
        while let Some(event) = events.next().await {
            heartbeat.beat();
            let delta = match event {
                Ok(event) => take(event, &mut listing, part),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(kind, error, "watch failed; trying again");
                    None
                }
            };
            let gone = delta.is_some_and(|delta| sender.send(change(delta)).is_err());
            if gone {
                return;
            }
        }
    });
}

/// A list that is read again replaces the old one in one step, once it is complete.
fn take<K: Resource, T>(
    event: Event<K>,
    listing: &mut BTreeMap<Key, T>,
    part: fn(&K) -> Option<T>,
) -> Option<Delta<T>> {
    match event {
        Event::Init => {
            listing.clear();
            None
        }
        Event::InitApply(object) => {
            if let Some(part) = part(&object) {
                listing.insert(key(&object), part);
            }
            None
        }
        Event::InitDone => Some(Delta::All(std::mem::take(listing))),
        Event::Apply(object) => Some(Delta::One(key(&object), part(&object))),
        Event::Delete(object) => Some(Delta::One(key(&object), None)),
    }
}
