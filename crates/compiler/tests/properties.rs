//! What must hold for every cluster and every database. ARCHITECTURE.md, "Invariants".

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use support::database::{Database, foreign};
use support::objects::reference;
use support::world::{events, line, survivors};
use ycloud_api::address::Family;
use ycloud_compiler::row::MONITORED;
use ycloud_compiler::{
    Batch, Event, Object, Owner, OwnerIndex, Row, Settings, Snapshot, active_node, allocate,
    compile, eip_address, eip_binding, eip_gateway_address, eip_gateway_cidr, eip_usage,
    eligible_nodes, hindrance, is_outdated, keep_connections, resting_place, service_gateways,
    usage, users, wanted_eip, wanted_vnic,
};
use ycloud_ovsdb::{Atom, Columns, Datum, Operation};

/// By owner: what it compiles to, and what its object's status and finalizer say besides.
type Verdicts = BTreeMap<Owner, (Result<Vec<Row>, (bool, String)>, Vec<String>)>;

fn verdicts(snapshot: &Snapshot) -> Verdicts {
    let compiled = |owner: &Owner| {
        let compiled = compile(snapshot, owner);
        compiled.map_err(|rejection| (rejection.keep, rejection.message))
    };
    let owners = snapshot.owners().into_iter();
    owners
        .map(|owner| {
            let verdict = (compiled(&owner), said(snapshot, &owner));
            (owner, verdict)
        })
        .collect()
}

/// All that ycloud-controller says of an object, besides whether its rows are right.
fn said(snapshot: &Snapshot, owner: &Owner) -> Vec<String> {
    let mut said = Vec::new();
    if leaves(snapshot, owner) {
        said = users(snapshot, owner);
    }
    said.extend(hindrance(snapshot, owner).map(|rejection| rejection.message));
    let mut say = |what: &dyn std::fmt::Debug| said.push(format!("{what:?}"));
    match owner {
        Owner::Vpc(name) => {
            say(&snapshot.accepted_subnets(name));
            say(&snapshot.eip_gateway_of(name));
        }
        Owner::Subnet(name) => {
            say(&snapshot.network(name));
            for family in Family::ALL {
                say(&usage(snapshot, name, family));
            }
        }
        Owner::VNic(key) => {
            say(&wanted_vnic(snapshot, key));
            let vnic = snapshot.vnic(key);
            let lacks = vnic.filter(|vnic| snapshot.lacks_address(vnic));
            // Which one of those that are free it gets has to do with who was served last.
            say(&lacks.map(|vnic| allocate(snapshot, vnic).err()));
        }
        Owner::EipGateway(name) => {
            say(&(snapshot.default_eip_gateway() == Some(name.as_str())));
            say(&(
                eip_gateway_cidr(snapshot, name),
                eip_gateway_address(snapshot, name),
                eip_usage(snapshot, name),
            ));
            say(&(
                active_node(snapshot, name),
                eligible_nodes(snapshot, name),
                service_gateways(snapshot, name),
            ));
        }
        Owner::Eip(key) => {
            say(&eip_binding(snapshot, key));
            // Where it is to rest keeps it, once it is being deleted.
            say(&leaves(snapshot, owner).then(|| resting_place(snapshot, key)));
            say(&(
                wanted_eip(snapshot, key),
                is_outdated(snapshot, key),
                snapshot.eip_of_service(key).as_ref() == Some(key),
                snapshot.service(key).is_some(),
            ));
        }
        Owner::Service(key) => say(&eip_address(snapshot, key)),
        Owner::NetworkProbe(key) => say(&snapshot.assignment(key)),
        Owner::Node(_) => {}
    }
    said
}

/// Whether the object is being deleted: it goes once nobody uses it any more.
fn leaves(snapshot: &Snapshot, owner: &Owner) -> bool {
    let metadata = match owner {
        Owner::Vpc(name) => snapshot.vpc(name).map(|vpc| &vpc.metadata),
        Owner::Subnet(name) => snapshot.subnet(name).map(|subnet| &subnet.metadata),
        Owner::EipGateway(name) => snapshot.eip_gateway(name).map(|gateway| &gateway.metadata),
        Owner::Eip(key) => snapshot.eip(key).map(|eip| &eip.metadata),
        _ => None,
    };
    metadata.is_some_and(|metadata| metadata.deletion_timestamp.is_some())
}

/// Reconciles the given owners once, in one transaction, as the controller does.
fn reconcile(
    snapshot: &Snapshot,
    database: &mut Database,
    index: &mut OwnerIndex,
    owners: &BTreeSet<Owner>,
) -> BTreeSet<Owner> {
    let before = database.snapshot();
    let mut batch = Batch::new(&before, index);
    for owner in owners {
        let size = batch.len();
        let added = match compile(snapshot, owner) {
            Ok(rows) => batch.add(owner, &keep_connections(snapshot, owner, rows, &before)),
            Err(rejection) if rejection.keep => false,
            Err(_) => batch.add(owner, &[]),
        };
        assert_eq!(added, batch.len() > size, "{owner:?} has something to do");
    }
    let (size, empty) = (batch.len(), batch.is_empty());
    let operations = batch.into_operations();
    assert_eq!(size, changes(&operations), "{operations:#?}");
    assert_eq!(empty, operations.is_empty(), "{operations:#?}");
    database
        .commit(&operations)
        .unwrap_or_else(|error| panic!("{error}\n{operations:#?}"));
    let after = database.snapshot();
    let woken = index.apply(&before.difference(&after), snapshot);
    assert_eq!(
        *index,
        OwnerIndex::build(&after),
        "kept up, as if built anew"
    );
    woken
}

