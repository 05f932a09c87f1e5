//! Session affinity with a timeout: repairs what OVN's `Load_Balancer:options:affinity_timeout` lacks.
//!
//! OVN learns which backend a client has in stage `lb_aff_learn`, and drops the packet that it learned from. With Open
//! vSwitch's own connection tracking all repetitions of that packet are dropped too, as its entry makes them miss the
//! learned flow: the first connection of every client dies. Two flows for each logical datapath, in the tables of the
//! stage (T) and of the next one, let a new connection's packet through the stage to learn, and on behind it:
//!
//! ```text
//!   T    new, bit 0 ──► bit := 1, to T ──► OVN's flows: learn and drop, or on to T+1 ──► T+1  bit 1: the end
//!                   └─► bit := 0, to T+1: OVN's flows there, once and with what OVN decided before
//! ```
//!
//! One task keeps them:
//!
//! ```text
//!   Southbound: datapaths, the stages' numbers ──► wanted ─┐
//!                                                          ├─► difference ──► flow_mods, a barrier ─┐
//!   br-int.mgmt: flow monitor ──► those that are there ────┘                                        ▼
//!        ▲                                                                                    ovs-vswitchd
//!        └── ovn-controller starts and clears the bridge: told at once, added again at once
//! ```
//!
//! OpenFlow is spoken here and not by ovs-ofctl(8): the image has no Open vSwitch in it, whose release must be the
//! node's business, and what is needed of the protocol is little. The flows stay while the agent is away; what it then
//! misses is a restart of ovn-controller, or a new datapath: until it is back, connections that would start a client's
//! affinity fail there. They are there for every datapath, so that the first connection of a new Service finds them.

pub mod flow;
pub mod openflow;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use ycloud_client::Heartbeat;
use ycloud_ovsdb::{Client, Subscription};

use flow::{Flow, Kind};
use openflow::{Change, Message};

use super::talk;

/// How long until the next attempt at a connection; twice as long after each in vain, up to 32 times.
const RECONNECT: Duration = Duration::from_millis(100);

/// How often flows that are still not there are sent again.
const REPEAT: Duration = Duration::from_secs(1);

/// Flows in one go: Open vSwitch stops to read while many answers wait.
const BATCH: usize = 100;

/// Numbers of the two requests that ask for the flows.
const MONITORS: [(u32, Kind); 2] = [(1, Kind::Stop), (2, Kind::Pass)];

/// Why the connection is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conversation.
    #[error(transparent)]
    Talk(#[from] talk::Error),
    /// The switch does not take a request.
    #[error(
        "failed to set flows: Open vSwitch refuses with OpenFlow error type {kind}, code {code}"
    )]
    Refused {
        /// `ofp_error_msg:type`.
        kind: u16,
        /// `ofp_error_msg:code`.
        code: u16,
    },
}

/// How far the task is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Flows of ours in the bridge, as last heard.
    pub flows: usize,
    /// Whether they are as they shall be. Where not, clients of Services with an affinity timeout may fail to connect.
    pub applied: bool,
}

/// The task.
pub struct Affinity {
    /// Client of the Southbound database, with what [`flow::monitored`] says.
    pub southbound: Client,
    /// The bridge's management socket, `<rundir>/br-int.mgmt`.
    pub openflow: PathBuf,
    /// Told after every change.
    pub progress: watch::Sender<Progress>,
}

impl Affinity {
    /// Runs for ever. A pass is what follows from a message or a change, and ends when the bridge has taken what it is sent.
    pub async fn run(self, heartbeat: Heartbeat) {
        if self.southbound.synced().await.is_err() {
            return;
        }
        let (mut told, mut failures) = (String::new(), 0_u32);
        loop {
            let error = match self.connect().await {
                Ok(bridge) => self.keep(bridge, &heartbeat).await,
                Err(error) => error,
            };
            let was = self.progress.send_replace(Progress::default());
            let text = super::in_full(&error);
            failures = if was.applied { 0 } else { failures + 1 };
            // Once, not at each attempt while ovs-vswitchd is away.
            if was.applied || told != text {
                tracing::warn!(
                    error = text,
                    "the flows of session affinity are not known to be there; trying again"
                );
                told = text;
            }
            sleep(RECONNECT * 2_u32.pow(failures.min(5))).await;
        }
    }

    async fn connect(&self) -> Result<Bridge, Error> {
        let socket = |source| talk::socket(&self.openflow, source);
        let mut stream = UnixStream::connect(&self.openflow).await.map_err(socket)?;
        let mut bytes = openflow::hello();
        for (request, kind) in MONITORS {
            bytes.extend(openflow::monitor(request, kind));
        }
        stream.write_all(&bytes).await.map_err(socket)?;
        Ok(Bridge {
            stream,
            path: self.openflow.clone(),
            unread: Vec::new(),
            unsent: Vec::new(),
            flows: BTreeSet::new(),
            unanswered: MONITORS.map(|(request, _)| request).into(),
            asked: BTreeMap::new(),
            awaited: None,
            next: 16,
        })
    }

