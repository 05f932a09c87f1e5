//! The planned transactions on a real ovsdb-server with the Northbound schema, through ycloud's own client.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use support::database::{Database, foreign};
use support::nb::{Server, commit, settle};
use support::world::events;
use uuid::Uuid;
use ycloud_compiler::row::MONITORED;
use ycloud_compiler::{Batch, Owner, OwnerIndex, Settings, Snapshot, compile};
use ycloud_ovsdb::{Client, Operation};

/// The monitored columns of all rows.
fn contents(snapshot: &ycloud_ovsdb::Snapshot) -> BTreeSet<(String, Uuid, String)> {
    let rows = MONITORED.iter().flat_map(|(table, columns)| {
        snapshot.table(table).iter().flat_map(move |row| {
            let value = move |column: &&'static str| format!("{column} {:?}", row.get(column));
            columns
                .iter()
                .map(move |column| ((*table).to_owned(), row.uuid(), value(column)))
        })
    });
    rows.collect()
}

async fn random_clusters(schema: &Path, histories: usize) {
    let server = Server::start(schema);
    let client = server.client().await;
    let others = foreign();
    let inserts = others
        .rows
        .iter()
        .map(|((table, uuid), row)| Operation::insert(table, *uuid, seen(&client, table, row)));
    commit(&client, inserts.collect()).await;
    let start = contents(&client.snapshot());
    let mut index = OwnerIndex::build(&client.snapshot());
    let mut runner = TestRunner::deterministic();
    for _ in 0..histories {
        let history = events(1..60)
            .new_tree(&mut runner)
            .expect("a history")
            .current();
        let mut snapshot = Snapshot::new(Settings::default());
        for event in history.iter() {
            snapshot.apply(event.clone());
        }
        settle(&client, &snapshot, &mut index).await;

        let mut model = others.clone();
        settle_model(&snapshot, &mut model);
        // The server's own columns may be fewer than the model's.
        let real = contents(&client.snapshot());
        assert!(real.len() >= start.len());
        let model: BTreeSet<_> = contents(&model.snapshot())
            .into_iter()
            .filter(|(table, _, text)| {
                let column = text.split(' ').next().unwrap_or_default();
                client.snapshot().has_column(table, column)
            })
            .collect();
        let real: BTreeSet<_> = real
            .into_iter()
            .filter(|(_, _, text)| !text.ends_with(" None"))
            .collect();
        assert_eq!(real, model, "{history:?}");

        settle(&client, &Snapshot::new(Settings::default()), &mut index).await;
        assert_eq!(contents(&client.snapshot()), start, "{history:?}");
        assert!(index.is_empty());
    }
}

/// The columns of a row that the server has.
fn seen(client: &Client, table: &str, row: &ycloud_ovsdb::Columns) -> ycloud_ovsdb::Columns {
    let snapshot = client.snapshot();
    row.iter()
        .filter(|(column, _)| snapshot.has_column(table, column))
        .map(|(c, v)| (*c, v.clone()))
        .collect()
}

/// The same on the model of the server.
fn settle_model(snapshot: &Snapshot, database: &mut Database) {
    loop {
        let observed = database.snapshot();
        let index = OwnerIndex::build(&observed);
        let mut batch = Batch::new(&observed, &index);
        for owner in snapshot.owners() {
            if let Ok(rows) = compile(snapshot, &owner) {
                batch.add(&owner, &rows);
            }
        }
        let operations = batch.into_operations();
        if operations.is_empty() {
            return;
        }
        database
            .commit(&operations)
            .expect("a transaction that commits");
    }
}

fn vendored() -> PathBuf {
    PathBuf::from("../ovsdb/schemas/ovn-nb.ovsschema")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_clusters_come_and_go_on_a_real_server() {
    random_clusters(&vendored(), 60).await;
}

/// Debian 12's OVN 23.03.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_clusters_come_and_go_on_the_older_schema() {
    let older = std::fs::read_dir("../ovsdb/tests/schemas")
        .expect("older schemas")
        .filter_map(Result::ok);
    let nb = older
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("nb"));
    random_clusters(&nb.expect("an older Northbound schema"), 20).await;
}

/// Somebody deletes and edits owned rows with ovn-nbctl's means; the changes that the client reports name their owners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_switch_comes_back_with_its_ports() {
    use support::objects;
    use ycloud_compiler::{Event, Object};
    let server = Server::start(&vendored());
    let client = server.client().await;
    let mut snapshot = Snapshot::new(Settings::default());
    for object in [
        Object::Vpc(objects::vpc("v1", &[])),
        Object::Subnet(objects::subnet("a", "v1", "10.0.1.0/24", 0)),
        Object::VNic(objects::vnic("ns", "x", "a", Some("n1"), Some("10.0.1.5"))),
    ] {
        snapshot.apply(Event::Apply(object));
    }
    let mut index = OwnerIndex::build(&client.snapshot());
    settle(&client, &snapshot, &mut index).await;
    let good = client.snapshot();
    let switch = good
        .table("Logical_Switch")
        .iter()
        .next()
        .expect("the switch")
        .uuid();
    commit(&client, vec![Operation::delete("Logical_Switch", switch)]).await;
    let bad = client.snapshot();
    assert!(bad.table("Logical_Switch_Port").is_empty());
    let dirty = index.apply(&good.difference(&bad), &snapshot);
    // The Vpc too: its group was in the switch, and could not have been deleted as long as it was.
    let expected: BTreeSet<Owner> = [
        Owner::Vpc("v1".into()),
        Owner::Subnet("a".into()),
        Owner::VNic(ycloud_compiler::ObjectKey::new("ns", "x")),
    ]
    .into();
    assert_eq!(dirty, expected);
    let mut batch = Batch::new(&bad, &index);
    for owner in &dirty {
        batch.add(owner, &compile(&snapshot, owner).expect("accepted"));
    }
    commit(&client, batch.into_operations()).await;
    assert_eq!(contents(&client.snapshot()), contents(&good));
}
