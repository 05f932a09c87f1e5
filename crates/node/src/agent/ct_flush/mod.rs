//! Connections to backends that are gone: taken out of the connection tracking, so that their next packet is balanced anew.
//!
//! A connection's packets go where its first one went, whatever has become of that backend since. A TCP client whose
//! backend vanished without a word waits for minutes, a UDP client for ever. Without its entry the next packet is taken for a
//! connection's first: a TCP client gets a reset of the backend that has never heard of it, or of OVN where there is none;
//! a UDP client gets an answer.
//!
//! ```text
//!   Southbound: vips, options:draining ──► pairs that are gone ──► the bridge has the change, or 2 s ──► NXT_CT_FLUSH
//!                                                                                                            │ 1 s
//!                                       what has come back is left alone ◄───────────────────────────────────┴──► again
//! ```
//!
//! The second time is for what a packet of the old flows brought in again: Open vSwitch's cache follows the bridge within
//! half a second or so. OVN's own `options:ct_flush` knows nothing of backends that drain.
//!
//! # Caveats
//! The reset that OVN sends where nobody is left has the sequence number 0 (`pinctrl_handle_tcp_reset`), so a client that
//! is connected already does not heed it: it waits, as it would have without. New connections are refused.
//!
//! What goes while the agent is away is not noticed. OVN 23.03 has no Southbound row for a load balancer that is on routers
//! alone.

mod message;
pub mod pairs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};
use ycloud_ovsdb::{Client, Config, Remote, Snapshot};

use super::affinity::openflow::{self, Malformed, Message};
use super::ovs::BRIDGE;
use pairs::{Flush, Pair, Pairs};

/// How long the bridge is waited for: where ovn-controller is away, old flows beat no flush.
const BRIDGE_LIMIT: Duration = Duration::from_secs(2);

/// When a pair is flushed again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long until the next attempt after one in vain.
const RETRY: Duration = Duration::from_secs(1);

/// How long Open vSwitch may take for a batch.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Requests in one go. Each makes ovs-vswitchd look through all connections, and it does nothing else meanwhile.
const BATCH: usize = 32;

/// A flush did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket.
    #[error("failed to speak with Open vSwitch at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("failed to flush connections: Open vSwitch gave no answer within {ANSWER_LIMIT:?}")]
    Silent,
    /// The switch speaks otherwise.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The switch does not take a request.
    #[error(
        "failed to flush connections: Open vSwitch refuses with OpenFlow error type {kind}, code {code}; is it older than 3.1?"
    )]
    Refused {
        /// `ofp_error_msg:type`.
        kind: u16,
        /// `ofp_error_msg:code`.
        code: u16,
    },
}

/// The task.
pub struct CtFlush {
    /// Client of the Southbound database, with what [`pairs::monitored`] says.
    pub southbound: Client,
    /// Open vSwitch's database.
    pub ovs: Remote,
    /// The bridge's management socket, `<rundir>/br-int.mgmt`.
    pub openflow: PathBuf,
}

/// How far a pair that is gone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The bridge may not have the change yet: it has it at this number, and is waited for no longer than this.
    Waiting(i64, Instant),
    /// It was flushed; once more then.
    Again(Instant),
}

