//! One round of a probe: one question, one deadline, one outcome.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use socket2::Socket;
use ycloud_api::address::Family;

use crate::failure::{Failure, Step};
use crate::probe::Probe;
use crate::socket::{Shape, Sockets, instead};

/// What a round came to: how long the success took, or why it is none.
pub type Outcome = Result<Duration, Failure>;

/// What a kind of probe knows while it asks.
#[derive(Debug)]
pub struct Round<'a> {
    address: IpAddr,
    sockets: &'a dyn Sockets,
    turn: u64,
    step: AtomicU8,
}

impl Round<'_> {
    /// The target's address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The target's address with a port. As text IPv6 is in brackets, as it is wherever a port follows (RFC 3986).
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// The round's socket, of the target's family. A round has one.
    ///
    /// # Errors
    /// [`Failure::Prober`].
    pub fn open(&self, shape: Shape) -> Result<Socket, Failure> {
        self.open_instead(shape, 0)
    }

    /// Its socket once `attempt` others proved to be of no use, as their source ports are taken.
    pub(crate) fn open_instead(&self, shape: Shape, attempt: u64) -> Result<Socket, Failure> {
        let (family, turn) = (Family::of(self.address), instead(self.turn, attempt));
        let socket = self.sockets.open(family, shape, turn);
        socket.map_err(|error| Failure::prober("open a socket", &error))
    }

    /// Notes what the round is about, for the words of a timeout.
    pub fn enter(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        let step = self.step.load(Ordering::Relaxed);
        let known = [Step::Packet, Step::Handshake, Step::Answer];
        let found = known.into_iter().find(|s| *s as u8 == step);
        found.unwrap_or(Step::Connect)
    }
}

/// Asks once. Ends at the probe's timeout at the latest, whatever the target does; dropping it closes its socket.
///
/// `turn` counts the probe's rounds and picks the source port ([`source_port`](crate::socket::source_port)).
pub async fn ask(probe: &Probe, sockets: &dyn Sockets, turn: u64) -> Outcome {
    let round = Round {
        address: probe.address,
        sockets,
        turn,
        step: AtomicU8::new(Step::Connect as u8),
    };
    let start = Instant::now();
    let timeout = probe.timing.timeout;
    match tokio::time::timeout(timeout, probe.check.ask(&round)).await {
        Ok(Ok(())) => Ok(start.elapsed()),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::TimedOut {
            step: round.step(),
            after: timeout,
        }),
    }
}
