//! Whatever is written, the replica holds what `select` returns.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestCaseError, TestRunner};
use serde_json::Value;
use support::cluster::Cluster;
use support::{Server, run, schema, within};
use tokio::runtime::Runtime;
use ycloud_ovsdb::{
    Client, Columns, Config, Datum, Mutation, Operation, Outcome, Remote, Row, Uuid, Where,
};

/// One operation on one of a few rows, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Insert(u8, Columns),
    Update(u8, Columns),
    Mutate(u8, Vec<Mutation>),
    Delete(u8),
}

fn uuid(id: u8) -> Uuid {
    // Over several of the table's shards.
    Uuid::from_u128(u128::from(id) << 122 | u128::from(id))
}

impl Step {
    fn operation(&self) -> Operation {
        match self.clone() {
            Step::Insert(id, columns) => {
                Operation::insert("Shape", uuid(id), columns.with("name", format!("{id}")))
            }
            Step::Update(id, columns) => Operation::update("Shape", uuid(id), columns),
            Step::Mutate(id, mutations) => Operation::mutate("Shape", uuid(id), mutations),
            Step::Delete(id) => Operation::delete("Shape", uuid(id)),
        }
    }
}

fn value() -> impl Strategy<Value = (&'static str, Datum)> {
    let small = -3i64..3;
    prop_oneof![
        (-100i64..=100).prop_map(|n| ("number", n.into())),
        (-8i32..8).prop_map(|n| ("ratio", (f64::from(n) / 4.0).into())),
        any::<bool>().prop_map(|flag| ("flag", flag.into())),
        proptest::option::of("[a-c\"\\\\é\n]{0,4}").prop_map(|text| ("maybe", text.into())),
        proptest::collection::btree_set(small.clone(), 0..5)
            .prop_map(|set| ("numbers", set.into())),
        proptest::collection::btree_map("[a-d]", "[a-b]", 0..4).prop_map(|map| ("map", map.into())),
        proptest::collection::btree_map("[a-d]", small, 0..4).prop_map(|map| ("ids", map.into())),
        proptest::collection::btree_set(0u8..6, 0..4).prop_map(|ids| (
            "peers",
            ids.into_iter().map(uuid).collect::<BTreeSet<_>>().into()
        )),
    ]
}

fn columns() -> impl Strategy<Value = Columns> {
    proptest::collection::vec(value(), 0..4).prop_map(|columns| columns.into_iter().collect())
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let small = -3i64..3;
    prop_oneof![
        (-2i64..3).prop_map(|n| Mutation::add("number", n)),
        proptest::collection::btree_set(small.clone(), 1..4)
            .prop_map(|set| Mutation::insert("numbers", set)),
        proptest::collection::btree_set(small, 1..4)
            .prop_map(|set| Mutation::delete("numbers", set)),
        proptest::collection::btree_map("[a-d]", "[a-b]", 1..3)
            .prop_map(|map| Mutation::insert("map", map)),
        proptest::collection::btree_set("[a-d]", 1..3)
            .prop_map(|keys| Mutation::delete("map", keys)),
        (0u8..6).prop_map(|id| Mutation::insert("peers", uuid(id))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..6, columns()).prop_map(|(id, columns)| Step::Insert(id, columns)),
        4 => (0u8..6, columns()).prop_map(|(id, columns)| Step::Update(id, columns)),
        4 => (0u8..6, proptest::collection::vec(mutation(), 1..4)).prop_map(|(id, mutations)| Step::Mutate(id, mutations)),
        2 => (0u8..6).prop_map(Step::Delete),
    ]
}

/// The database by the reference client: UUID → column → value, sets and maps sorted.
fn select(remotes: &str) -> Result<BTreeMap<String, BTreeMap<String, Value>>> {
    let all = r#"["Shapes",{"op":"select","table":"Shape","where":[]}]"#;
    let reply = run("ovsdb-client", &["transact", remotes, all])?;
    let reply: Value = serde_json::from_str(&reply)?;
    let rows = reply[0]["rows"]
        .as_array()
        .with_context(|| format!("no rows in {reply}"))?;
    let rows = rows.iter().map(|row| {
        let id = row["_uuid"][1].as_str().context("no uuid")?.to_owned();
        let columns = row
            .as_object()
            .context("no row")?
            .iter()
            .filter(|(name, _)| !name.starts_with('_'));
        Ok((
            id,
            columns
                .map(|(name, value)| (name.clone(), normal(value.clone())))
                .collect(),
        ))
    });
    rows.collect()
}

