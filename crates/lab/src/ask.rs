//! Questions to backends that run `agnhost netexec`: who answers, and which client it sees.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::icmp;
use crate::links::DROPS;
use crate::place::Place;

/// Within what an answer of a [`Stream`] is as it shall be. TCP sends a first segment again after as long (RFC 6298 §2).
const PROMPT: Duration = Duration::from_secs(1);
/// By when an answer is there whose question was sent again once.
const REPEATED: Duration = Duration::from_millis(1_500);
/// How long a [`Stream`] waits for any step of an answer: that a segment that was lost is sent again is seen.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// Between two questions of a [`Kept`] conversation.
const KEPT_PACE: Duration = Duration::from_millis(100);

/// A backend's answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply {
    /// Its host name: the Pod's name, or on a node's network the node's.
    pub backend: String,
    /// The client as the backend sees it.
    pub client: SocketAddr,
}

/// A conversation that stays open: a TCP connection with one HTTP request after the other, or a UDP socket.
#[derive(Debug)]
pub enum Held {
    /// The connection, with what was read ahead.
    Tcp(BufReader<TcpStream>),
    /// The socket, connected.
    Udp(UdpSocket),
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// What comes back from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// Somebody is there and answers.
    Answer,
    /// A TCP reset or ICMP port unreachable.
    Refusal,
    /// Another ICMP error, or no route.
    Unreachable,
    /// Nothing.
    Silence,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl From<&io::Error> for Heard {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refusal,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Silence,
        }
    }
}

impl Held {
    /// Opens it. No part of it takes longer than `limit`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(
        place: &Place,
        protocol: Protocol,
        to: SocketAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        Ok(match protocol {
            Protocol::Tcp => Self::Tcp(BufReader::new(place.connect(to, limit)?)),
            Protocol::Udp => Self::Udp(place.datagrams(to, limit)?),
        })
    }

    /// Asks who is there, and whom it sees.
    ///
    /// # Errors
    /// What the kernel says; `UnexpectedEof` when the other side has closed; `InvalidData` when it is not netexec.
    pub fn ask(&mut self) -> io::Result<Reply> {
        let backend = self.question("hostname")?;
        let client = self.question("clientip")?;
        let client = client.parse().map_err(|_| {
            io::Error::new(ErrorKind::InvalidData, format!("no address: {client:?}"))
        })?;
        Ok(Reply { backend, client })
    }

    fn question(&mut self, what: &str) -> io::Result<String> {
        match self {
            Self::Tcp(stream) => {
                let request = format!("GET /{what} HTTP/1.1\r\nHost: lab\r\n\r\n");
                stream.get_mut().write_all(request.as_bytes())?;
                body(stream)
            }
            Self::Udp(socket) => {
                socket.send(what.as_bytes())?;
                let mut buffer = [0_u8; 512];
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
            }
        }
    }
}

/// The body of an HTTP answer that says how long it is.
fn body(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    stream.take(length).read_to_string(&mut body)?;
    Ok(body)
}

/// A conversation that is asked all the while, each tenth of a second, until it is finished.
#[derive(Debug)]
pub struct Kept {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<io::Result<Duration>>,
}

impl Kept {
    /// Goes on with a conversation.
    pub fn start(mut held: Held) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = thread::spawn(move || {
            let started = Instant::now();
            let (mut first, mut longest) = (None, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let reply = held.ask().map_err(|error| {
                    let (at, after) = (asked - started, asked.elapsed());
                    let words =
                        format!("asked after {at:.2?}, of {first:?}, {after:.2?} later: {error}");
                    io::Error::new(error.kind(), words)
                })?;
                let first = first.get_or_insert_with(|| reply.clone());
                if *first != reply {
                    return Err(io::Error::other(format!("{reply:?} answers for {first:?}")));
                }
                longest = longest.max(asked.elapsed());
                thread::sleep(KEPT_PACE);
            }
            Ok(longest)
        });
        Self { stop, asking }
    }

    /// Stops asking, and returns the longest that it waited for an answer.
    ///
    /// # Errors
    /// When it broke, as [`Held::ask`], with when it was asked; or another backend answered than the first time, or one
    /// that saw another client.
    pub fn finish(self) -> io::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.asking.join();
        ended.map_err(|_| io::Error::other("the thread panicked"))?
    }
}

/// One question on a connection or socket of its own.
///
/// # Errors
/// As [`Held::open`] and [`Held::ask`].
pub fn ask(
    place: &Place,
    protocol: Protocol,
    to: SocketAddr,
    limit: Duration,
) -> io::Result<Reply> {
    Held::open(place, protocol, to, limit)?.ask()
}

