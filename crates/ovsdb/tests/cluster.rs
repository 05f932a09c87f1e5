//! The client on a three-server RAFT cluster: only the leader is used, and its death loses and doubles nothing.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::cluster::Cluster;
use support::{schema, within};
use ycloud_ovsdb::{
    Client, Columns, Config, Error, Operation, Outcome, Remote, State, TransactError, Uuid,
};

async fn client(cluster: &Cluster) -> Result<Client> {
    let config =
        Config::new(Remote::parse_list(&cluster.remotes())?, schema::DATABASE).monitor_all("Shape");
    let client = Client::spawn(config);
    within(30, "the first sync", client.synced()).await??;
    Ok(client)
}

fn insert(id: u128) -> Operation {
    Operation::insert(
        "Shape",
        Uuid::from_u128(id),
        Columns::new().with("name", format!("{id}")),
    )
}

fn remote(client: &Client) -> Result<String> {
    Ok(client
        .connection()
        .borrow()
        .remote
        .as_ref()
        .context("no remote")?
        .to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_is_used() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut cluster = Cluster::start(dir.path(), &schema::write(dir.path())?, schema::DATABASE, 3)?;
    let client = client(&cluster).await?;
    let leader = cluster.member(&remote(&client)?)?;
    ensure!(
        leader
            .ctl(&["cluster/status", schema::DATABASE])?
            .contains("Role: leader")
    );
    // A planned change of leader: the client follows, and its replica is never empty meanwhile.
    ensure!(client.transact(vec![insert(1)]).await?.is_committed());
    let old = remote(&client)?;
    leader.kill()?;
    let mut connection = client.connection();
    let elsewhere = connection.wait_for(|connection| {
        connection.state == State::Synced
            && connection
                .remote
                .as_ref()
                .is_some_and(|remote| remote.to_string() != old)
    });
    within(30, "a new leader is found", elsewhere).await??;
    ensure!(client.snapshot().table("Shape").len() == 1);
    let leader = cluster.member(&remote(&client)?)?;
    ensure!(
        leader
            .ctl(&["cluster/status", schema::DATABASE])?
            .contains("Role: leader")
    );
    ensure!(client.transact(vec![insert(2)]).await?.is_committed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_transaction_is_in_the_snapshot() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::start(dir.path(), &schema::write(dir.path())?, schema::DATABASE, 3)?;
    // Through the leader, and through each member: followers forward to the leader.
    let mut remotes = vec![(cluster.remotes(), true)];
    remotes.extend(cluster.servers.iter().map(|server| (server.unix(), false)));
    for (round, (remotes, leader_only)) in (0u128..).zip(remotes) {
        let mut config =
            Config::new(Remote::parse_list(&remotes)?, schema::DATABASE).monitor_all("Shape");
        if !leader_only {
            config = config.any_member();
        }
        let client = Client::spawn(config);
        within(30, "the first sync", client.synced()).await??;
        for id in (round * 1000..).take(40) {
            let outcome = within(10, "an outcome", client.transact(vec![insert(id)])).await??;
            ensure!(outcome.is_committed(), "{outcome:?}");
            ensure!(
                client
                    .snapshot()
                    .row("Shape", Uuid::from_u128(id))
                    .is_some(),
                "{remotes}: {id} is not there yet"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_without_an_answer_is_indeterminate() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut cluster = Cluster::start(dir.path(), &schema::write(dir.path())?, schema::DATABASE, 3)?;
    let client = client(&cluster).await?;
    let leader = cluster.member(&remote(&client)?)?;
    // The stopped leader never reads it, so it cannot be in the database.
    leader.signal("STOP")?;
    let transaction = tokio::spawn({
        let client = client.clone();
        async move { client.transact(vec![insert(7)]).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    ensure!(!transaction.is_finished());
    leader.kill()?;
    let outcome = within(10, "the transaction ends", transaction).await???;
    ensure!(
        matches!(outcome, Outcome::Indeterminate { .. }),
        "{outcome:?}"
    );
    within(30, "the client finds the new leader", client.connected()).await??;
    ensure!(client.snapshot().row("Shape", Uuid::from_u128(7)).is_none());
    ensure!(client.transact(vec![insert(7)]).await?.is_committed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_true_while_the_leader_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut cluster = Cluster::start(dir.path(), &schema::write(dir.path())?, schema::DATABASE, 3)?;
    let client = client(&cluster).await?;
    // Several at a time, so that some are under way when the leader dies.
    let writers = (0..8u128).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut outcomes = BTreeMap::new();
            for n in 0..60 {
                let id = writer * 1000 + n;
                outcomes.insert(id, client.transact(vec![insert(id)]).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            outcomes
        })
    });
    let writers: Vec<_> = writers.collect();
    tokio::time::sleep(Duration::from_millis(250)).await;
    cluster.member(&remote(&client)?)?.kill()?;
    let mut outcomes = BTreeMap::new();
    for writer in writers {
        outcomes.extend(within(60, "the writers end", writer).await??);
    }
    within(30, "the client finds the new leader", client.connected()).await??;
    let snapshot = client.snapshot();
    let (mut committed, mut not_sent) = (0, 0);
    for (id, outcome) in outcomes {
        let there = snapshot.row("Shape", Uuid::from_u128(id)).is_some();
        match outcome {
            Ok(Outcome::Committed(_)) => {
                ensure!(there, "{id} was committed and is lost");
                committed += 1;
            }
            Ok(Outcome::NotLeader(_)) => ensure!(!there, "{id} was refused and is there"),
            Ok(Outcome::Indeterminate { .. }) => {}
            Err(Error::Transact(TransactError::NotConnected)) => {
                ensure!(!there, "{id} was not sent and is there");
                not_sent += 1;
            }
            other => anyhow::bail!("{id}: {other:?}"),
        }
    }
    ensure!(
        committed > 0 && not_sent > 0,
        "{committed} committed, {not_sent} not sent: the leader died too early or too late"
    );
    Ok(())
}
