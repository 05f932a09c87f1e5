//! Eips that are deleted: their addresses rest before another namespace has them, whatever is deleted or restarted in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::gateways::{base, stored};
use crate::support::{Controller, Server, read};
use ycloud_api::{Eip, EipGateway};
use ycloud_compiler::{Event, Object, ObjectKey, ObjectRef, Owner};
use ycloud_controller::write::Action;

const FIRST: &str = "198.51.100.3";

/// A controller, and an API server that has an EipGateway and Eips; both go by one clock.
struct World<'a> {
    server: &'a Server,
    controller: Controller,
    gateway: Option<Arc<EipGateway>>,
    eips: BTreeMap<ObjectKey, Arc<Eip>>,
    version: u64,
    started: Instant,
    seconds: u32,
    /// What was written of addresses that rest, and of Eips and EipGateways that go.
    log: Vec<String>,
}

/// The object with a merge patch, RFC 7386.
fn patched<K: Serialize + DeserializeOwned>(object: &K, patch: &Value) -> K {
    fn merge(to: &mut Value, patch: &Value) {
        let Value::Object(fields) = patch else {
            *to = patch.clone();
            return;
        };
        if !to.is_object() {
            *to = json!({});
        }
        for (name, value) in fields {
            match value {
                Value::Null => drop(to.as_object_mut().unwrap().remove(name)),
                value => merge(&mut to[name], value),
            }
        }
    }
    let mut whole = serde_json::to_value(object).unwrap();
    merge(&mut whole, patch);
    serde_json::from_value(whole).unwrap()
}

fn at(seconds: u32) -> Time {
    Time(Timestamp::from_second(1_000 + i64::from(seconds)).unwrap())
}

impl<'a> World<'a> {
    /// Without Services.
    async fn start(server: &'a Server) -> Self {
        let objects: Vec<Object> = base()
            .into_iter()
            .filter(|object| !matches!(object, Object::Service(_)))
            .collect();
        Self::start_with(server, &objects).await
    }

    async fn start_with(server: &'a Server, objects: &[Object]) -> Self {
        let gateway = objects.iter().find_map(|object| match object {
            Object::EipGateway(gateway) => Some(gateway.clone()),
            _ => None,
        });
        let mut world = Self {
            server,
            controller: Controller::start(server, objects).await,
            gateway,
            eips: BTreeMap::new(),
            version: 100,
            started: Instant::now(),
            seconds: 0,
            log: Vec::new(),
        };
        world.settle().await;
        world
    }

    /// The controller ends, and another one begins with what the API server has.
    async fn restart(&mut self) {
        let mut objects: Vec<Object> = base()
            .into_iter()
            .filter(|object| !matches!(object, Object::Service(_) | Object::EipGateway(_)))
            .collect();
        objects.extend(self.gateway.clone().map(Object::EipGateway));
        objects.extend(self.eips.values().cloned().map(Object::Eip));
        self.controller = Controller::start(self.server, &objects).await;
    }

    fn take_in(&mut self, event: Event) {
        self.controller.state.take_in(event);
    }

    /// Does what the controller asks for until it asks for nothing, or so many lines are written.
    async fn settle_until(&mut self, lines: usize) {
        while self.log.len() < lines {
            self.controller.settle().await;
            let moment = self.started + Duration::from_secs(self.seconds.into());
            let state = &mut self.controller.state;
            let Some(owner) = state.objects.take(moment) else {
                return;
            };
            let Some(need) = state.next_write(&owner, &at(self.seconds)) else {
                state.objects.idle(&owner);
                continue;
            };
            state.objects.begin(&owner);
            let event = self.write(&owner, need.action);
            let written = event.is_some();
            event.into_iter().for_each(|event| self.take_in(event));
            let objects = &mut self.controller.state.objects;
            match written {
                true => objects.succeeded(&owner, None, moment),
                false => objects.idle(&owner),
            }
        }
    }

    async fn settle(&mut self) {
        self.settle_until(usize::MAX).await;
    }

    async fn pass(&mut self, seconds: u32) {
        self.seconds += seconds;
        self.settle().await;
    }

