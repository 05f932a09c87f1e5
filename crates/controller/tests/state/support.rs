//! A real ovsdb-server with the Northbound schema, and the state of ycloud-controller over it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use uuid::Uuid;
use ycloud_api::Vpc;
use ycloud_compiler::row::MONITORED;
use ycloud_compiler::{Event, Object, Settings};
use ycloud_controller::metrics::Metrics;
use ycloud_controller::state::State;
use ycloud_ovsdb::{Client, Columns, Config, Operation, Outcome, Remote, Row, Subscription, nb};

/// The schema that the client's tables are made from.
const SCHEMA: &str = "../ovsdb/schemas/ovn-nb.ovsschema";

/// An ovsdb-server that ends with this value.
pub struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    /// A server with an empty Northbound database, but for `NB_Global` as `ovn-northd` makes it.
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = Command::new("ovsdb-tool")
            .arg("create")
            .args([at("nb.db").as_path(), Path::new(SCHEMA)])
            .status();
        assert!(made.unwrap().success(), "ovsdb-tool create failed");
        let child = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", at("nb.sock").display()))
            .arg(format!("--unixctl={}", at("ctl").display()))
            .arg("--no-chdir")
            .arg(at("nb.db"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, folder };
        let client = server.client();
        client.synced().await.unwrap();
        let global = Operation::insert_anew(nb::NbGlobal::TABLE, Columns::new());
        assert!(client.transact(vec![global]).await.unwrap().is_committed());
        server
    }

    fn client(&self) -> Client {
        let path = self.folder.path().join("nb.sock");
        let remotes = Remote::parse_list(&format!("unix:{}", path.display())).unwrap();
        let config = MONITORED.iter().fold(
            Config::new(remotes, "OVN_Northbound"),
            |config, (table, columns)| config.monitor(table, columns),
        );
        Client::spawn(config.monitor(
            nb::NbGlobal::TABLE,
            &[nb::NbGlobal::NB_CFG, nb::NbGlobal::OPTIONS],
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The controller without its API server: the test says what the watches tell.
pub struct Controller {
    pub state: State,
    pub client: Client,
    events: Subscription,
    pub transactions: usize,
}

impl Controller {
    /// A controller that has just started, and knows `objects` and the database.
    pub async fn start(server: &Server, objects: &[Object]) -> Self {
        Self::start_with(server, objects, Settings::default()).await
    }

    /// The same, with other settings.
    pub async fn start_with(server: &Server, objects: &[Object], settings: Settings) -> Self {
        let client = server.client();
        client.synced().await.unwrap();
        let metrics = Metrics::new(&mut Registry::default());
        let mut controller = Self {
            state: State::new(settings, metrics),
            events: client.subscribe(),
            client,
            transactions: 0,
        };
        for object in objects {
            controller.state.take_in(Event::Apply(object.clone()));
        }
        controller
    }

    /// Takes in what the replica tells, without waiting.
    fn observe(&mut self) {
        while let Some(event) = self.events.next().now_or_never() {
            match event {
                ycloud_ovsdb::Event::Resync(observed) => self.state.observe_all(observed),
                ycloud_ovsdb::Event::Delta(changes) => {
                    self.state.observe(&changes, self.client.snapshot());
                }
            }
        }
    }

    /// Reconciles until nothing is ready.
    pub async fn settle(&mut self) {
        let now = Instant::now();
        for _ in 0..1000 {
            self.observe();
            self.state.rows.promote(now);
            if !self.state.has_work() {
                return;
            }
            let Some(transaction) = self.state.plan() else {
                continue;
            };
            self.transactions += 1;
            let outcome = self.client.transact(transaction.operations).await;
            let outcome = outcome.map_err(|error| error.to_string());
            self.state.finished(transaction.owners, outcome, now);
        }
        panic!("not settled after 1,000 turns");
    }

    /// Sends the next transaction, if one is needed, and takes in its outcome.
    pub async fn commit_once(&mut self) -> bool {
        self.observe();
        let Some(transaction) = self.state.plan() else {
            return false;
        };
        let outcome = self.client.transact(transaction.operations).await;
        let outcome = outcome.map_err(|error| error.to_string());
        self.state
            .finished(transaction.owners, outcome, Instant::now());
        true
    }

    /// Waits until the replica shows what somebody else wrote, then reconciles.
    pub async fn settle_after_change(&mut self) {
        let event = tokio::time::timeout(Duration::from_secs(5), self.events.next()).await;
        match event.expect("no change came") {
            ycloud_ovsdb::Event::Resync(observed) => self.state.observe_all(observed),
            ycloud_ovsdb::Event::Delta(changes) => {
                self.state.observe(&changes, self.client.snapshot());
            }
        }
        self.settle().await;
    }

    /// Writes as somebody else would, over a connection of their own.
    pub async fn by_hand(&self, server: &Server, operations: Vec<Operation>) {
        let client = server.client();
        client.synced().await.unwrap();
        let outcome = client.transact(operations).await.unwrap();
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }

    /// The rows of a table.
    pub fn rows(&self, table: &str) -> Vec<Arc<Row>> {
        self.client
            .snapshot()
            .table(table)
            .iter()
            .cloned()
            .collect()
    }

    /// Every row of every table but `NB_Global`, as text.
    pub fn content(&self) -> Vec<String> {
        let snapshot = self.client.snapshot();
        let tables = snapshot
            .tables()
            .filter(|(name, _)| ***name != *nb::NbGlobal::TABLE);
        tables
            .flat_map(|(_, table)| table.iter().map(|row| format!("{row:?}")))
            .collect()
    }

    /// The row of that name.
    pub fn named(&self, table: &str, name: &str) -> Uuid {
        let rows = self.rows(table);
        let row = rows
            .iter()
            .find(|row| row.get("name").and_then(|n| n.as_str()) == Some(name));
        row.unwrap_or_else(|| panic!("no {table} {name}")).uuid()
    }

    /// `NB_Global:nb_cfg`.
    pub fn nb_cfg(&self) -> i64 {
        ycloud_controller::apply::nb_cfg(&self.client.snapshot())
    }
}

/// Reads an object of one kind.
pub fn read<K: DeserializeOwned>(yaml: &str) -> Arc<K> {
    Arc::new(serde_yaml::from_str(yaml).unwrap())
}

/// A Vpc that permits every namespace.
pub fn vpc(name: &str) -> Object {
    let spec = serde_json::json!({"allowedNamespaces": {"selector": {}}});
    let spec = serde_json::from_value(spec).unwrap();
    Object::Vpc(Arc::new(Vpc::new(name, spec)))
}

/// Some moment.
pub fn now() -> Time {
    Time(Timestamp::from_second(1_000).unwrap())
}
