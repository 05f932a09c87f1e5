//! Connections to backends that are gone: taken out of the connection tracking, so that their next packet is balanced anew.
//!
//! A connection's packets go where its first one went, whatever has become of that backend since. A TCP client whose
//! backend vanished without a word waits for minutes, a UDP client for ever. Without its entry the next packet is taken for a
//! connection's first: a TCP client gets a reset of the backend that has never heard of it, or of OVN where there is none;
//! a UDP client gets an answer.
//!
//! ```text
//!   Southbound: vips, options:draining ──► pairs that are gone ──► the bridge has the change ──► NXT_CT_FLUSH ── 1 s ──► again
//!                                                       │                        ▲
//!                                                       └── 2 s: NXT_CT_FLUSH ───┘ where ovn-controller is late or away
//! ```
//!
//! Before that, those TCP connections whose client is a Pod of this node, or the node itself, are ended at their sockets
//! ([`sock_diag`]): the client need not send anything to learn of it, and the kernel resets the other end by the way that
//! the connection still has.
//!
//! What has come back is left alone. The last time is for what a packet of the old flows brought in again: Open vSwitch's
//! cache follows the bridge within half a second or so. OVN's own `options:ct_flush` knows nothing of backends that drain.
//!
//! # Caveats
//! The reset that OVN sends where nobody is left has the sequence number 0 (`pinctrl_handle_tcp_reset`), so a client that
//! is connected already does not heed it: it waits, as it would have without, unless it is a Pod or a node. New connections
//! are refused.
//!
//! What goes while the agent is away is found by a file, [`kept`], but for what came in the ten seconds before. OVN 23.03 has no Southbound row for a load balancer that is on routers
//! alone.

pub mod connection;
pub mod kept;
mod message;
pub mod metrics;
pub mod pairs;
mod unixctl;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use ycloud_api::key::SYSTEM_NAMESPACE;
use ycloud_api::vnic::logical_port;
use ycloud_client::Heartbeat;
use ycloud_ovsdb::{Client, Snapshot};

use super::netns::Netns;
use super::ovs::Ovs;
use super::talk::{self, Talk};
use super::{behind, sock_diag};
use connection::{Connection, TCP};
use kept::Kept;
use pairs::{Flush, Pair, Pairs};

/// How long the bridge is waited for: where ovn-controller is away, old flows beat no flush.
const BRIDGE_LIMIT: Duration = Duration::from_secs(2);

/// How long a pair is kept at most: ovn-controller is away for good, or Open vSwitch's OpenFlow is.
const PATIENCE: Duration = Duration::from_secs(600);

/// When a pair is flushed again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long until the next attempt after one in vain.
const RETRY: Duration = Duration::from_secs(1);

/// How long Open vSwitch may take for a batch.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long resets may take to the next chassis, before the way that they take is flushed.
const PASS: Duration = Duration::from_millis(50);

/// Requests in one go. Each makes ovs-vswitchd look through all connections, and it does nothing else meanwhile.
const BATCH: usize = 32;

/// A flush did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conversation.
    #[error(transparent)]
    Talk(#[from] talk::Error),
    /// No answer in time.
    #[error("failed to flush connections: Open vSwitch gave no answer within {ANSWER_LIMIT:?}")]
    Silent,
    /// The switch takes no request at all.
    #[error(
        "failed to flush connections: Open vSwitch refuses with OpenFlow error type {kind}, code {code}"
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
    /// Client of Open vSwitch's database, see [`behind::client`].
    pub bridge: Client,
    /// The name of the node, or of the chassis.
    pub node: String,
    /// The Pods of this node.
    pub ovs: Ovs,
    /// The bridge's management socket, `<rundir>/br-int.mgmt`.
    pub openflow: PathBuf,
    /// Where it is kept which pairs there are, for the next agent.
    pub kept: PathBuf,
    /// Counters.
    pub metrics: metrics::Metrics,
}

/// A pair that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gone {
    /// The bridge has the change at this number.
    number: i64,
    /// When it was noticed.
    since: Instant,
    stage: Stage,
}

impl Gone {
    /// It was not flushed yet, and no flush of it failed.
    fn is_new(&self) -> bool {
        matches!(self.stage, Stage::Waiting(_)) && self.since.elapsed() < BRIDGE_LIMIT + RETRY
    }
}