    /// What the API server does; nothing with what these tests have nothing to do with.
    fn write(&mut self, owner: &Owner, action: Action) -> Option<Event> {
        self.version += 1;
        let version = json!({"metadata": {"resourceVersion": self.version.to_string()}});
        match (owner, action) {
            (Owner::Eip(key), Action::CreateEip(eip)) => {
                let eip = stored(*eip, self.version);
                self.eips.insert(key.clone(), eip.clone());
                Some(Event::Apply(Object::Eip(eip)))
            }
            (Owner::Eip(key), Action::Patch { patch, .. }) => {
                let eip: Eip = patched(&patched(&**self.eips.get(key)?, &patch), &version);
                if ends(&eip.metadata) {
                    self.log.push(format!("Eip {key} goes"));
                    self.eips.remove(key);
                    return Some(Event::Delete(ObjectRef::Eip(key.clone())));
                }
                let eip = Arc::new(eip);
                self.eips.insert(key.clone(), eip.clone());
                Some(Event::Apply(Object::Eip(eip)))
            }
            (Owner::EipGateway(name), Action::Patch { patch, .. }) => {
                let gateway: EipGateway =
                    patched(&patched(&**self.gateway.as_ref()?, &patch), &version);
                if ends(&gateway.metadata) {
                    self.log.push(format!("EipGateway {name} goes"));
                    self.gateway = None;
                    return Some(Event::Delete(ObjectRef::EipGateway(name.clone())));
                }
                if patch["status"].get("released").is_some() {
                    let status = gateway.status.clone().unwrap();
                    let released = status.released.into_iter();
                    let released = released.map(|entry| {
                        let since = entry.time.0.as_second() - 1_000;
                        format!(" {} of {} since {since}", entry.address, entry.namespace)
                    });
                    let released: String = released.collect();
                    self.log.push(format!("rest:{released}"));
                }
                let gateway = Arc::new(gateway);
                self.gateway = Some(gateway.clone());
                Some(Event::Apply(Object::EipGateway(gateway)))
            }
            _ => None,
        }
    }

    /// Somebody makes an Eip.
    async fn make(&mut self, namespace: &str, name: &str, spec: &str) {
        self.version += 1;
        let eip: Arc<Eip> = read(&format!(
            "{{apiVersion: iaas.yusur.io/v1, kind: Eip, metadata: {{name: {name}, namespace: {namespace},
                uid: u-{namespace}-{name}-{version}, resourceVersion: '{version}'}}, spec: {{{spec}}}}}",
            version = self.version
        ));
        let key = ObjectKey::new(namespace, name);
        self.eips.insert(key, eip.clone());
        self.take_in(Event::Apply(Object::Eip(eip)));
        self.settle().await;
    }

    /// Somebody tells an Eip to go; nobody has looked at that yet.
    fn delete(&mut self, namespace: &str, name: &str) {
        let key = ObjectKey::new(namespace, name);
        let mut eip = Eip::clone(&self.eips[&key]);
        eip.metadata.deletion_timestamp = Some(at(self.seconds));
        self.version += 1;
        eip.metadata.resource_version = Some(self.version.to_string());
        let eip = Arc::new(eip);
        self.eips.insert(key, eip.clone());
        self.take_in(Event::Apply(Object::Eip(eip)));
    }

    /// Somebody changes the EipGateway.
    fn edit_gateway(&mut self, change: impl FnOnce(&mut EipGateway)) {
        let mut gateway = EipGateway::clone(self.gateway.as_ref().unwrap());
        change(&mut gateway);
        self.version += 1;
        gateway.metadata.resource_version = Some(self.version.to_string());
        let gateway = Arc::new(gateway);
        self.gateway = Some(gateway.clone());
        self.take_in(Event::Apply(Object::EipGateway(gateway)));
    }

    fn delete_gateway(&mut self) {
        let now = at(self.seconds);
        self.edit_gateway(|gateway| gateway.metadata.deletion_timestamp = Some(now));
    }

    /// The address of an Eip, or why it has none.
    fn address(&self, namespace: &str, name: &str) -> String {
        let eip = &self.eips[&ObjectKey::new(namespace, name)];
        let status = eip.status.clone().unwrap_or_default();
        let why = status.conditions.first().map(|ready| ready.message.clone());
        status.address.or(why).unwrap_or_default()
    }
}

/// Whether an object that was told to go is kept by nobody any more.
fn ends(metadata: &ObjectMeta) -> bool {
    let kept = metadata
        .finalizers
        .as_ref()
        .is_some_and(|all| !all.is_empty());
    metadata.deletion_timestamp.is_some() && !kept
}

#[tokio::test]
async fn an_eip_goes_once_its_address_rests_which_wakes_who_waits_for_it_when_it_has() {
    let server = Server::start().await;
    let mut world = World::start(&server).await;
    world.make("a", "x", "").await;
    assert_eq!(world.address("a", "x"), FIRST);
    world.delete("a", "x");
    world.settle().await;
    assert_eq!(
        world.log,
        [
            &format!("rest: {FIRST} of a since 0") as &str,
            "Eip a/x goes"
        ]
    );
    let asks = format!("address: {FIRST}");
    world.make("b", "y", &asks).await;
    let why = world.address("b", "y");
    assert!(why.contains("rests until 1970-01-01T00:26:40Z"), "{why}");
    world.make("b", "other", "").await;
    assert_eq!(world.address("b", "other"), "198.51.100.4");
    world.pass(599).await;
    assert_eq!(world.address("b", "y"), why);
    world.pass(1).await;
    assert_eq!(world.address("b", "y"), FIRST);
    assert_eq!(world.log[2..], ["rest:"]);
}

