//! When links and routes of places change: while they do, Open vSwitch in user space drops packets of tunnels (ARCHITECTURE, Known
//! limits).

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::place::Place;

/// Waits until no link and no route of `places` has changed for `rest`; says whether it came to that within `limit`.
///
/// # Errors
/// What the kernel says, without the right to: needs root.
pub fn at_rest(places: &[Place], rest: Duration, limit: Duration) -> Result<bool> {
    let changes = Changes::of(places)?;
    let (start, mut last) = (Instant::now(), Instant::now());
    while last.elapsed() < rest {
        if changes.any()? {
            last = Instant::now();
        }
        if start.elapsed() > limit {
            return Ok(false);
        }
        thread::sleep(TICK);
    }
    Ok(true)
}

/// Between two looks at what changed.
const TICK: Duration = Duration::from_millis(10);

/// Changes of links and routes of places, as `ip monitor link route` hears of them (rtnetlink(7)).
#[derive(Debug)]
struct Changes(Vec<OwnedFd>);

impl Changes {
    fn of(places: &[Place]) -> Result<Self> {
        let sockets: io::Result<_> = places.iter().map(|place| place.inside(listen)).collect();
        Ok(Self(
            sockets.context("failed to listen for changes of links")?,
        ))
    }

    /// Whether there were any since it was asked last.
    fn any(&self) -> Result<bool> {
        let (mut any, mut message) = (false, vec![0; 32 << 10]);
        for socket in &self.0 {
            loop {
                match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
                    Err(Errno::EAGAIN) => break,
                    // More came than the socket holds.
                    Ok(_) | Err(Errno::ENOBUFS) => any = true,
                    Err(error) => bail!("failed to hear of changes of links: {error}"),
                }
            }
        }
        Ok(any)
    }
}

/// A socket that hears of them, in the network namespace of the calling thread.
fn listen() -> io::Result<OwnedFd> {
    // RTMGRP_LINK, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE.
    const GROUPS: u32 = 0x1 | 0x40 | 0x400;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Notes when links and routes of places change, until it is finished.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Range<Instant>>>>,
    watching: JoinHandle<Result<()>>,
}

/// How long before and after a change of links a packet must be sent to suffer by it: it takes a while, and so do revalidators.
pub(crate) const DROPS: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(200));

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// As [`at_rest`].
    pub fn start(places: &[Place]) -> Result<Self> {
        let changes = Changes::of(places)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let seen = Arc::default();
        let sees: Arc<Mutex<Vec<Range<Instant>>>> = Arc::clone(&seen);
        let watching = thread::spawn(move || {
            let mut last = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let looked = Instant::now();
                if changes.any()? {
                    let mut seen = sees.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(last..looked);
                }
                last = looked;
                thread::sleep(TICK);
            }
            Ok(())
        });
        Ok(Self {
            stop,
            seen,
            watching,
        })
    }

    /// Whether any changed so shortly before or after a moment that a packet of then may have been dropped for it. The moment is a
    /// while ago.
    pub fn about(&self, at: Instant) -> bool {
        let (before, after) = DROPS;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = seen.iter();
        seen.any(|span| at + before >= span.start && at <= span.end + after)
    }

    /// When they changed, since a moment: in each of these spans, of about 10 ms, or of what a busy machine leaves between two looks.
    ///
    /// # Errors
    /// As [`at_rest`].
    pub fn finish(self, since: Instant) -> Result<Vec<Range<Duration>>> {
        self.stop.store(true, Ordering::Relaxed);
        let watched = self.watching.join();
        watched.map_err(|_| anyhow!("the watch of links panicked"))??;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let after = |at: Instant| at.saturating_duration_since(since);
        let spans = seen.iter().map(|span| after(span.start)..after(span.end));
        Ok(spans.collect())
    }
}
