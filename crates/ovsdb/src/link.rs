//! The lowest layer of a connection: bytes and ticks in, messages and answers to probes out. Does no IO and reads no clock.

use std::time::{Duration, Instant};

use crate::message::{Message, PROBE, PROBE_ID};
use crate::scanner::{ScanError, Scanner};

/// Longer messages are not looked into for an `echo`: they would be scanned once more for nothing.
const LONGEST_ECHO: usize = 4096;

/// Why a connection is given up at this layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The stream cannot be cut into messages.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A probe was not answered.
    #[error("failed to hear from the server for {} s", silence.as_secs_f32())]
    Silent {
        /// How long nothing was heard.
        silence: Duration,
    },
}

/// What a chunk of bytes brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Messages for the session, in order.
    pub messages: Vec<Vec<u8>>,
    /// Bytes to send at once: answers to the server's probes. They must not wait for the messages to be worked on,
    /// or the server would close a connection whose client is busy with a large update.
    pub reply: Vec<u8>,
}

/// One connection's framing and inactivity probes.
#[derive(Debug)]
pub struct Link {
    scanner: Scanner,
    probe_interval: Option<Duration>,
    heard: Instant,
    probed: Option<Instant>,
}

impl Link {
    /// A new connection. `limit` is the longest message in bytes; `probe_interval` is how long the server may be silent
    /// before it is probed, and then again before it is given up; `None` never probes.
    pub fn new(limit: usize, probe_interval: Option<Duration>, now: Instant) -> Self {
        Link {
            scanner: Scanner::new(limit),
            probe_interval,
            heard: now,
            probed: None,
        }
    }

    /// Takes bytes that arrived. On an error, what was complete before it is in `received`.
    ///
    /// # Errors
    /// The stream is broken; the connection is of no more use.
    pub fn receive(
        &mut self,
        chunk: &[u8],
        now: Instant,
        received: &mut Received,
    ) -> Result<(), LinkError> {
        (self.heard, self.probed) = (now, None);
        let from = received.messages.len();
        let result = self.scanner.push(chunk, &mut received.messages);
        let messages = received.messages.split_off(from);
        for message in messages {
            match sort(&message) {
                Sorted::Answer(reply) => received.reply.extend_from_slice(&reply),
                Sorted::Ignore => {}
                Sorted::Pass => received.messages.push(message),
            }
        }
        Ok(result?)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.probed.unwrap_or(self.heard) + self.probe_interval?)
    }

    /// Returns a probe to send if the server has been silent for long.
    ///
    /// # Errors
    /// A probe was sent and nothing was heard since.
    pub fn tick(&mut self, now: Instant) -> Result<Option<&'static [u8]>, LinkError> {
        match (self.deadline(), self.probed) {
            (Some(deadline), Some(_)) if deadline <= now => Err(LinkError::Silent {
                silence: now - self.heard,
            }),
            (Some(deadline), None) if deadline <= now => {
                self.probed = Some(now);
                Ok(Some(PROBE))
            }
            _ => Ok(None),
        }
    }
}

enum Sorted {
    Answer(Vec<u8>),
    Ignore,
    Pass,
}

fn sort(message: &[u8]) -> Sorted {
    if message.len() > LONGEST_ECHO {
        return Sorted::Pass;
    }
    match Message::parse(message) {
        Ok(Message::Response { id, .. }) if id == PROBE_ID => Sorted::Ignore,
        Ok(message) => message.echo_reply().map_or(Sorted::Pass, Sorted::Answer),
        // The session says what is wrong with it.
        Err(_) => Sorted::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_answered_and_not_passed_on() {
        let mut link = Link::new(1000, None, Instant::now());
        let mut received = Received::default();
        let bytes = br#"{"method":"echo","id":"echo","params":[]}{"id":1,"result":1,"error":null}{"id":"probe","result":[],"error":null}"#;
        link.receive(bytes, Instant::now(), &mut received).unwrap();
        assert_eq!(received.reply, br#"{"result":[],"error":null,"id":"echo"}"#);
        assert_eq!(received.messages, [br#"{"id":1,"result":1,"error":null}"#]);
        assert_eq!(link.deadline(), None);
    }

    #[test]
    fn messages_before_rubbish_are_kept() {
        let mut link = Link::new(1000, None, Instant::now());
        let mut received = Received::default();
        link.receive(br#"{"id":1}rubbish"#, Instant::now(), &mut received)
            .unwrap_err();
        assert_eq!(received.messages.len(), 1);
    }

    #[test]
    fn silence_is_probed_once_and_then_fatal() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut link = Link::new(1000, Some(5 * second), start);
        assert_eq!(link.tick(start + 4 * second), Ok(None));
        assert_eq!(link.deadline(), Some(start + 5 * second));
        assert_eq!(link.tick(start + 5 * second), Ok(Some(PROBE)));
        assert_eq!(link.tick(start + 9 * second), Ok(None));
        link.receive(b" ", start + 9 * second, &mut Received::default())
            .unwrap();
        assert_eq!(link.tick(start + 14 * second), Ok(Some(PROBE)));
        let silent = link.tick(start + 19 * second).unwrap_err();
        assert_eq!(
            silent.to_string(),
            "failed to hear from the server for 10 s"
        );
    }
}