/// What a TCP connection, or a datagram, to this address and port meets.
pub fn knock(place: &Place, protocol: Protocol, to: SocketAddr, limit: Duration) -> Heard {
    let met = Held::open(place, protocol, to, limit).and_then(|mut held| match held {
        Held::Tcp(_) => Ok(()),
        Held::Udp(_) => held.question("hostname").map(drop),
    });
    met.map_or_else(|error| Heard::from(&error), |()| Heard::Answer)
}

/// What a ping of this address meets.
pub fn ping(place: &Place, to: IpAddr, limit: Duration) -> Heard {
    let met = icmp::ping(place, to, limit);
    met.unwrap_or_else(|error| Heard::from(&error))
}

/// One of the connections of a [`Stream`].
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it began, since the stream did.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// The answer, or how it failed.
    pub result: Result<Reply, ErrorKind>,
    /// Whether it is no failure although it was late, see [`Attempts::excuse`].
    pub excused: bool,
}

impl Attempt {
    /// Whether it had an answer within a second.
    pub fn is_prompt(&self) -> bool {
        self.result.is_ok() && self.took < PROMPT
    }

    /// Whether it had an answer once TCP had sent its first segment again.
    fn is_repeated(&self) -> bool {
        self.result.is_ok() && (PROMPT..REPEATED).contains(&self.took)
    }
}

/// Questions at a steady pace, each on a connection of its own and none waiting for another, until it is finished.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    started: Instant,
    pace: JoinHandle<Vec<Attempt>>,
}

