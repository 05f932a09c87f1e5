//! A server whose schema is older than the vendored one.

mod support;

use std::path::Path;

use anyhow::{Result, ensure};
use support::{Server, within};
use ycloud_ovsdb::{Client, Config, Error, Operation, Refusal, Remote, TransactError, Uuid, nb};

/// OVN 23.03's Northbound: schema 7.0.0.
const OLD: &str = "tests/schemas/ovn-nb-23.03.ovsschema";
const NEW: &str = "schemas/ovn-nb.ovsschema";

async fn client(server: &Server) -> Result<Client> {
    let config = Config::new(Remote::parse_list(&server.unix())?, nb::DATABASE)
        .monitor(nb::LogicalSwitchPort::TABLE, nb::LogicalSwitchPort::COLUMNS)
        .monitor(
            nb::LogicalSwitch::TABLE,
            &[nb::LogicalSwitch::NAME, nb::LogicalSwitch::PORTS],
        )
        .monitor_all(nb::SamplingApp::TABLE);
    let client = Client::spawn(config);
    within(10, "the first sync", client.synced()).await??;
    Ok(client)
}

fn switch_with_port(port: nb::LogicalSwitchPort) -> Vec<Operation> {
    let (switch, id) = (Uuid::from_u128(1), Uuid::from_u128(2));
    // The port is named before it is made: the order within a transaction does not matter for references.
    vec![
        Operation::insert(
            nb::LogicalSwitch::TABLE,
            switch,
            nb::LogicalSwitch::new().name("s1").ports([id]),
        ),
        Operation::insert(nb::LogicalSwitchPort::TABLE, id, port),
    ]
}

#[tokio::test]
async fn missing_columns_are_known_left_out_or_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), Path::new(OLD))?;
    let client = client(&server).await?;
    let snapshot = client.snapshot();
    ensure!(snapshot.has_column(
        nb::LogicalSwitchPort::TABLE,
        nb::LogicalSwitchPort::ADDRESSES
    ));
    ensure!(!snapshot.has_column(nb::LogicalSwitchPort::TABLE, nb::LogicalSwitchPort::PEER));
    ensure!(
        snapshot
            .schema()
            .is_some_and(|schema| schema.table(nb::SamplingApp::TABLE).is_none())
    );
    ensure!(snapshot.table(nb::SamplingApp::TABLE).is_empty());

    let port = nb::LogicalSwitchPort::new()
        .name("p1")
        .addresses(["0a:00:00:00:00:01 10.0.0.2"]);
    let error = client
        .transact(switch_with_port(port.clone().peer(Some("p2"))))
        .await;
    let Err(Error::Transact(TransactError::Refused(Refusal::NoColumn {
        column, version, ..
    }))) = error
    else {
        anyhow::bail!("{error:?}");
    };
    ensure!((&*column, &*version) == (nb::LogicalSwitchPort::PEER, "7.0.0"));
    ensure!(
        client
            .snapshot()
            .table(nb::LogicalSwitchPort::TABLE)
            .is_empty()
    );

    let outcome = client
        .transact(switch_with_port(port.peer(None::<&str>)))
        .await?;
    ensure!(outcome.is_committed(), "{outcome:?}");
    let snapshot = client.snapshot();
    let port =
        nb::LogicalSwitchPort::find(&snapshot, Uuid::from_u128(2)).expect("it was committed");
    ensure!(port.name() == "p1" && port.peer().is_none() && port.row().get("peer").is_none());
    ensure!(port.addresses().eq(["0a:00:00:00:00:01 10.0.0.2"]));
    let switches: Vec<_> = nb::LogicalSwitch::all(&snapshot).collect();
    ensure!(switches.len() == 1 && switches[0].ports().eq([Uuid::from_u128(2)]));
    Ok(())
}

#[tokio::test]
async fn the_vendored_schema_has_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), Path::new(NEW))?;
    let client = client(&server).await?;
    ensure!(client.snapshot().schema() == Some(nb::schema()));
    let port = nb::LogicalSwitchPort::new().name("p1").peer(Some("p2"));
    ensure!(
        client
            .transact(switch_with_port(port))
            .await?
            .is_committed()
    );
    let snapshot = client.snapshot();
    let port =
        nb::LogicalSwitchPort::find(&snapshot, Uuid::from_u128(2)).expect("it was committed");
    ensure!(port.peer() == Some("p2"));
    Ok(())
}

/// The database is converted while the client is connected: it takes up the new columns by itself.
#[tokio::test]
async fn a_conversion_is_taken_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), Path::new(OLD))?;
    let client = client(&server).await?;
    ensure!(
        client
            .transact(switch_with_port(nb::LogicalSwitchPort::new().name("p1")))
            .await?
            .is_committed()
    );
    support::run("ovsdb-client", &["convert", &server.unix(), NEW])?;
    let taken_up = async {
        while !client
            .snapshot()
            .has_column(nb::LogicalSwitchPort::TABLE, nb::LogicalSwitchPort::PEER)
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let taken_up = within(10, "the new schema", taken_up).await;
    ensure!(taken_up.is_ok(), "{:?}", client.connection().borrow());
    within(10, "a connection", client.connected()).await??;
    let snapshot = client.snapshot();
    let port = nb::LogicalSwitchPort::find(&snapshot, Uuid::from_u128(2)).expect("it was kept");
    ensure!(port.name() == "p1" && port.row().get("peer").is_some());
    Ok(())
}
