//! What a round of a probe may come to, in words for people and with the question who is to blame.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use nix::errno::Errno;

/// Most characters of a failure's words.
pub const MAX_WORDS: usize = 512;

/// Most characters of what a target said that are repeated in words.
const MAX_QUOTE: usize = 120;

/// Errors that the kernel makes of ICMP errors, besides those with an `io::ErrorKind`. Source: Linux,
/// `icmp_err_convert` and `icmpv6_err_convert`.
const FROM_AFAR: [Errno; 7] = [
    // "Administratively prohibited", of ICMPv6 alone: what a firewall says that rejects.
    Errno::EACCES,
    Errno::EHOSTDOWN,
    Errno::EMSGSIZE,
    Errno::ENONET,
    Errno::ENOPROTOOPT,
    Errno::EOPNOTSUPP,
    Errno::EPROTO,
];

/// What a round was about when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Making a connection.
    Connect,
    /// Waiting for a packet that answers one.
    Packet,
    /// The TLS handshake.
    Handshake,
    /// Waiting for an answer, or for the rest of one.
    Answer,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connect => "connecting",
            Step::Packet => "waiting for a packet",
            Step::Handshake => "in the TLS handshake",
            Step::Answer => "waiting for an answer",
        })
    }
}

/// Why a round did not succeed. What a target said is escaped and cut before it gets here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The one deadline of the round passed.
    #[error("timed out after {} s {step}", seconds(*.after))]
    TimedOut {
        /// What it was about.
        step: Step,
        /// The timeout.
        after: Duration,
    },
    /// A host or network on the way said, or the kernel found, that the address cannot be reached.
    #[error("no route to the address {step}: {words}")]
    Unreachable {
        /// What it was about.
        step: Step,
        /// The kernel's words.
        words: String,
    },
    /// RST to a SYN, or ICMP port unreachable.
    #[error("refused: nothing listens on the port")]
    Refused,
    /// RST within a connection.
    #[error("the connection was reset {step}")]
    Reset {
        /// What it was about.
        step: Step,
    },
    /// The connection was closed before the answer was whole.
    #[error("the connection was closed {step}")]
    Closed {
        /// What it was about.
        step: Step,
    },
    /// More bytes than any sane answer has.
    #[error("the answer is too large: more than {limit} bytes before it was understood")]
    Oversized {
        /// Bytes that were allowed.
        limit: usize,
    },
    /// Not the protocol that was asked for.
    #[error("malformed {protocol}: {words}")]
    Malformed {
        /// `HTTP`, `gRPC`.
        protocol: &'static str,
        /// What is wrong.
        words: String,
    },
    /// TLS could not be agreed on, or the certificate is not the expected one.
    #[error("TLS: {words}")]
    Tls {
        /// What is wrong.
        words: String,
    },
    /// An HTTP status that does not count as success.
    #[error("HTTP status {got}, expected {expected}")]
    Status {
        /// The status.
        got: u16,
        /// What counts as success.
        expected: String,
    },
    /// The health service answered, but not SERVING.
    #[error("gRPC health: {status}")]
    NotServing {
        /// The name in `grpc.health.v1.HealthCheckResponse.ServingStatus`.
        status: &'static str,
    },
    /// A gRPC status other than OK.
    #[error("gRPC status {code}: {words}")]
    Grpc {
        /// The status.
        code: u16,
        /// `grpc-message`.
        words: String,
    },
    /// An answer other than the expected one.
    #[error("answered {got}, expected {expected}")]
    Answer {
        /// What came.
        got: String,
        /// What was expected.
        expected: String,
    },
    /// The prober's own machine could not carry the round out. Says nothing about the target.
    #[error("the prober failed to {what}: {words}")]
    Prober {
        /// What it was about to do.
        what: &'static str,
        /// Why not.
        words: String,
    },
}

/// Who may be to blame for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The target: it answered, and wrongly. No fault of the prober's looks like this.
    Target,
    /// Nobody answered: the target, what lies between, or the prober.
    Silence,
    /// The prober's own machine.
    Prober,
}

impl Failure {
    /// Who may be to blame.
    pub fn origin(&self) -> Origin {
        match self {
            Failure::TimedOut { step, .. } => match step {
                Step::Connect | Step::Packet => Origin::Silence,
                // The connection was made: the way there and back works.
                Step::Handshake | Step::Answer => Origin::Target,
            },
            Failure::Unreachable { .. } => Origin::Silence,
            Failure::Prober { .. } => Origin::Prober,
            _ => Origin::Target,
        }
    }

