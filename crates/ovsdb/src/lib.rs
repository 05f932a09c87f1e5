//! OVSDB client: RFC 7047 and the extensions of Open vSwitch's ovsdb-server(7). Knows neither OVN nor Kubernetes.
//!
//! A [`Client`] keeps a replica of the tables that it monitors and sends transactions. The replica is read as immutable
//! [`Snapshot`]s, and followed by a [`Subscription`]. Tables of OVN and Open vSwitch have types: [`nb`], [`sb`], [`vswitch`].
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ycloud_ovsdb::{Client, Config, Operation, Outcome, Remote, Uuid, nb};
//!
//! let remotes = Remote::parse_list("tcp:192.0.2.1:6641,tcp:192.0.2.2:6641")?;
//! let config = Config::new(remotes, nb::DATABASE)
//!     .monitor(nb::LogicalSwitch::TABLE, &[nb::LogicalSwitch::NAME, nb::LogicalSwitch::PORTS]);
//! let client = Client::spawn(config);
//! client.synced().await?;
//! for switch in nb::LogicalSwitch::all(&client.snapshot()) {
//!     println!("{} has {} ports", switch.name(), switch.ports().count());
//! }
//! let id = Uuid::from_u128(1);
//! let insert = Operation::insert(nb::LogicalSwitch::TABLE, id, nb::LogicalSwitch::new().name("s1"));
//! if let Outcome::Committed(_) = client.transact(vec![insert]).await? {
//!     assert!(nb::LogicalSwitch::find(&client.snapshot(), id).is_some());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//! Bytes are cut into messages by [`scanner`], with probes by [`link`]; [`session`] is the protocol. None of them does IO or reads a
//! clock. The client drives them with tokio. Without the feature `client` the crate has no dependency on tokio or TLS.
//!
//! # Caveats
//! * Locks (`lock`, `steal`, `unlock`) are not taken; `assert` can only fail.
//! * Rows of a table are in the order of their UUIDs, which says nothing.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

#[cfg(feature = "client")]
mod client;
pub mod generated;
pub mod link;
mod message;
mod operation;
mod outcome;
mod replica;
pub mod scanner;
mod schema;
pub mod session;
pub mod typed;
mod update;
mod value;
mod wire;

#[cfg(feature = "client")]
pub use client::{
    Client, Config, Connection, Error, Event, Remote, RemoteError, State, Subscription, Tls,
};
pub use generated::{nb, sb, vswitch};
pub use operation::{Columns, Condition, Function, Mutation, Mutator, Operation, Where};
pub use outcome::{Failure, OperationResult, Outcome};
pub use replica::{Change, Layout, Row, Rows, Snapshot, Table};
pub use schema::{BaseType, ColumnType, Kind, Refusal, Schema, TableSchema};
pub use session::{Monitored, TransactError};
pub use uuid::Uuid;
pub use value::{Atom, AtomMap, AtomSet, Datum, WrongType};
