//! Which backends that have left a Service keep their connections, and until when.

mod support;

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use support::database::Database;
use support::objects;
use ycloud_api::VNic;
use ycloud_compiler::{
    Batch, Event, Object, ObjectKey, ObjectRef, Owner, OwnerIndex, Settings, Snapshot, compile,
    keep_connections,
};
use ycloud_ovsdb::Datum;

const PORTS: &[(&str, i32)] = &[("TCP", 80), ("UDP", 80)];

/// A Service `a` of Vpc `v1` with backends `x` and `y`, as it stands in the database.
struct World {
    snapshot: Snapshot,
    database: Database,
    index: OwnerIndex,
}

impl World {
    fn new() -> Self {
        let mut database = Database::default();
        let index = OwnerIndex::build(&database.snapshot());
        database.commit(&[]).expect("nothing to do");
        let mut world = Self {
            snapshot: Snapshot::new(Settings::default()),
            database,
            index,
        };
        for object in [
            Object::Vpc(objects::vpc("v1", &[])),
            Object::Subnet(objects::subnet("s", "v1", "10.0.1.0/24", 0)),
            Object::VNic(vnic("x", "10.0.1.5")),
            Object::VNic(vnic("y", "10.0.1.6")),
            Object::Service(objects::service("ns1", "a", Some("v1"), "10.96.0.1", PORTS)),
            Object::EndpointSlice(slice(&["10.0.1.5", "10.0.1.6"], &[])),
        ] {
            world.take_in(Event::Apply(object));
        }
        world
    }

    /// Only those whom the event and what comes of it name are looked at.
    fn take_in(&mut self, event: Event) {
        let mut dirty = self.snapshot.apply(event);
        for _ in 0..10 {
            if dirty.is_empty() {
                return;
            }
            let before = self.database.snapshot();
            let mut batch = Batch::new(&before, &self.index);
            for owner in &dirty {
                let rows = compile(&self.snapshot, owner).unwrap_or_default();
                batch.add(
                    owner,
                    &keep_connections(&self.snapshot, owner, rows, &before),
                );
            }
            let operations = batch.into_operations();
            self.database
                .commit(&operations)
                .expect("the server takes it");
            let changes = before.difference(&self.database.snapshot());
            dirty = self.index.apply(&changes, &self.snapshot);
        }
        panic!("still something to do for {dirty:?}");
    }

    /// Backends that take connections, and those that keep theirs, of a protocol.
    fn backends(&self, protocol: &str) -> (String, String) {
        let observed = self.database.snapshot();
        let owner = Owner::Service(ObjectKey::new("ns1", "a"));
        let rows = self.index.rows_of(&owner);
        let mut rows = rows.filter_map(|(table, uuid)| observed.row(table, uuid));
        let row = rows
            .find(|row| row.get("protocol").and_then(Datum::as_str) == Some(protocol))
            .expect("a load balancer");
        let text = |column: &str, key: &str| {
            let map = row.get(column).and_then(Datum::as_map);
            let text = map.and_then(|map| map.get_str(key));
            text.unwrap_or_default()
                .replace("10.96.0.1:80=", "")
                .replace(":1080", "")
        };
        (text("vips", "10.96.0.1:80"), text("options", "draining"))
    }
}

fn vnic(name: &str, ip: &str) -> Arc<VNic> {
    objects::vnic("ns1", name, "s", Some("n1"), Some(ip))
}

fn slice(ready: &[&str], ended: &[&str]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = ready.iter().map(|ip| ((*ip).to_owned(), "ready")).collect();
    objects::slice_ended(&objects::slice("ns1", "a", "a", PORTS, &endpoints), ended)
}

fn endpoints(ready: &[&str], ended: &[&str]) -> Event {
    Event::Apply(Object::EndpointSlice(slice(ready, ended)))
}

fn gone(vnic: &str) -> Event {
    Event::Delete(ObjectRef::VNic(ObjectKey::new("ns1", vnic)))
}

fn deleted(name: &str, ip: &str) -> Event {
    let mut vnic = VNic::clone(&vnic(name, ip));
    vnic.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    Event::Apply(Object::VNic(Arc::new(vnic)))
}

/// What happens one after the other, and what TCP has then: who takes connections, and who keeps theirs.
type Case = (&'static str, Vec<Event>, &'static str, &'static str);

fn cases() -> Vec<Case> {
    let (x, y) = ("10.0.1.5", "10.0.1.6");
    vec![
        ("all are ready", vec![], "10.0.1.5,10.0.1.6", ""),
        ("one leaves, and lives", vec![endpoints(&[y], &[])], y, x),
        (
            "it comes back",
            vec![endpoints(&[y], &[]), endpoints(&[x, y], &[])],
            "10.0.1.5,10.0.1.6",
            "",
        ),
        (
            "one after the other",
            vec![endpoints(&[y], &[]), endpoints(&[x], &[])],
            x,
            y,
        ),
        (
            "the last one too",
            vec![endpoints(&[y], &[]), endpoints(&[], &[])],
            "",
            "10.0.1.5 10.0.1.6",
        ),
        ("its check fails", vec![endpoints(&[y], &[x])], y, ""),
        (
            "it left before its connections are to end",
            vec![endpoints(&[y], &[]), endpoints(&[y], &[x])],
            y,
            "",
        ),
        (
            "it leaves, and is gone",
            vec![endpoints(&[y], &[]), gone("x")],
            y,
            "",
        ),
        (
            "it is gone before it leaves",
            vec![gone("x"), endpoints(&[y], &[])],
            y,
            "",
        ),
        (
            "it is being deleted, and has its port still",
            vec![deleted("x", x), endpoints(&[y], &[])],
            y,
            x,
        ),
        (
            "nobody has the address",
            vec![endpoints(&[y, "10.0.1.7"], &[]), endpoints(&[y], &[])],
            y,
            x,
        ),
        (
            "another has its address later",
            vec![
                endpoints(&[y], &[]),
                gone("x"),
                Event::Apply(Object::VNic(vnic("z", x))),
            ],
            y,
            "",
        ),
    ]
}

#[test]
fn who_leaves_and_lives_keeps_tcp_connections_until_it_is_gone_or_fails() {
    for (what, events, takes, keeps) in cases() {
        let mut world = World::new();
        for event in events {
            world.take_in(event);
        }
        let expected = (takes.to_owned(), keeps.to_owned());
        assert_eq!(world.backends("tcp"), expected, "{what}");
        let udp = (takes.to_owned(), String::new());
        assert_eq!(world.backends("udp"), udp, "{what}: UDP moves at once");
    }
}

#[test]
fn what_edits_of_ports_leave_behind_is_bounded() {
    let mut world = World::new();
    let both = [
        ("10.0.1.5".to_owned(), "ready"),
        ("10.0.1.6".to_owned(), "ready"),
    ];
    for round in 0..600 {
        let mut slice = EndpointSlice::clone(&objects::slice("ns1", "a", "a", PORTS, &both));
        for port in slice.ports.iter_mut().flatten() {
            port.port = Some(2000 + round);
        }
        world.take_in(Event::Apply(Object::EndpointSlice(Arc::new(slice))));
    }
    let (_, keeps) = world.backends("tcp");
    assert_eq!(keeps.split(' ').count(), 1000);
}