/// The same of a replica.
fn replica(client: &Client) -> Result<BTreeMap<String, BTreeMap<String, Value>>> {
    let row = |row: &std::sync::Arc<Row>| {
        let columns = row
            .columns()
            .map(|(name, value)| Ok((name.to_owned(), normal(serde_json::to_value(value)?))));
        Ok((row.uuid().to_string(), columns.collect::<Result<_>>()?))
    };
    client.snapshot().table("Shape").iter().map(row).collect()
}

/// Members in the order of their text; numbers that are equal written alike.
fn normal(value: Value) -> Value {
    match value {
        Value::Array(mut parts) => {
            if let [Value::String(tag), Value::Array(members)] = parts.as_mut_slice()
                && tag != "uuid"
            {
                *members = members.drain(..).map(normal).collect();
                members.sort_by_key(Value::to_string);
            }
            Value::Array(parts)
        }
        Value::Number(number) => number.as_f64().map_or(Value::Number(number), Value::from),
        other => other,
    }
}

async fn check(
    remotes: &str,
    writer: &Client,
    follower: &Client,
    transactions: &[Vec<Step>],
) -> Result<()> {
    ensure!(
        writer
            .transact(vec![Operation::delete("Shape", Where::all())])
            .await?
            .is_committed()
    );
    for steps in transactions {
        let before = replica(writer)?;
        let outcome = writer
            .transact(steps.iter().map(Step::operation).collect())
            .await?;
        match outcome {
            Outcome::Committed(_) | Outcome::Unchanged(_) => {}
            // A second row of a UUID, or a number beyond its range: nothing may have changed.
            Outcome::Constraint(_) => {
                ensure!(replica(writer)? == before, "refused, and yet changed")
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    let expected = select(remotes)?;
    ensure!(
        replica(writer)? == expected,
        "the writer has\n{:#?}\nnot\n{expected:#?}",
        replica(writer)?
    );
    // Its own mark tells when the other client has seen everything.
    let mark = Uuid::from_u128(u128::MAX);
    let columns = Columns::new().with("name", "mark");
    ensure!(
        writer
            .transact(vec![Operation::insert("Shape", mark, columns)])
            .await?
            .is_committed()
    );
    let marked = async {
        let mut subscription = follower.subscribe();
        while follower.snapshot().row("Shape", mark).is_none() {
            subscription.next().await;
        }
    };
    within(10, "the follower sees the mark", marked).await?;
    ensure!(
        replica(follower)? == select(remotes)?,
        "the follower has {:#?}",
        replica(follower)?
    );
    Ok(())
}

fn compare(remotes: &str, cases: u32) -> Result<()> {
    let runtime = Runtime::new()?;
    let client = || -> Result<Client> {
        let config =
            Config::new(Remote::parse_list(remotes)?, schema::DATABASE).monitor_all("Shape");
        let client = runtime.block_on(async { Client::spawn(config) });
        runtime.block_on(within(30, "the first sync", client.synced()))??;
        Ok(client)
    };
    let (writer, follower) = (client()?, client()?);
    let mut runner = TestRunner::new(Cases {
        cases,
        failure_persistence: None,
        ..Cases::default()
    });
    let transactions = proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..25);
    runner
        .run(&transactions, |transactions| {
            let result = runtime.block_on(check(remotes, &writer, &follower, &transactions));
            result.map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
        .map_err(|error| anyhow::anyhow!("{error}"))
}

#[test]
fn standalone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    compare(&server.unix(), 64)
}

#[test]
fn cluster() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::start(dir.path(), &schema::write(dir.path())?, schema::DATABASE, 3)?;
    compare(&cluster.remotes(), 16)
}