    /// In words, at most [`MAX_WORDS`] characters.
    pub fn words(&self) -> String {
        self.to_string().chars().take(MAX_WORDS).collect()
    }

    /// A failure that the prober's own machine caused.
    pub(crate) fn prober(what: &'static str, error: &io::Error) -> Self {
        Failure::Prober {
            what,
            words: error.to_string(),
        }
    }

    /// What an input or output error on a socket means.
    pub(crate) fn io(step: Step, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let inner = error.get_ref();
        if let Some(limit) = inner.and_then(|e| e.downcast_ref::<TooLarge>()) {
            return Failure::Oversized { limit: limit.0 };
        }
        if let Some(tls) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return Failure::Tls { words: cut(tls) };
        }
        match error.kind() {
            Kind::ConnectionRefused => Failure::Refused,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => {
                Failure::Reset { step }
            }
            Kind::UnexpectedEof | Kind::NotConnected => Failure::Closed { step },
            Kind::HostUnreachable | Kind::TimedOut => Failure::Unreachable {
                step,
                words: error.to_string(),
            },
            _ => match error.raw_os_error().map(Errno::from_raw) {
                Some(errno) if FROM_AFAR.contains(&errno) => Failure::Unreachable {
                    step,
                    words: error.to_string(),
                },
                // No route at all, no device, no permission, no memory, no descriptor.
                Some(_) => Failure::prober("reach the address", error),
                // Not the kernel's: a library does not understand what it reads.
                None => Failure::Malformed {
                    protocol: "answer",
                    words: cut(error),
                },
            },
        }
    }

    /// The input or output error at the bottom of a protocol's own error, if there is one.
    pub(crate) fn below(step: Step, error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Some(Self::io(step, error));
            }
            cause = error.source();
        }
        None
    }
}

/// The error of a reader whose budget of bytes is spent.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
pub(crate) struct TooLarge(pub usize);

/// What a target said: in quotes, without control characters, cut.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let cut = bytes.get(..MAX_QUOTE).unwrap_or(bytes);
    let dots = if bytes.len() > cut.len() { "…" } else { "" };
    format!("\"{}\"{dots}", cut.escape_ascii())
}

/// Words that a library made, perhaps of what a target said: one line, cut.
pub(crate) fn cut(words: impl fmt::Display) -> String {
    let words = words.to_string();
    let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(2 * MAX_QUOTE).collect()
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_said_is_escaped_and_cut() {
        assert_eq!(quote(b"a\x1b[31m\"\n"), r#""a\x1b[31m\"\n""#);
        assert!(quote(&[b'a'; 4096]).chars().count() <= MAX_QUOTE + 3);
        assert_eq!(cut("a\nb\u{7}"), "a b ");
    }

    #[test]
    fn only_silence_and_the_machine_itself_cast_doubt_on_the_prober() {
        let silent = Failure::TimedOut {
            step: Step::Connect,
            after: Duration::from_millis(2500),
        };
        assert_eq!(silent.origin(), Origin::Silence);
        assert_eq!(silent.words(), "timed out after 2.5 s connecting");
        assert_eq!(Failure::Refused.origin(), Origin::Target);
        let full = io::Error::from_raw_os_error(Errno::EMFILE as i32);
        let own = Failure::prober("open a socket", &full);
        assert_eq!(own.origin(), Origin::Prober);
        let of =
            |errno| Failure::io(Step::Packet, &io::Error::from_raw_os_error(errno as i32)).origin();
        assert_eq!(of(Errno::ENETUNREACH), Origin::Prober);
        assert_eq!(of(Errno::EHOSTUNREACH), Origin::Silence);
        assert_eq!(of(Errno::ENOPROTOOPT), Origin::Silence);
        assert_eq!(of(Errno::EACCES), Origin::Silence);
        assert_eq!(of(Errno::ECONNREFUSED), Origin::Target);
        let garbled = io::Error::new(io::ErrorKind::InvalidData, "garbled");
        assert_eq!(Failure::io(Step::Answer, &garbled).origin(), Origin::Target);
    }
}