#[tokio::test]
async fn its_own_namespace_has_the_address_at_once_and_the_rest_begins_anew_each_time() {
    let server = Server::start().await;
    let mut world = World::start(&server).await;
    // No two seconds pass in which nobody has it, and twenty minutes in all.
    for round in 0..12 {
        let name = format!("x{round}");
        world.make("a", &name, "").await;
        assert_eq!(world.address("a", &name), FIRST);
        world.pass(99).await;
        world.delete("a", &name);
        world.settle().await;
        let since = format!("rest: {FIRST} of a since {}", world.seconds);
        assert!(world.log.contains(&since), "{:?}", world.log);
        world.pass(1).await;
    }
    world.make("b", "y", &format!("address: {FIRST}")).await;
    assert!(world.address("b", "y").contains("rests until"));
    world.pass(598).await;
    assert!(world.address("b", "y").contains("rests until"));
    world.pass(2).await;
    assert_eq!(world.address("b", "y"), FIRST);
}

#[tokio::test]
async fn a_controller_that_begins_in_the_middle_forgets_nothing() {
    let server = Server::start().await;
    let mut world = World::start(&server).await;
    world.make("a", "x", "").await;
    world.delete("a", "x");
    world.restart().await;
    world.settle_until(1).await;
    assert_eq!(world.log, [format!("rest: {FIRST} of a since 0")]);
    assert_eq!(world.eips.len(), 1);
    world.restart().await;
    world.settle().await;
    assert_eq!(world.log[1..], ["Eip a/x goes"]);
    world.pass(300).await;
    world.restart().await;
    world.settle().await;
    world.make("b", "y", &format!("address: {FIRST}")).await;
    world.pass(299).await;
    assert!(world.address("b", "y").contains("rests until"));
    world.pass(1).await;
    assert_eq!(world.address("b", "y"), FIRST);
}

#[tokio::test]
async fn whatever_goes_first_nobody_waits_for_ever() {
    let server = Server::start().await;
    // The EipGateway is told to go before its record is written, after it, and in one moment with the Eip.
    for recorded in [false, true] {
        let mut world = World::start(&server).await;
        world.make("a", "x", "").await;
        world.delete("a", "x");
        world.settle_until(usize::from(recorded)).await;
        world.delete_gateway();
        world.settle().await;
        let gone = ["Eip a/x goes", "EipGateway gw goes"];
        assert_eq!(world.log[usize::from(recorded)..], gone);
    }
    let mut world = World::start(&server).await;
    world.make("a", "x", "").await;
    world.delete_gateway();
    world.settle().await;
    assert!(world.log.is_empty(), "{:?}", world.log);
    world.delete("a", "x");
    world.settle().await;
    assert_eq!(world.log, ["Eip a/x goes", "EipGateway gw goes"]);
    // It is gone already, by force.
    let mut world = World::start(&server).await;
    world.make("a", "x", "").await;
    world.gateway = None;
    world.take_in(Event::Delete(ObjectRef::EipGateway("gw".to_owned())));
    world.delete("a", "x");
    world.settle().await;
    assert_eq!(world.log, ["Eip a/x goes"]);
}

#[tokio::test]
async fn an_eip_that_is_used_rests_once_it_is_not_and_nothing_rests_where_none_may() {
    let server = Server::start().await;
    let mut world = World::start_with(&server, &base()).await;
    assert_eq!(world.address("ns", "web"), FIRST);
    world.delete("ns", "web");
    world.pass(60).await;
    assert!(world.log.is_empty(), "{:?}", world.log);
    let web = ObjectRef::Service(ObjectKey::new("ns", "web"));
    world.take_in(Event::Delete(web));
    world.settle().await;
    let rests = format!("rest: {FIRST} of ns since 60");
    assert_eq!(world.log, [&rests as &str, "Eip ns/web goes"]);
    world.edit_gateway(|gateway| gateway.spec.reuse_after_seconds = 0);
    world.make("b", "y", "").await;
    assert_eq!(world.address("b", "y"), FIRST);
    world.delete("b", "y");
    world.settle().await;
    assert_eq!(world.log[2..], ["rest:", "Eip b/y goes"]);
}

#[tokio::test]
async fn a_gateway_of_which_nothing_can_be_said_yet_records_what_rests() {
    let server = Server::start().await;
    let mut world = World::start(&server).await;
    world.make("a", "x", "").await;
    world.delete("a", "x");
    world.restart().await;
    // Nothing is known of its rows: the databases are not read.
    let owner = Owner::EipGateway("gw".to_owned());
    let need = world.controller.state.next_write(&owner, &at(0)).unwrap();
    let Action::Patch { patch, .. } = need.action else {
        panic!("{need:?}")
    };
    let released = json!([{"address": FIRST, "namespace": "a", "time": "1970-01-01T00:16:40Z"}]);
    assert_eq!(patch, json!({"status": {"released": released}}));
    // One that is refused does, too.
    world.edit_gateway(|gateway| gateway.spec.vlan = -1);
    world.settle().await;
    assert_eq!(world.log.last().map(String::as_str), Some("Eip a/x goes"));
    let refused = world.gateway.clone().unwrap().status.clone().unwrap();
    assert_eq!(refused.conditions[0].reason, "Invalid");
    assert_eq!(refused.released.len(), 1);
}