/// How many rows and memberships they change.
fn changes(operations: &[Operation]) -> usize {
    let of_one = |operation: &Operation| match operation {
        Operation::Mutate { mutations, .. } => mutations
            .iter()
            .map(|mutation| match &mutation.value {
                Datum::Set(members) => members.len(),
                Datum::Map(_) => 1,
            })
            .sum(),
        _ => 1,
    };
    operations.iter().map(of_one).sum()
}

/// Reconciles until there is nothing left to do; returns how often something was.
fn settle(
    snapshot: &Snapshot,
    database: &mut Database,
    index: &mut OwnerIndex,
    mut dirty: BTreeSet<Owner>,
) -> usize {
    for round in 0..10 {
        if dirty.is_empty() {
            return round;
        }
        dirty = reconcile(snapshot, database, index, &dirty);
    }
    panic!("still something to do for {dirty:?}");
}

/// The rows that an owner must have and the database has not, although all that they need is there.
fn lacking(snapshot: &Snapshot, database: &Database) -> Vec<Row> {
    let there: BTreeSet<uuid::Uuid> = database.rows.keys().map(|(_, uuid)| *uuid).collect();
    let needs = |row: &Row| {
        let parents = row.parents.iter().map(|parent| parent.uuid);
        let named = row.columns.iter().flat_map(|(_, value)| match value {
            Datum::Set(set) => set.iter().collect(),
            Datum::Map(_) => Vec::new(),
        });
        let named = named.filter_map(|atom| match atom {
            Atom::Uuid(uuid) => Some(*uuid),
            _ => None,
        });
        parents.chain(named).collect::<BTreeSet<_>>()
    };
    let compiled = snapshot.owners().into_iter();
    let rows = compiled.flat_map(|owner| compile(snapshot, &owner).unwrap_or_default());
    let lacking = rows.filter(|row| !there.contains(&row.uuid) && needs(row).is_subset(&there));
    lacking.collect()
}

/// All there is to reconcile at a start.
fn everything(snapshot: &Snapshot, index: &OwnerIndex) -> BTreeSet<Owner> {
    snapshot
        .owners()
        .into_iter()
        .chain(index.owners().cloned())
        .collect()
}

fn built(events: &[Event]) -> Snapshot {
    let mut snapshot = Snapshot::new(Settings::default());
    for event in events {
        snapshot.apply(event.clone());
    }
    snapshot
}

