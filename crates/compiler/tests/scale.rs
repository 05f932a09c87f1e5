//! 1,000 Services with EIPs over 50 Vpcs: all rows are there after a few transactions, each of one batch; when all objects
//! go, the database is as at the start.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::database::{Database, foreign};
use support::objects::{self, reference};
use support::scale::{PORTS, SERVICES, VPCS, eip_of, vpc_of, world};
use ycloud_compiler::{
    Batch, Event, Object, ObjectKey, Owner, OwnerIndex, Settings, Snapshot, compile, eip_address,
    eip_usage, hindrance, keep_connections,
};

/// A snapshot and a database that follows it, as the controller makes it follow: only whom events name is compared.
struct Cluster {
    snapshot: Snapshot,
    database: Database,
    index: OwnerIndex,
    dirty: BTreeSet<Owner>,
    /// How often an owner was compiled.
    compiled: usize,
}

impl Cluster {
    fn new() -> Self {
        let database = foreign();
        let index = OwnerIndex::build(&database.snapshot());
        Self {
            snapshot: Snapshot::new(Settings::default()),
            database,
            index,
            dirty: BTreeSet::new(),
            compiled: 0,
        }
    }

    fn tell(&mut self, event: Event) {
        self.dirty.extend(self.snapshot.apply(event));
    }

    fn settle(&mut self) {
        for _ in 0..5 {
            if self.dirty.is_empty() {
                return;
            }
            let before = self.database.snapshot();
            let mut batch = Batch::new(&before, &self.index);
            for owner in std::mem::take(&mut self.dirty) {
                self.compiled += 1;
                let rows = compile(&self.snapshot, &owner).unwrap_or_else(|r| panic!("{r}"));
                let rows = keep_connections(&self.snapshot, &owner, rows, &before);
                batch.add(&owner, &rows);
            }
            let operations = batch.into_operations();
            let committed = self.database.commit(&operations);
            committed.unwrap_or_else(|error| panic!("{error}"));
            let changes = before.difference(&self.database.snapshot());
            self.dirty = self.index.apply(&changes, &self.snapshot);
        }
        panic!("still something to do for {:?}", self.dirty);
    }

    fn count(&self, table: &str) -> usize {
        self.database
            .rows
            .keys()
            .filter(|(of, _)| *of == table)
            .count()
    }
}

#[test]
fn a_thousand_services_over_fifty_vpcs_come_and_go_without_a_trace() {
    let mut cluster = Cluster::new();
    let start = cluster.database.clone();
    let empty: BTreeMap<&str, usize> = ["NAT", "Load_Balancer", "Logical_Router"]
        .map(|table| (table, cluster.count(table)))
        .into();
    let mut objects = world();
    for object in &objects {
        cluster.tell(Event::Apply(object.clone()));
    }
    let services: Vec<ObjectKey> = cluster
        .snapshot
        .services()
        .map(|(key, _)| key.clone())
        .collect();
    for key in &services {
        for event in eip_of(&cluster.snapshot, key) {
            cluster.tell(event.clone());
            if let Event::Apply(eip) = event {
                objects.push(eip);
            }
        }
    }
    cluster.settle();

    assert_eq!(eip_usage(&cluster.snapshot, "g1").used, SERVICES as i64);
    let given: BTreeSet<_> = services
        .iter()
        .map(|key| eip_address(&cluster.snapshot, key).expect("an EIP"))
        .collect();
    assert_eq!(given.len(), SERVICES);
    for owner in cluster.snapshot.owners() {
        assert_eq!(hindrance(&cluster.snapshot, &owner), None);
    }
    let made = |table: &str| cluster.count(table) - empty[table];
    // A protocol: of the cluster address, but for those over several Vpcs, and of the EIP.
    let over_several = SERVICES / 5;
    assert_eq!(
        made("Load_Balancer"),
        2 * (SERVICES - over_several) + 2 * SERVICES
    );
    // Service gateways: 2. Ten Vpcs have backends of Services over several, and the next ten ones of those too.
    let aliased = 2 * VPCS / 5;
    assert_eq!(made("Logical_Router"), 1 + 2 + VPCS + 2 * aliased);
    let aliases = 2 * SERVICES / 5 * 2;
    assert_eq!(made("NAT"), VPCS + SERVICES + 2 * aliases);

    // Looked at as a whole, nothing is to be done.
    let settled = cluster.database.clone();
    cluster.dirty = cluster.snapshot.owners();
    cluster.settle();
    assert!(settled == cluster.database);

    // One endpoint's change concerns few.
    cluster.compiled = 0;
    let slice = objects::slice("ns", "s0001-0", "s0001", PORTS, &[]);
    let gone = Object::EndpointSlice(objects::slice_of_vpc(&slice, &vpc_of(1)));
    cluster.tell(Event::Apply(gone));
    cluster.settle();
    assert!(cluster.compiled <= 4, "{}", cluster.compiled);

    for object in objects.iter().rev() {
        cluster.tell(Event::Delete(reference(object)));
    }
    cluster.settle();
    assert!(cluster.database == start);
    assert!(cluster.index.is_empty());
}