/// How far a pair that is gone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The bridge may not have the change yet, and is waited for no longer than this.
    Waiting(Instant),
    /// It was flushed before the bridge had the change: again when it has.
    Early,
    /// It was flushed after that; once more then.
    Again(Instant),
}

impl CtFlush {
    /// Runs for ever. What is there when it starts is compared with what a former agent left.
    pub async fn run(self, heartbeat: Heartbeat) {
        if self.southbound.synced().await.is_err() {
            return;
        }
        let (mut changes, mut bridge) = (self.southbound.subscribe(), self.bridge.subscribe());
        let (mut pairs, mut gone) = (Pairs::default(), BTreeMap::<Pair, Gone>::new());
        pairs.update(&self.southbound.snapshot());
        let mut kept = Kept::new(self.kept.clone());
        let new = new(&self.southbound.snapshot(), Instant::now());
        let left = kept.load().into_iter().filter(|pair| !pairs.has(pair));
        gone.extend(left.map(|pair| (pair, new)));
        let (mut retry, mut told) = (None::<Instant>, String::new());
        loop {
            let now = Instant::now();
            if pairs.is_changed() {
                kept.change(now);
            }
            kept.pass(pairs.all().chain(gone.keys()), now);
            let timer = next_timer(&gone, retry);
            let timer = timer.into_iter().chain(kept.due()).min();
            tokio::select! {
                _ = changes.next() => {}
                _ = bridge.next(), if !gone.is_empty() => {}
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {}
            }
            let _pass = heartbeat.pass();
            let now = Instant::now();
            take_in(&mut pairs, &mut gone, &self.southbound.snapshot(), now);
            give_up(&mut gone, now);
            let waiting = i64::try_from(gone.len()).unwrap_or(i64::MAX);
            self.metrics.waiting.set(waiting);
            if retry.is_some_and(|at| now < at) {
                continue;
            }
            let number = behind::number(&self.bridge.snapshot());
            let due = due(&gone, number, now);
            if due.is_empty() {
                continue;
            }
            // What Open vSwitch's cache let in after the first time is left to the flush: to list all connections takes
            // ovs-vswitchd a while.
            let first = due
                .iter()
                .filter(|pair| gone.get(*pair).is_some_and(Gone::is_new));
            self.end(&first.copied().collect::<Vec<_>>()).await;
            let requests = pairs.flushes(due.iter().copied());
            let asked = (requests.len(), due.len());
            match self.flush(requests).await {
                Ok(refused) => {
                    (retry, told) = (None, String::new());
                    self.count(asked, refused.len());
                    // What was refused would be refused again.
                    gone.retain(|pair, _| !refused.iter().any(|flush| flush.is_for(pair)));
                    advance(&mut gone, due, number, Instant::now());
                }
                Err(error) => {
                    retry = Some(Instant::now() + RETRY);
                    self.metrics.failed.inc();
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

    fn count(&self, (requests, pairs): (usize, usize), refused: usize) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.metrics.flushes.inc();
        self.metrics.requests.inc_by(count(requests));
        self.metrics.pairs.inc_by(count(pairs));
        self.metrics.failed.inc_by(count(refused));
    }

    /// Ends the TCP connections of these pairs whose clients' sockets are on this machine, and lets their resets pass. What
    /// cannot be ended is only logged: it is flushed all the same.
    async fn end(&self, pairs: &[Pair]) {
        let tcp = pairs.iter().filter(|pair| pair.protocol == TCP);
        let tcp: BTreeSet<Pair> = tcp.copied().collect();
        let Some(run_dir) = self.openflow.parent().filter(|_| !tcp.is_empty()) else {
            return;
        };
        let mut of_zone = match list(run_dir, tcp).await {
            Ok(of_zone) => of_zone,
            Err(error) => {
                tracing::warn!(%error, "failed to list the connections of backends that are gone; clients find out with their next packet");
                return;
            }
        };
        let bridge = self.bridge.snapshot();
        let mut of = |port: &str| of_zone.remove(&behind::zone(&bridge, port)?);
        let mut ended = 0;
        for port in self.ovs.view().ports() {
            let Some(of_pod) = of(&port.facts.logical_port) else {
                continue;
            };
            let inside = match Netns::open(&port.facts.netns) {
                Ok(netns) => netns.run(move || abort(&of_pod)).await,
                Err(error) => Err(error),
            };
            match inside {
                Ok(count) => ended += count,
                Err(error) => tracing::debug!(%error, "the Pod is gone"),
            }
        }
        if let Some(of_node) = of(&logical_port(SYSTEM_NAMESPACE, &self.node)) {
            let here = tokio::task::spawn_blocking(move || abort(&of_node));
            ended += here.await.unwrap_or_default();
        }
        if ended > 0 {
            let count = u64::try_from(ended).unwrap_or(u64::MAX);
            self.metrics.ended.inc_by(count);
            tracing::info!(ended, "ended connections to backends that are gone");
            tokio::time::sleep(PASS).await;
        }
    }

    /// Flushes, and waits until that is done. Returns what the switch refused.
    async fn flush(&self, flushes: BTreeSet<Flush>) -> Result<BTreeSet<Flush>, Error> {
        let flushes: Vec<Flush> = flushes.into_iter().collect();
        let mut refused = BTreeSet::new();
        let mut talk = Talk::open(&self.openflow).await?;
        let mut xid = 1_u32;
        for batch in flushes.chunks(BATCH) {
            let first = xid;
            for flush in batch {
                talk.say(message::flush(xid, flush));
                xid = xid.wrapping_add(1);
            }
            let answer = timeout(ANSWER_LIMIT, talk.answer(xid)).await;
            for (request, kind, code) in answer.map_err(|_| Error::Silent)?? {
                let index = usize::try_from(request.wrapping_sub(first)).ok();
                let Some(flush) = index.and_then(|index| batch.get(index)) else {
                    return Err(Error::Refused { kind, code });
                };
                tracing::warn!(
                    protocol = flush.protocol,
                    vip = ?flush.vip,
                    backend = ?flush.backend,
                    kind,
                    code,
                    "Open vSwitch refuses to flush connections of a backend that is gone, with this OpenFlow error (is it older than 3.1?); they stay until they end"
                );
                refused.insert(*flush);
            }
            xid = xid.wrapping_add(1);
        }
        tracing::info!(
            flushed = flushes.len() - refused.len(),
            "flushed connections of backends that are gone"
        );
        Ok(refused)
    }
}

/// The connections of these pairs, by their zones.
async fn list(
    run_dir: &Path,
    pairs: BTreeSet<Pair>,
) -> std::io::Result<BTreeMap<u16, Vec<Connection>>> {
    let dump = unixctl::ask(run_dir, "dpctl/dump-conntrack", &["-m"]).await?;
    let read = move || {
        let mut of_zone: BTreeMap<u16, Vec<Connection>> = BTreeMap::new();
        let connections = dump.lines().filter_map(Connection::read);
        for connection in connections.filter(|one| pairs.contains(&one.pair())) {
            of_zone.entry(connection.zone).or_default().push(connection);
        }
        of_zone
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(std::io::Error::other)
}

/// Ends these connections, whose clients are of the calling thread's network namespace; returns how many there were.
fn abort(connections: &[Connection]) -> usize {
    let ended = connections.iter().filter(|one| {
        let ended = sock_diag::abort(one.client, one.vip);
        ended.unwrap_or_else(|error| {
            tracing::warn!(%error, client = %one.client, "failed to end a connection; does the kernel have INET_DIAG_DESTROY?");
            false
        })
    });
    ended.count()
}

/// When something is to be looked at, whatever changes until then.
fn next_timer(gone: &BTreeMap<Pair, Gone>, retry: Option<Instant>) -> Option<Instant> {
    let times = gone.values().map(|gone| match gone.stage {
        Stage::Waiting(then) | Stage::Again(then) => then,
        Stage::Early => gone.since + PATIENCE,
    });
    let first = times.min();
    first.map(|first| retry.map_or(first, |retry| first.max(retry)))
}

/// What has just been noticed to be gone.
fn new(southbound: &Snapshot, now: Instant) -> Gone {
    Gone {
        number: pairs::number(southbound),
        since: now,
        stage: Stage::Waiting(now + BRIDGE_LIMIT),
    }
}

/// Takes in a new state of the Southbound database. What has come back is not gone.
fn take_in(
    pairs: &mut Pairs,
    gone: &mut BTreeMap<Pair, Gone>,
    southbound: &Snapshot,
    now: Instant,
) {
    let new = new(southbound, now);
    let left = pairs.update(southbound);
    gone.extend(left.into_iter().map(|pair| (pair, new)));
    gone.retain(|pair, _| !pairs.has(pair));
}

/// Forgets what took too long.
fn give_up(gone: &mut BTreeMap<Pair, Gone>, now: Instant) {
    let before = gone.len();
    gone.retain(|_, gone| now < gone.since + PATIENCE);
    let given_up = before - gone.len();
    if given_up > 0 {
        tracing::warn!(
            given_up,
            "connections of backends that are gone may be left: for {PATIENCE:?} ovn-controller did not bring the change into the bridge, or Open vSwitch did not answer"
        );
    }
}

/// The pairs whose time has come. `number`: what the bridge has.
fn due(gone: &BTreeMap<Pair, Gone>, number: i64, now: Instant) -> Vec<Pair> {
    let due = |gone: &Gone| match gone.stage {
        Stage::Waiting(limit) => number >= gone.number || now >= limit,
        Stage::Early => number >= gone.number,
        Stage::Again(then) => now >= then,
    };
    let due = gone.iter().filter(|(_, gone)| due(gone));
    due.map(|(pair, _)| *pair).collect()
}

/// After the first flush of what the bridge has comes a second one, and no third. `number`: what it had before the flush.
fn advance(gone: &mut BTreeMap<Pair, Gone>, flushed: Vec<Pair>, number: i64, now: Instant) {
    for pair in flushed {
        let Some(state) = gone.get_mut(&pair) else {
            continue;
        };
        match state.stage {
            Stage::Again(_) => {
                gone.remove(&pair);
            }
            Stage::Waiting(_) | Stage::Early if number >= state.number => {
                state.stage = Stage::Again(now + AGAIN);
            }
            Stage::Waiting(_) | Stage::Early => state.stage = Stage::Early,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        Pair {
            protocol: 6,
            vip: "10.96.0.7:80".parse().unwrap(),
            backend: "10.0.0.1:80".parse().unwrap(),
        }
    }

    fn gone(start: Instant) -> BTreeMap<Pair, Gone> {
        let gone = Gone {
            number: 7,
            since: start,
            stage: Stage::Waiting(start + BRIDGE_LIMIT),
        };
        [(pair(), gone)].into()
    }

    #[test]
    fn a_pair_is_flushed_when_the_bridge_has_the_change_and_once_more() {
        let (pair, start) = (pair(), Instant::now());
        let mut gone = gone(start);
        assert_eq!(next_timer(&gone, None), Some(start + BRIDGE_LIMIT));
        assert!(due(&gone, 6, start).is_empty());
        assert_eq!(due(&gone, 7, start), [pair]);
        advance(&mut gone, vec![pair], 7, start);
        assert!(due(&gone, 7, start).is_empty());
        let again = start + AGAIN;
        assert_eq!(next_timer(&gone, None), Some(again));
        assert_eq!(next_timer(&gone, Some(again + RETRY)), Some(again + RETRY));
        assert_eq!(due(&gone, 7, again), [pair]);
        advance(&mut gone, vec![pair], 7, again);
        assert!(gone.is_empty() && next_timer(&gone, None).is_none());
    }

    #[test]
    fn a_pair_that_was_flushed_early_is_flushed_again_when_the_bridge_has_the_change() {
        let (pair, start) = (pair(), Instant::now());
        let mut gone = gone(start);
        let late = start + BRIDGE_LIMIT;
        assert_eq!(due(&gone, 6, late), [pair]);
        advance(&mut gone, vec![pair], 6, late);
        let later = start + Duration::from_secs(100);
        assert!(due(&gone, 6, later).is_empty(), "once is enough until then");
        assert_eq!(next_timer(&gone, None), Some(start + PATIENCE));
        assert_eq!(due(&gone, 8, later), [pair]);
        advance(&mut gone, vec![pair], 8, later);
        assert_eq!(due(&gone, 8, later + AGAIN), [pair]);
        advance(&mut gone, vec![pair], 8, later + AGAIN);
        assert!(gone.is_empty());
    }

    #[test]
    fn a_pair_is_not_kept_for_ever() {
        let (pair, start) = (pair(), Instant::now());
        let mut gone = gone(start);
        advance(&mut gone, vec![pair], 6, start + BRIDGE_LIMIT);
        give_up(&mut gone, start + PATIENCE - Duration::from_secs(1));
        assert_eq!(gone.len(), 1);
        give_up(&mut gone, start + PATIENCE);
        assert!(gone.is_empty());
    }
}