impl CtFlush {
    /// Runs for ever. What is there when it starts is what is compared with.
    pub async fn run(self) {
        if self.southbound.synced().await.is_err() {
            return;
        }
        // A connection of its own: the bridge's ids change with each state of the Northbound database, which is nothing to
        // those who follow ports.
        let config = Config::new(vec![self.ovs.clone()], "Open_vSwitch");
        let ovs = Client::spawn(config.monitor("Bridge", &["name", "external_ids"]));
        let (mut changes, mut bridge) = (self.southbound.subscribe(), ovs.subscribe());
        let (mut pairs, mut gone) = (Pairs::default(), BTreeMap::<Pair, Stage>::new());
        pairs.update(&self.southbound.snapshot());
        let (mut retry, mut told) = (None::<Instant>, String::new());
        loop {
            let timer = next_timer(&gone, retry);
            tokio::select! {
                _ = changes.next() => {}
                _ = bridge.next(), if !gone.is_empty() => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
            let now = Instant::now();
            take_in(&mut pairs, &mut gone, &self.southbound.snapshot(), now);
            if retry.is_some_and(|at| now < at) {
                continue;
            }
            let due = due(&gone, bridge_number(&ovs.snapshot()), now);
            if due.is_empty() {
                continue;
            }
            let flushes = pairs.flushes(due.iter().copied());
            match self.flush(flushes.iter().copied().collect()).await {
                Ok(()) => {
                    (retry, told) = (None, String::new());
                    advance(&mut gone, due, Instant::now());
                }
                Err(error) => {
                    retry = Some(Instant::now() + RETRY);
                    let text = super::in_full(&error);
                    // Once, not at each attempt while ovs-vswitchd is away.
                    if told != text {
                        tracing::warn!(
                            error = text,
                            "connections of backends that are gone are not flushed; trying again"
                        );
                        told = text;
                    }
                }
            }
        }
    }

    /// Flushes, and waits until that is done.
    async fn flush(&self, flushes: Vec<Flush>) -> Result<(), Error> {
        let socket = |source| Error::Socket {
            path: self.openflow.clone(),
            source,
        };
        let mut stream = UnixStream::connect(&self.openflow).await.map_err(socket)?;
        let (mut bytes, mut unread, mut xid) = (openflow::hello(), Vec::new(), 1_u32);
        for batch in flushes.chunks(BATCH) {
            for flush in batch {
                bytes.extend(message::flush(xid, flush));
                xid = xid.wrapping_add(1);
            }
            bytes.extend(openflow::barrier(xid));
            let done = async {
                while !self.done(&mut stream, &mut bytes, &mut unread, xid).await? {}
                Ok(())
            };
            let done = timeout(ANSWER_LIMIT, done).await;
            done.unwrap_or(Err(Error::Silent))?;
            xid = xid.wrapping_add(1);
        }
        tracing::info!(
            flushed = flushes.len(),
            "flushed connections of backends that are gone"
        );
        Ok(())
    }

    /// Sends, and reads some of the answer; whether it said that all before the barrier is done.
    async fn done(
        &self,
        stream: &mut UnixStream,
        unsent: &mut Vec<u8>,
        unread: &mut Vec<u8>,
        barrier: u32,
    ) -> Result<bool, Error> {
        let socket = |source| Error::Socket {
            path: self.openflow.clone(),
            source,
        };
        stream.write_all(unsent).await.map_err(socket)?;
        unsent.clear();
        if stream.read_buf(unread).await.map_err(socket)? == 0 {
            return Err(socket(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let mut done = false;
        while let Some(message) = openflow::next(unread)? {
            match message {
                Message::Echo(body) => unsent.extend(openflow::echo(&body)),
                Message::Refused { kind, code, .. } => return Err(Error::Refused { kind, code }),
                Message::Done(xid) => done |= xid == barrier,
                Message::Flows { .. } | Message::Other => {}
            }
        }
        Ok(done)
    }
}

/// When something is to be looked at, whatever changes until then.
fn next_timer(gone: &BTreeMap<Pair, Stage>, retry: Option<Instant>) -> Option<Instant> {
    let times = gone.values().map(|stage| match stage {
        Stage::Waiting(_, limit) => *limit,
        Stage::Again(then) => *then,
    });
    let first = times.min();
    first.map(|first| retry.map_or(first, |retry| first.max(retry)))
}

/// Takes in a new state of the Southbound database. What has come back is not gone.
fn take_in(
    pairs: &mut Pairs,
    gone: &mut BTreeMap<Pair, Stage>,
    southbound: &Snapshot,
    now: Instant,
) {
    let waiting = Stage::Waiting(pairs::number(southbound), now + BRIDGE_LIMIT);
    let left = pairs.update(southbound);
    gone.extend(left.into_iter().map(|pair| (pair, waiting)));
    gone.retain(|pair, _| !pairs.has(pair));
}

/// The pairs whose time has come. `number`: what the bridge has.
fn due(gone: &BTreeMap<Pair, Stage>, number: i64, now: Instant) -> Vec<Pair> {
    let due = |stage: &Stage| match stage {
        Stage::Waiting(wanted, limit) => number >= *wanted || now >= *limit,
        Stage::Again(then) => now >= *then,
    };
    let due = gone.iter().filter(|(_, stage)| due(stage));
    due.map(|(pair, _)| *pair).collect()
}

/// After the first flush comes a second one, and no third.
fn advance(gone: &mut BTreeMap<Pair, Stage>, flushed: Vec<Pair>, now: Instant) {
    for pair in flushed {
        if let Some(Stage::Waiting(..)) = gone.remove(&pair) {
            gone.insert(pair, Stage::Again(now + AGAIN));
        }
    }
}

/// `Bridge:external_ids:ovn-nb-cfg`, ovn-controller(8): the newest `nb_cfg` whose flows are all in the bridge.
fn bridge_number(ovs: &Snapshot) -> i64 {
    let mut rows = ovs.table("Bridge").iter();
    let bridge = rows.find(|row| row.get("name").and_then(|n| n.as_str()) == Some(BRIDGE));
    let number = bridge.and_then(|row| {
        let ids = row.get("external_ids")?.as_map()?;
        ids.get_str("ovn-nb-cfg")?.parse().ok()
    });
    number.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_flushed_when_the_bridge_has_the_change_and_once_more() {
        let pair = Pair {
            protocol: 6,
            vip: "10.96.0.7:80".parse().unwrap(),
            backend: "10.0.0.1:80".parse().unwrap(),
        };
        let start = Instant::now();
        let mut gone = BTreeMap::from([(pair, Stage::Waiting(7, start + BRIDGE_LIMIT))]);
        assert_eq!(next_timer(&gone, None), Some(start + BRIDGE_LIMIT));
        assert!(due(&gone, 6, start).is_empty());
        assert_eq!(due(&gone, 6, start + BRIDGE_LIMIT), [pair], "it is late");
        assert_eq!(due(&gone, 7, start), [pair]);
        advance(&mut gone, vec![pair], start);
        assert!(due(&gone, 7, start).is_empty());
        let again = start + AGAIN;
        assert_eq!(next_timer(&gone, None), Some(again));
        assert_eq!(next_timer(&gone, Some(again + RETRY)), Some(again + RETRY));
        assert_eq!(due(&gone, 7, again), [pair]);
        advance(&mut gone, vec![pair], again);
        assert!(gone.is_empty() && next_timer(&gone, None).is_none());
    }
}