proptest! {
    /// The history of a snapshot does not matter, only the objects that are there.
    #[test]
    fn the_order_of_events_does_not_matter(history in events(1..40), seed in any::<u64>()) {
        let left = shuffled(survivors(&history), seed);
        let anew: Vec<Event> = left.into_iter().map(Event::Apply).collect();
        prop_assert_eq!(verdicts(&built(&history)), verdicts(&built(&anew)));
    }

    /// Whoever compiles to something else after an event was named by it.
    #[test]
    fn an_event_names_everyone_it_concerns(history in events(1..30), last in events(1..6)) {
        let mut snapshot = built(&history);
        for event in last.0 {
            let before = verdicts(&snapshot);
            let named = snapshot.apply(event.clone());
            let after = verdicts(&snapshot);
            let all: BTreeSet<&Owner> = before.keys().chain(after.keys()).collect();
            for owner in all {
                // Who comes or goes is named if only it had rows.
                let nothing = (Ok(Vec::new()), Vec::new());
                let both = (before.get(owner), after.get(owner));
                let (old, new) = (both.0.unwrap_or(&nothing), both.1.unwrap_or(&nothing));
                prop_assert!(old == new || named.contains(owner), "{} changed {}, and did not name it: {:?} -> {:?}", line(&event), owner, old, new);
            }
        }
    }

    /// From any database to any cluster in a few transactions, each of which the server takes; then nothing more. What
    /// is not ycloud's stays as it is, and when the cluster goes, only that is left.
    #[test]
    fn a_cluster_comes_and_goes(history in events(1..40)) {
        let others = foreign();
        let mut database = others.clone();
        let snapshot = built(&history);
        let mut index = OwnerIndex::build(&database.snapshot());
        let all = everything(&snapshot, &index);
        settle(&snapshot, &mut database, &mut index, all);

        let all = everything(&snapshot, &index);
        let settled = database.clone();
        prop_assert!(reconcile(&snapshot, &mut database, &mut index, &all).is_empty());
        prop_assert_eq!(&settled, &database);
        for (key, row) in &others.rows {
            prop_assert_eq!(Some(row), database.rows.get(key));
        }
        prop_assert_eq!(lacking(&snapshot, &database), Vec::new());

        let nothing = Snapshot::new(Settings::default());
        let all = everything(&nothing, &index);
        settle(&nothing, &mut database, &mut index, all);
        prop_assert_eq!(database, others);
        prop_assert!(index.is_empty());
    }

    /// Objects may go in any order, Vpcs before their Subnets and EipGateways before all that hangs on them: once all are
    /// gone, so are their rows.
    #[test]
    fn what_goes_one_by_one_leaves_nothing(history in events(1..40), seed in any::<u64>()) {
        let others = foreign();
        let mut database = others.clone();
        let mut snapshot = built(&history);
        let mut index = OwnerIndex::build(&database.snapshot());
        let all = everything(&snapshot, &index);
        settle(&snapshot, &mut database, &mut index, all);
        for object in shuffled(survivors(&history), seed) {
            let dirty = snapshot.apply(Event::Delete(reference(&object)));
            settle(&snapshot, &mut database, &mut index, dirty);
        }
        prop_assert_eq!(database, others);
        prop_assert!(index.is_empty());
        prop_assert!(snapshot.owners().is_empty());
    }

    /// Only those whom events and changes name are reconciled, and still the database becomes what a start from nothing
    /// would make of it. Subnets that are refused while in use are what a start cannot make: they keep older rows.
    #[test]
    fn following_events_leads_to_the_same_as_starting_anew(history in events(1..30)) {
        let mut snapshot = Snapshot::new(Settings::default());
        let mut database = foreign();
        let mut index = OwnerIndex::build(&database.snapshot());
        for event in history.0 {
            let dirty = snapshot.apply(event);
            settle(&snapshot, &mut database, &mut index, dirty);
        }
        let all = everything(&snapshot, &index);
        let followed = database.clone();
        settle(&snapshot, &mut database, &mut index, all);
        prop_assert_eq!(&followed, &database);
        prop_assert_eq!(sorted(&index), sorted(&OwnerIndex::build(&database.snapshot())));
    }

    /// Whatever is done by hand to owned rows is undone, and nobody else's rows change by it.
    #[test]
    fn edits_by_hand_are_undone(history in events(5..40), edits in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4), 1..5)) {
        let mut database = foreign();
        let snapshot = built(&history);
        let mut index = OwnerIndex::build(&database.snapshot());
        let all = everything(&snapshot, &index);
        settle(&snapshot, &mut database, &mut index, all);
        let good = database.clone();
        // Rows that are kept for a refused Subnet are not restored: nobody knows what they were.
        if verdicts(&snapshot).values().any(|v| matches!(v, (Err((true, _)), _))) {
            return Ok(());
        }

        for (at, how) in edits {
            let before = database.snapshot();
            let owned: Vec<_> = database.rows.keys().filter(|(_, uuid)| index.owner_of(*uuid).is_some()).copied().collect();
            if owned.is_empty() {
                continue;
            }
            let (table, uuid) = owned[at.index(owned.len())];
            let _refused = database.commit(&[edit(table, uuid, how)]);
            let dirty = index.apply(&before.difference(&database.snapshot()), &snapshot);
            settle(&snapshot, &mut database, &mut index, dirty);
            prop_assert_eq!(&good, &database, "{} {}", table, how);
        }
    }
}

/// In some order, which differs with the seed.
fn shuffled(mut objects: Vec<Object>, seed: u64) -> Vec<Object> {
    let seed = uuid::Uuid::from_u128(seed.into());
    let name = |object: &Object| format!("{:?}", reference(object));
    objects.sort_by_key(|object| uuid::Uuid::new_v5(&seed, name(object).as_bytes()));
    objects
}

fn sorted(index: &OwnerIndex) -> BTreeMap<Owner, Vec<(&'static str, uuid::Uuid)>> {
    index
        .owners()
        .map(|owner| (owner.clone(), index.rows_of(owner).collect()))
        .collect()
}

/// What somebody does to a row by hand.
fn edit(table: &'static str, uuid: uuid::Uuid, how: u8) -> Operation {
    let has = |column: &str| {
        MONITORED
            .iter()
            .any(|(name, columns)| *name == table && columns.contains(&column))
    };
    match how {
        0 => Operation::delete(table, uuid),
        1 if has("external_ids") => {
            let nothing: BTreeMap<String, String> = BTreeMap::new();
            Operation::update(table, uuid, Columns::new().with("external_ids", nothing))
        }
        2 if has("options") => Operation::update(
            table,
            uuid,
            Columns::new().with("options", [("by", "hand")]),
        ),
        3 if has("ports") => {
            let nothing: BTreeSet<uuid::Uuid> = BTreeSet::new();
            Operation::update(table, uuid, Columns::new().with("ports", nothing))
        }
        _ if has("name") => Operation::update(table, uuid, Columns::new().with("name", "by-hand")),
        _ => Operation::delete(table, uuid),
    }
}
