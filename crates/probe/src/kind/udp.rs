//! UDP: one datagram, and the first answer decides. ICMP port unreachable is a failure at once, silence at the deadline.

use tokio::net::UdpSocket;
use ycloud_api::probe::UdpCheck;

use crate::failure::{Failure, Step, quote};
use crate::probe::{Invalid, port};
use crate::round::Round;
use crate::socket::Shape;

/// Bytes of an answer that are looked at; the kernel drops the rest.
pub const ANSWER: usize = 4096;

/// A datagram and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    port: u16,
    send: Box<[u8]>,
    expect: Box<[u8]>,
}

impl Udp {
    pub(crate) fn new(spec: &UdpCheck, target: Option<u16>) -> Result<Self, Invalid> {
        Ok(Self {
            port: port(spec.port, target, "udp.port")?,
            send: payload(spec.send.as_deref(), "udp.send")?,
            expect: payload(spec.expect.as_deref(), "udp.expect")?,
        })
    }

    pub(crate) async fn ask(&self, round: &Round<'_>) -> Result<(), Failure> {
        let error = |error| Failure::io(Step::Packet, &error);
        let socket = round.open(Shape::Udp)?;
        round.enter(Step::Packet);
        // Connected: only the target's datagrams come in, and ICMP errors become the socket's.
        let address = round.at(self.port).into();
        socket.connect(&address).map_err(error)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(error)?;
        socket.send(&self.send).await.map_err(error)?;
        let mut answer = vec![0; ANSWER];
        let length = socket.recv(&mut answer).await.map_err(error)?;
        self.judge(answer.get(..length).unwrap_or(&answer))
    }

    fn judge(&self, answer: &[u8]) -> Result<(), Failure> {
        let expect = &*self.expect;
        if expect.is_empty() || answer.windows(expect.len()).any(|part| part == expect) {
            return Ok(());
        }
        Err(Failure::Answer {
            got: quote(answer),
            expected: quote(expect),
        })
    }
}

/// The bytes that `text` stands for: `\n`, `\r`, `\t`, `\\` and `\xNN` are one byte each.
fn payload(text: Option<&str>, field: &str) -> Result<Box<[u8]>, Invalid> {
    let text = text.unwrap_or_default();
    let bytes = unescape(text.as_bytes());
    let cure = r"after a backslash write n, r, t, a backslash, or x and two hexadecimal digits";
    let bytes = bytes.ok_or_else(|| Invalid::new(field, text, cure))?;
    Ok(bytes.into())
}

fn unescape(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    loop {
        let (byte, rest) = match text {
            [] => return Some(bytes),
            [b'\\', b'n', rest @ ..] => (b'\n', rest),
            [b'\\', b'r', rest @ ..] => (b'\r', rest),
            [b'\\', b't', rest @ ..] => (b'\t', rest),
            [b'\\', b'\\', rest @ ..] => (b'\\', rest),
            [b'\\', b'x', high, low, rest @ ..] => {
                let digit = |c: &u8| char::from(*c).to_digit(16);
                let value = digit(high)? * 16 + digit(low)?;
                (u8::try_from(value).ok()?, rest)
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => (*byte, rest),
        };
        bytes.push(byte);
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_written_as_text() {
        let bytes = |text: &str| unescape(text.as_bytes());
        assert_eq!(bytes(r"a\n\x00\xfF\\"), Some(b"a\n\x00\xff\\".to_vec()));
        for wrong in [r"\", r"\q", r"\x1", r"\xg0", r"a\x"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_payload_can_be_written(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text: String = bytes.iter().map(|b| format!(r"\x{b:02x}")).collect();
            prop_assert_eq!(unescape(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let _ = unescape(text.as_bytes());
        }
    }
}
