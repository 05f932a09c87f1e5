//! Announces addresses to physical networks once this chassis has them: when a gateway moves here, or gets an address.
//!
//! Until then the physical network's switches, and the chassis' own bridge, send to the chassis that had the gateway before.
//! ovn-controller announces too, for the first time a second after it has claimed a gateway (`add_garp_rarp`), which no option
//! shortens; a fail-over by BFD is known after a third of that.
//!
//! ```text
//!   Southbound: chassisredirect ports, nat_addresses ──► claimed ──► what is new ──► OFPT_PACKET_OUT, as if the
//!                                                                                   router had sent it ──► localnet
//! ```
//!
//! What is there when the task starts is not announced: it has been.

pub mod claims;
mod frame;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use ycloud_client::Heartbeat;
use ycloud_ovsdb::Client;

use super::affinity::openflow;
use super::talk::{self, Talk};
use claims::Announcement;

/// How long a claim must stand before it is announced. A chassis that was cut off and returns, or whose ovn-controller begins anew, knows
/// of no other one for about a tenth of a second and claims all gateways: announced at once, that took their traffic away for
/// up to two seconds.
const STANDING: Duration = Duration::from_millis(250);
/// When an announcement is repeated, after the first one: a frame may get lost.
const AGAIN: Duration = Duration::from_millis(200);
/// Announcements in one go.
const BATCH: usize = 100;
/// How long Open vSwitch may take for a batch.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// An announcement did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conversation.
    #[error(transparent)]
    Talk(#[from] talk::Error),
    /// No answer in time.
    #[error("failed to announce addresses: Open vSwitch gave no answer within {ANSWER_LIMIT:?}")]
    Silent,
    /// The switch does not take it.
    #[error(
        "failed to announce addresses: Open vSwitch refuses with OpenFlow error type {kind}, code {code}"
    )]
    Refused {
        /// `ofp_error_msg:type`.
        kind: u16,
        /// `ofp_error_msg:code`.
        code: u16,
    },
}

/// The task.
pub struct Announce {
    /// Client of the Southbound database, with what [`claims::monitored`] says.
    pub southbound: Client,
    /// The bridge's management socket, `<rundir>/br-int.mgmt`.
    pub openflow: PathBuf,
    /// This chassis: its name, or host name.
    pub chassis: String,
}

impl Announce {
    /// Runs for ever. A pass is what follows from a change, with its announcements.
    pub async fn run(self, heartbeat: Heartbeat) {
        if self.southbound.synced().await.is_err() {
            return;
        }
        let mut changes = self.southbound.subscribe();
        let mut claimed = claims::claimed(&self.southbound.snapshot(), &self.chassis);
        // What is to be announced, and when.
        let mut waiting: Vec<(Instant, BTreeSet<Announcement>)> = Vec::new();
        loop {
            let first = waiting.iter().map(|(at, _)| *at).min();
            let timer = async {
                match first {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.next() => {}
                () = timer => {}
            }
            let _pass = heartbeat.pass();
            let (time, now) = (
                Instant::now(),
                claims::claimed(&self.southbound.snapshot(), &self.chassis),
            );
            let new: BTreeSet<Announcement> = now.difference(&claimed).cloned().collect();
            if !new.is_empty() {
                waiting.push((time + STANDING, new.clone()));
                waiting.push((time + STANDING + AGAIN, new));
            }
            claimed = now;
            let mut due = BTreeSet::new();
            waiting.retain(|(at, all)| {
                let later = *at > time;
                if !later {
                    due.extend(all.intersection(&claimed).cloned());
                }
                later
            });
            if due.is_empty() {
                continue;
            }
            match self.announce(&due).await {
                Ok(()) => tracing::info!(
                    addresses = due.len(),
                    "announced addresses of gateways that are here"
                ),
                // ovn-controller does too, if later.
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "failed to announce addresses; ovn-controller will");
                }
            }
        }
    }

    async fn announce(&self, announcements: &BTreeSet<Announcement>) -> Result<(), Error> {
        let mut talk = Talk::open(&self.openflow).await?;
        let all: Vec<&Announcement> = announcements.iter().collect();
        for (number, batch) in (1_u32..).zip(all.chunks(BATCH)) {
            for one in batch {
                let frame = frame::announcement(one.mac, one.address);
                talk.say(openflow::from_port(number, one.datapath, one.port, &frame));
            }
            let answer = timeout(ANSWER_LIMIT, talk.answer(number)).await;
            let refused = answer.map_err(|_| Error::Silent)??;
            if let Some(&(_, kind, code)) = refused.first() {
                return Err(Error::Refused { kind, code });
            }
        }
        Ok(())
    }
}