impl Stream {
    /// Starts one question `every` so often.
    pub fn start(place: &Place, protocol: Protocol, to: SocketAddr, every: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let (place, stopped) = (place.clone(), Arc::clone(&stop));
        let pace = thread::spawn(move || {
            let (sender, attempts) = mpsc::channel();
            let mut next = started;
            while !stopped.load(Ordering::Relaxed) {
                let (place, sender, at) = (place.clone(), sender.clone(), started.elapsed());
                thread::spawn(move || {
                    let asked = Instant::now();
                    let result = ask(&place, protocol, to, PATIENCE);
                    let result = result.map_err(|error| error.kind());
                    let took = asked.elapsed();
                    // Only a stream that was dropped does not listen any more.
                    let _ = sender.send(Attempt {
                        at,
                        took,
                        result,
                        excused: false,
                    });
                });
                next += every;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            drop(sender);
            let mut attempts: Vec<Attempt> = attempts.iter().collect();
            attempts.sort_by_key(|attempt| attempt.at);
            attempts
        });
        Self {
            stop,
            started,
            pace,
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Stops it, waits for the questions under way, and returns all in the order in which they began.
    pub fn finish(self) -> Attempts {
        self.stop.store(true, Ordering::Relaxed);
        Attempts(self.pace.join().unwrap_or_default())
    }
}

/// What became of the questions of a [`Stream`], in the order in which they began.
///
/// A question without an answer within a second has *failed*, but for one alone, between two that had theirs, whose answer came once TCP
/// had repeated its segment: Open vSwitch in user space drops a packet now and then while links of its machine come and go
/// (ARCHITECTURE, Known limits), which no client notices as a failure, and which is no outage.
#[derive(Clone, Debug)]
pub struct Attempts(pub Vec<Attempt>);

impl Attempts {
    /// Those that failed.
    pub fn failures(&self) -> Vec<&Attempt> {
        let judged = self.judged().into_iter();
        let failed = judged.filter(|(_, answered)| !answered);
        failed.map(|(attempt, _)| attempt).collect()
    }

    /// Each, and whether it was answered.
    fn judged(&self) -> Vec<(&Attempt, bool)> {
        let prompt = |index: Option<usize>| {
            let attempt = index.and_then(|index| self.0.get(index));
            attempt.is_none_or(Attempt::is_prompt)
        };
        let judged = self.0.iter().enumerate().map(|(index, attempt)| {
            let alone = prompt(index.checked_sub(1)) && prompt(index.checked_add(1));
            let late = attempt.excused || (attempt.result.is_ok() && alone);
            let answered = attempt.is_prompt() || late;
            (attempt, answered)
        });
        judged.collect()
    }

    /// Those that began within this span of the stream.
    #[must_use]
    pub fn between(&self, from: Duration, to: Duration) -> Self {
        let within = |attempt: &&Attempt| (from..to).contains(&attempt.at);
        Self(self.0.iter().filter(within).cloned().collect())
    }

    /// Excuses those whose segment Open vSwitch in user space may have dropped for a change of links (ARCHITECTURE, Known limits): their
    /// answer came once TCP had sent it again, and they began about one of these spans of the stream.
    #[must_use]
    pub fn excuse(mut self, changes: &[Range<Duration>]) -> Self {
        let (before, after) = DROPS;
        let about = |at: Duration| {
            let mut spans = changes
                .iter()
                .map(|change| change.start.saturating_sub(before)..change.end + after);
            spans.any(|span| span.contains(&at))
        };
        for attempt in &mut self.0 {
            attempt.excused = attempt.is_repeated() && about(attempt.at);
        }
        self
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failures().len()
    }

    /// The longest time in which all that began failed; zero if none did.
    pub fn longest_outage(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut since = None;
        for (attempt, answered) in self.judged() {
            match (answered, since) {
                (false, None) => since = Some(attempt.at),
                (true, Some(start)) => {
                    longest = longest.max(attempt.at.saturating_sub(start));
                    since = None;
                }
                _ => {}
            }
        }
        if let (Some(start), Some(last)) = (since, self.0.last()) {
            longest = longest.max(last.at.saturating_sub(start));
        }
        longest
    }

    /// From the first one that failed to the first one after which none did; zero if none failed.
    pub fn disturbance(&self) -> Duration {
        let failed = self.failures();
        let (Some(first), Some(last)) = (failed.first(), failed.last()) else {
            return Duration::ZERO;
        };
        let after = self.0.iter().find(|a| a.at > last.at).unwrap_or(last);
        after.at.saturating_sub(first.at)
    }

    /// When those that failed began, since the stream did: the first and the last of each row.
    pub fn outages(&self) -> Vec<(Duration, Duration)> {
        let mut rows: Vec<(Duration, Duration)> = Vec::new();
        let mut before = true;
        for (attempt, answered) in self.judged() {
            match rows.last_mut() {
                _ if answered => {}
                Some(row) if !before => row.1 = attempt.at,
                _ => rows.push((attempt.at, attempt.at)),
            }
            before = answered;
        }
        rows
    }

    /// When the last one that failed began, since the stream did.
    pub fn last_failure(&self) -> Option<Duration> {
        self.failures().last().map(|attempt| attempt.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(pattern: &str) -> Attempts {
        let reply = Reply {
            backend: "b".into(),
            client: "[::1]:1".parse().unwrap(),
        };
        let attempt = |(i, c): (usize, char)| Attempt {
            at: Duration::from_millis(20 * i as u64),
            took: Duration::from_millis(match c {
                '+' => 9,
                '=' => 2_009,
                _ => 1_009,
            }),
            result: if c != '-' {
                Ok(reply.clone())
            } else {
                Err(ErrorKind::TimedOut)
            },
            excused: false,
        };
        Attempts(pattern.chars().enumerate().map(attempt).collect())
    }

    #[test]
    fn a_segment_that_was_repeated_is_no_failure_unless_others_were_beside_it() {
        let failed = |pattern| attempts(pattern).failed();
        assert_eq!(failed("++~++~+"), 0);
        assert_eq!(failed("++~~+"), 2);
        assert_eq!(failed("+~-+"), 2);
        assert_eq!(failed("+-+"), 1);
        assert_eq!(failed("~+~"), 0);
        assert_eq!(attempts("+~~+~+").outages().len(), 1);
    }

    #[test]
    fn what_a_change_of_links_cost_is_excused() {
        let failed = |pattern, change| {
            let change = Duration::from_millis(change);
            attempts(pattern).excuse(&[change..change]).failed()
        };
        assert_eq!(failed("+~~+", 40), 0);
        assert_eq!(failed("+~~+", 400), 2, "long before");
        assert_eq!(failed("++++++++++++~~+", 30), 2, "long after");
        assert_eq!(failed("+~-~+", 40), 1, "it had no answer at all");
        assert_eq!(failed("+==+", 40), 2, "it was sent more than once again");
        let edge = "+++++++++++~~+";
        assert_eq!(failed(edge, 30), 1, "who is beside it is not alone");
    }

    #[test]
    fn an_outage_lasts_from_its_first_failure_to_the_next_answer() {
        let milliseconds = |pattern| attempts(pattern).longest_outage().as_millis();
        assert_eq!(milliseconds("+++++"), 0);
        assert_eq!(milliseconds("+-+--+"), 40);
        assert_eq!(milliseconds("++---"), 40);
        assert_eq!(attempts("+-+--+").failed(), 3);
        assert_eq!(attempts("+-+--++").disturbance().as_millis(), 80);
        assert_eq!(attempts("++").disturbance().as_millis(), 0);
        let milliseconds = |pattern| {
            let rows = attempts(pattern).outages().into_iter();
            let rows = rows.map(|(first, last)| (first.as_millis(), last.as_millis()));
            rows.collect::<Vec<_>>()
        };
        assert_eq!(milliseconds("+-+--+-"), [(20, 20), (60, 80), (120, 120)]);
        assert_eq!(milliseconds("--+"), [(0, 20)]);
        assert_eq!(
            attempts("+-+--+").last_failure(),
            Some(Duration::from_millis(80))
        );
    }
}