    /// Keeps the flows until the connection fails.
    async fn keep(&self, mut bridge: Bridge, heartbeat: &Heartbeat) -> Error {
        let mut changes: Subscription = self.southbound.subscribe();
        let mut wanted = flow::wanted(&self.southbound.snapshot());
        let mut repeat = interval(REPEAT);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Whether to send what is missing now: not what was sent and only has not been heard of yet.
            let due = tokio::select! {
                received = bridge.receive() => match received {
                    Ok(due) => due,
                    Err(error) => return error,
                },
                _ = changes.next() => {
                    wanted = flow::wanted(&self.southbound.snapshot());
                    true
                }
                _ = repeat.tick() => true,
            };
            let _pass = heartbeat.pass();
            if due {
                bridge.set(&wanted);
            }
            if let Err(error) = bridge.send().await {
                return error;
            }
            self.tell(&bridge, &wanted);
        }
    }

    fn tell(&self, bridge: &Bridge, wanted: &BTreeSet<Flow>) {
        let now = Progress {
            flows: bridge.flows.len(),
            applied: bridge.unanswered.is_empty() && bridge.flows == *wanted,
        };
        self.progress.send_if_modified(|old| {
            if now.applied && !old.applied {
                tracing::info!(flows = now.flows, "the flows of session affinity are there");
            }
            let changed = *old != now;
            *old = now;
            changed
        });
    }
}

/// A connection to the bridge.
struct Bridge {
    stream: UnixStream,
    path: PathBuf,
    /// Bytes of a message that is not complete.
    unread: Vec<u8>,
    /// Answers to be sent with what is sent next.
    unsent: Vec<u8>,
    /// Those of ours that are there.
    flows: BTreeSet<Flow>,
    /// Requests for flows that have not been answered to the end.
    unanswered: BTreeSet<u32>,
    /// What was sent last: which flow by which request shall be there or not.
    asked: BTreeMap<u32, (Flow, bool)>,
    /// The barrier behind that.
    awaited: Option<u32>,
    /// Number of the next request.
    next: u32,
}

impl Bridge {
    /// Waits for messages and takes them in. Returns whether flows may have to be set. May be dropped at any time.
    async fn receive(&mut self) -> Result<bool, Error> {
        let path = &self.path;
        let socket = |source| talk::socket(path, source);
        let read = self
            .stream
            .read_buf(&mut self.unread)
            .await
            .map_err(socket)?;
        if read == 0 {
            return Err(socket(std::io::ErrorKind::UnexpectedEof.into()).into());
        }
        let mut due = false;
        while let Some(message) = openflow::next(&mut self.unread).map_err(talk::Error::from)? {
            match message {
                Message::Echo(body) => self.unsent.extend(openflow::echo(&body)),
                Message::Refused { kind, code, .. } => return Err(Error::Refused { kind, code }),
                Message::Flows {
                    request,
                    more,
                    changes,
                } => {
                    for change in changes {
                        due |= self.took_away(change);
                    }
                    due |= !more && self.unanswered.remove(&request);
                }
                Message::Done(barrier) => {
                    if self.awaited == Some(barrier) {
                        self.awaited = None;
                        self.asked.clear();
                        due = true;
                    }
                }
                Message::Other => {}
            }
        }
        Ok(due)
    }

    /// Takes in a change; whether somebody else took a flow of ours away.
    fn took_away(&mut self, change: Change) -> bool {
        let (flow, there, own) = match change {
            Change::There(flow) => (flow, true, false),
            Change::Gone(flow) => (flow, false, false),
            Change::Own(request) => match self.asked.get(&request) {
                Some((flow, there)) => (*flow, *there, true),
                None => return false,
            },
        };
        match there {
            true => {
                self.flows.insert(flow);
                false
            }
            false => self.flows.remove(&flow) && !own,
        }
    }

    /// Makes up the messages that add what is missing and take away what is too much, some of it at a time.
    fn set(&mut self, wanted: &BTreeSet<Flow>) {
        if !self.unanswered.is_empty() || self.awaited.is_some() {
            return;
        }
        // The last one in first: see `Flow`'s order.
        let gone: Vec<&Flow> = self.flows.difference(wanted).collect();
        let gone = gone.into_iter().rev().map(|flow| (*flow, false));
        let missing = wanted.difference(&self.flows).map(|flow| (*flow, true));
        let batch: Vec<(Flow, bool)> = gone.chain(missing).take(BATCH).collect();
        if batch.is_empty() {
            return;
        }
        for (flow, there) in batch {
            let number = self.number();
            self.asked.insert(number, (flow, there));
            self.unsent.extend(match there {
                true => openflow::add(number, &flow),
                false => openflow::remove(number, &flow),
            });
        }
        let barrier = self.number();
        self.unsent.extend(openflow::barrier(barrier));
        self.awaited = Some(barrier);
    }

    async fn send(&mut self) -> Result<(), Error> {
        let sent = self.stream.write_all(&self.unsent).await;
        self.unsent.clear();
        sent.map_err(|source| talk::socket(&self.path, source).into())
    }

    fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1).max(16);
        number
    }
}
