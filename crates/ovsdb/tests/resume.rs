//! After a lost connection: what happened meanwhile comes as one delta, and the replica is never empty.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use support::cluster::Cluster;
use support::proxy::Proxy;
use support::{Server, schema, within};
use ycloud_ovsdb::{
    Change, Client, Columns, Config, Event, Operation, Outcome, Remote, State, Subscription, Uuid,
    Where,
};

const ROWS: u128 = 500;

async fn synced(remote: &str) -> Result<Client> {
    let config = Config::new(Remote::parse_list(remote)?, schema::DATABASE).monitor_all("Shape");
    let client = Client::spawn(config);
    within(30, "the first sync", client.synced()).await??;
    Ok(client)
}

fn insert(id: u128) -> Operation {
    let columns = Columns::new()
        .with("name", format!("row {id}"))
        .with("map", [("key", "a longer value to send")]);
    Operation::insert("Shape", Uuid::from_u128(id << 100 | id), columns)
}

async fn fill(client: &Client) -> Result<()> {
    let outcome = client.transact((0..ROWS).map(insert).collect()).await?;
    ensure!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    // The server forgets transactions once those it remembers are larger than the database: the large one must not be
    // the last that the client knows.
    let columns = || Columns::new().with("number", 1);
    ensure!(
        client
            .transact(vec![Operation::update(
                "Shape",
                Uuid::from_u128(0),
                columns()
            )])
            .await?
            .is_committed()
    );
    Ok(())
}

/// One row more, one less, one other.
async fn change(client: &Client) -> Result<()> {
    let id = |id: u128| Uuid::from_u128(id << 100 | id);
    for operation in [
        insert(ROWS),
        Operation::delete("Shape", id(3)),
        Operation::update("Shape", id(4), Columns::new().with("number", 44)),
        // Changed and changed back: not to be seen.
        Operation::update("Shape", id(5), Columns::new().with("number", 55)),
        Operation::update("Shape", id(5), Columns::new().with("number", 0)),
    ] {
        ensure!(client.transact(vec![operation]).await?.is_committed());
    }
    Ok(())
}

/// The one delta of a reconnect.
async fn one_delta(client: &Client, subscription: &mut Subscription) -> Result<Arc<[Change]>> {
    let Event::Delta(changes) = within(10, "a delta", subscription.next()).await? else {
        panic!("a resync")
    };
    within(10, "a connection", client.connected()).await??;
    let more =
        tokio::time::timeout(std::time::Duration::from_millis(200), subscription.next()).await;
    ensure!(more.is_err(), "more than one delta: {more:?}");
    let rows: BTreeSet<Uuid> = changes.iter().map(|change| change.uuid).collect();
    let expected = [3, 4, ROWS].map(|id| Uuid::from_u128(id << 100 | id));
    ensure!(
        rows == BTreeSet::from(expected) && changes.len() == 3,
        "{changes:?}"
    );
    Ok(changes)
}

async fn cut_and_mend(server: &Server) -> Result<u64> {
    let proxy = Proxy::start(&server.socket).await?;
    let (far, near) = (synced(&proxy.remote).await?, synced(&server.unix()).await?);
    fill(&near).await?;
    let mut subscription = far.subscribe();
    while !far.snapshot().difference(&near.snapshot()).is_empty() {
        subscription.next().await;
    }
    let mut subscription = far.subscribe();
    ensure!(matches!(subscription.next().await, Event::Resync(_)));
    proxy.cut();
    let mut connection = far.connection();
    within(
        10,
        "the cut",
        connection.wait_for(|connection| connection.state != State::Synced),
    )
    .await??;
    let error = far.connection().borrow().last_error.clone();
    ensure!(error.is_some(), "no reason is given");
    change(&near).await?;
    ensure!(far.snapshot().table("Shape").len() == ROWS as usize);
    ensure!(far.transact(vec![insert(9999)]).await.is_err());
    proxy.take_passed();
    proxy.mend();
    let changes = one_delta(&far, &mut subscription).await?;
    let changed = changes
        .iter()
        .find(|change| change.uuid == Uuid::from_u128(4 << 100 | 4))
        .expect("checked");
    let number = |row: &Option<_>| {
        row.as_ref()
            .and_then(|row: &Arc<ycloud_ovsdb::Row>| row.get("number")?.as_integer())
    };
    ensure!((number(&changed.old), number(&changed.new)) == (Some(0), Some(44)));
    ensure!(far.connection().borrow().last_error.is_none());
    let snapshot = far.snapshot();
    ensure!(snapshot.difference(&near.snapshot()) == []);
    Ok(proxy.take_passed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_member_tells_what_happened_since() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::start(dir.path(), &schema::write(dir.path())?, schema::DATABASE, 1)?;
    let bytes = cut_and_mend(&cluster.servers[0]).await?;
    // The greeting with the schema is about 3 KB, the whole database over 50 KB.
    ensure!(bytes < 10_000, "{bytes} bytes: everything was read again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_server_is_read_again_and_compared() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    let bytes = cut_and_mend(&server).await?;
    ensure!(
        bytes > 50_000,
        "{bytes} bytes: how did it know what to send?"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_changes_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    let client = synced(&server.unix()).await?;
    fill(&client).await?;
    let mut subscription = client.subscribe();
    ensure!(matches!(subscription.next().await, Event::Resync(_)));
    for _ in 0..3 {
        server.kill()?;
        let mut connection = client.connection();
        within(
            10,
            "the end",
            connection.wait_for(|connection| connection.state != State::Synced),
        )
        .await??;
        ensure!(client.snapshot().table("Shape").len() == ROWS as usize);
        server.start()?;
        within(10, "the client is back", client.connected()).await??;
    }
    let nothing =
        tokio::time::timeout(std::time::Duration::from_millis(200), subscription.next()).await;
    ensure!(nothing.is_err(), "{nothing:?}");
    ensure!(
        client
            .transact(vec![Operation::delete("Shape", Where::all())])
            .await?
            .is_committed()
    );
    ensure!(client.snapshot().table("Shape").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_given_up_and_found_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    let proxy = Proxy::start(&server.socket).await?;
    let mut config =
        Config::new(Remote::parse_list(&proxy.remote)?, schema::DATABASE).monitor_all("Shape");
    config.probe_interval = Some(std::time::Duration::from_millis(300));
    let client = Client::spawn(config);
    within(10, "the first sync", client.synced()).await??;
    // Silence alone is no reason: the probes are answered.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    ensure!(client.connection().borrow().state == State::Synced);
    server.signal("STOP")?;
    let mut connection = client.connection();
    within(
        5,
        "it is given up",
        connection.wait_for(|connection| connection.state != State::Synced),
    )
    .await??;
    let error = client
        .connection()
        .borrow()
        .last_error
        .clone()
        .unwrap_or_default();
    ensure!(error.contains("failed to hear from the server"), "{error}");
    server.signal("CONT")?;
    within(10, "it is found again", client.connected()).await??;
    ensure!(client.transact(vec![insert(1)]).await?.is_committed());
    Ok(())
}
