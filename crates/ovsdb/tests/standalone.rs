//! The client on a real standalone ovsdb-server.

mod support;

use anyhow::{Result, ensure};
use support::{Server, free_port, schema, within};
use ycloud_ovsdb::{
    Client, Columns, Condition, Config, Event, Mutation, Operation, Outcome, Remote, Uuid,
};

fn client(remote: &str) -> Result<Client> {
    Ok(Client::spawn(
        Config::new(Remote::parse_list(remote)?, schema::DATABASE).monitor_all("Shape"),
    ))
}

fn insert(id: u128, name: &str) -> Operation {
    Operation::insert(
        "Shape",
        Uuid::from_u128(id),
        Columns::new().with("name", name),
    )
}

#[tokio::test]
async fn a_committed_transaction_is_in_the_snapshot() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let mut server = Server::prepare(dir.path(), &schema::write(dir.path())?)?
        .with(&[&format!("--remote=ptcp:{port}:127.0.0.1")]);
    server.start()?;
    for (round, remote) in [server.unix(), format!("tcp:127.0.0.1:{port}")]
        .into_iter()
        .enumerate()
    {
        let client = client(&remote)?;
        within(10, "the first sync", client.synced()).await??;
        for n in 0..200u128 {
            let id = (round as u128) * 1000 + n;
            let outcome = client
                .transact(vec![insert(id, &format!("row {id}"))])
                .await?;
            ensure!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
            let snapshot = client.snapshot();
            let row = snapshot.row("Shape", Uuid::from_u128(id));
            ensure!(
                row.and_then(|row| row.get("name")?.as_str().map(str::to_owned))
                    == Some(format!("row {id}"))
            );
            let mutate = Operation::mutate(
                "Shape",
                Uuid::from_u128(id),
                vec![
                    Mutation::add("number", 7),
                    Mutation::insert("map", [("k", "v")]),
                ],
            );
            ensure!(client.transact(vec![mutate]).await?.is_committed());
            let snapshot = client.snapshot();
            let row = snapshot
                .row("Shape", Uuid::from_u128(id))
                .expect("it was there");
            ensure!(row.get("number").and_then(|number| number.as_integer()) == Some(7));
        }
    }
    Ok(())
}

#[tokio::test]
async fn outcomes_are_told_apart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    let client = client(&server.unix())?;
    within(10, "the first sync", client.synced()).await??;
    ensure!(client.transact(vec![insert(1, "a")]).await?.is_committed());
    // The same insert again: a retry cannot make a second row.
    let outcome = client.transact(vec![insert(1, "a")]).await?;
    ensure!(
        matches!(outcome, Outcome::Constraint(ref failure) if failure.error == "duplicate uuid"),
        "{outcome:?}"
    );
    // A second row of the same index: found at commit, one element past the operations.
    let outcome = client.transact(vec![insert(2, "a")]).await?;
    ensure!(
        matches!(outcome, Outcome::Constraint(ref failure) if failure.operation.is_none()),
        "{outcome:?}"
    );
    let outcome = client
        .transact(vec![Operation::delete(
            "Shape",
            Condition::equal("name", "none"),
        )])
        .await?;
    ensure!(matches!(outcome, Outcome::Unchanged(_)), "{outcome:?}");
    let wait = Operation::expect(
        "Shape",
        Uuid::from_u128(1),
        Columns::new().with("name", "b"),
    );
    let outcome = client
        .transact(vec![Operation::comment("x"), wait, insert(3, "c")])
        .await?;
    ensure!(outcome == Outcome::Conflict { operation: 1 }, "{outcome:?}");
    let error = client
        .transact(vec![Operation::insert_anew(
            "Shape",
            Columns::new().with("number", 101),
        )])
        .await;
    ensure!(error.is_err_and(|error| error.to_string().ends_with("101 is not in -100..=100")));
    let outcome = client
        .transact(vec![insert(4, "d"), Operation::Abort])
        .await?;
    ensure!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    ensure!(client.snapshot().table("Shape").len() == 1);
    let outcome = client
        .transact(vec![Operation::select("Shape", Uuid::from_u128(1))])
        .await?;
    ensure!(matches!(outcome, Outcome::Unchanged(_)), "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn subscribers_follow_what_others_write() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), &schema::write(dir.path())?)?;
    let client = client(&server.unix())?;
    within(10, "the first sync", client.synced()).await??;
    let mut subscription = client.subscribe();
    let Event::Resync(start) = subscription.next().await else {
        panic!("no start")
    };
    ensure!(start.table("Shape").is_empty());
    server.transact(
        r#"["Shapes",{"op":"insert","table":"Shape","row":{"name":"x","numbers":["set",[1,2]]}}]"#,
    )?;
    let Event::Delta(changes) = within(5, "a change", subscription.next()).await? else {
        panic!("no change")
    };
    let [change] = &*changes else {
        panic!("{changes:?}")
    };
    ensure!(
        change.old.is_none() && change.new == client.snapshot().row("Shape", change.uuid).cloned()
    );
    server.transact(r#"["Shapes",{"op":"delete","table":"Shape","where":[]}]"#)?;
    let Event::Delta(changes) = within(5, "a change", subscription.next()).await? else {
        panic!("no change")
    };
    ensure!(changes[0].new.is_none() && changes[0].old.is_some());
    ensure!(client.snapshot().table("Shape").is_empty());
    Ok(())
}
