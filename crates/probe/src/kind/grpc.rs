//! gRPC: `grpc.health.v1.Health/Check` over HTTP/2 without TLS; SERVING is success.
//!
//! h2 speaks the frames: HPACK with its Huffman code and the rules of flow control are not ten lines. What a server may
//! send is bounded by its settings and by the connection's budget. The two messages have one field each and are written
//! and read here. Source: the gRPC project's `health.proto` and `PROTOCOL-HTTP2.md`.

use std::pin::pin;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request, Response};
use ycloud_api::probe::GrpcCheck;

use crate::failure::{Failure, Step, cut, quote};
use crate::kind::http::AGENT;
use crate::probe::{Invalid, port};
use crate::round::Round;
use crate::stream;

/// Most bytes of a connection.
const LIMIT: usize = 64 * 1024;

/// Most bytes of headers, and of flow control's window.
const WINDOW: u32 = 16 * 1024;

/// Most bytes of an answer: its length, and a message of one small field.
const ANSWER: usize = 1024;

/// A gRPC health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    port: u16,
    /// `HealthCheckRequest`, with the length before it.
    message: Bytes,
}

impl Grpc {
    pub(crate) fn new(spec: &GrpcCheck, target: Option<u16>) -> Result<Self, Invalid> {
        Ok(Self {
            port: port(spec.port, target, "grpc.port")?,
            message: request(spec.service.as_deref().unwrap_or_default())?,
        })
    }

    pub(crate) async fn ask(&self, round: &Round<'_>) -> Result<(), Failure> {
        let stream = stream::connect(round, self.port, LIMIT).await?;
        let (client, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(WINDOW)
            .max_concurrent_reset_streams(4)
            .handshake(stream)
            .await
            .map_err(|error| failure(&error))?;
        let authority = round.at(self.port).to_string();
        let mut exchange = pin!(self.exchange(client, &authority));
        // The connection must be driven for an answer to come.
        tokio::select! {
            biased;
            verdict = &mut exchange => verdict,
            ended = connection => match ended {
                Err(error) => Err(failure(&error)),
                Ok(()) => exchange.await,
            },
        }
    }

    async fn exchange(&self, client: SendRequest<Bytes>, authority: &str) -> Result<(), Failure> {
        let mut client = client.ready().await.map_err(|error| failure(&error))?;
        let path = format!("http://{authority}/grpc.health.v1.Health/Check");
        let request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", AGENT)
            .body(())
            .map_err(|error| Failure::Prober {
                what: "write the request",
                words: error.to_string(),
            })?;
        let (answer, mut body) = client
            .send_request(request, false)
            .map_err(|error| failure(&error))?;
        body.send_data(self.message.clone(), true)
            .map_err(|error| failure(&error))?;
        judge(answer.await.map_err(|error| failure(&error))?).await
    }
}

/// Reads the rest of an answer and judges it.
async fn judge(answer: Response<RecvStream>) -> Result<(), Failure> {
    let (head, mut body) = answer.into_parts();
    if head.status != 200 {
        return Err(Failure::Status {
            got: head.status.as_u16(),
            expected: "200".to_owned(),
        });
    }
    // An error without a message has its status in the head.
    outcome(&head.headers).unwrap_or(Ok(()))?;
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| failure(&error))?;
        if message.len() + data.len() > ANSWER {
            return Err(Failure::Oversized { limit: ANSWER });
        }
        message.extend_from_slice(&data);
        // What was taken in may be sent again: without this an answer in many frames would stall.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(|error| failure(&error))?;
    let trailers = trailers.unwrap_or_default();
    outcome(&trailers).unwrap_or_else(|| Err(malformed("no grpc-status")))?;
    match status(&message)? {
        "SERVING" => Ok(()),
        status => Err(Failure::NotServing { status }),
    }
}

/// What `grpc-status` says, if it is there.
fn outcome(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let status = headers.get("grpc-status")?;
    let code = status.to_str().ok().and_then(|text| text.parse().ok());
    let words = headers
        .get("grpc-message")
        .map(|words| quote(words.as_bytes()));
    Some(match code {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Grpc {
            code,
            words: words.unwrap_or_else(|| "no message".to_owned()),
        }),
        None => Err(malformed("grpc-status is no number")),
    })
}

/// `HealthCheckRequest {string service = 1}`, uncompressed, with its length before it.
fn request(service: &str) -> Result<Bytes, Invalid> {
    let length = u8::try_from(service.len())
        .ok()
        .filter(|length| *length < 254);
    let length =
        length.ok_or_else(|| Invalid::new("grpc.service", service, "write at most 253 bytes"))?;
    let field = match length {
        0 => Vec::new(),
        1..=127 => [&[0x0a, length], service.as_bytes()].concat(),
        // A varint: seven bits a byte, the lower ones first, the highest bit says that more follow.
        128.. => [&[0x0a, length, 1], service.as_bytes()].concat(),
    };
    // At most 256.
    let announced = u32::try_from(field.len()).unwrap_or_default();
    Ok([&[0][..], &announced.to_be_bytes(), &field].concat().into())
}

/// The status in a `HealthCheckResponse {ServingStatus status = 1}` with its length before it.
fn status(answer: &[u8]) -> Result<&'static str, Failure> {
    let [0, a, b, c, d, message @ ..] = answer else {
        return Err(malformed("no uncompressed message in the answer"));
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    if usize::try_from(length).ok() != Some(message.len()) {
        return Err(malformed("a message of another length than announced"));
    }
    let status = status_field(message).ok_or_else(|| malformed("no HealthCheckResponse"))?;
    Ok(match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status that this release does not know",
    })
}

/// The last value of field 1, or 0 if it is not there. Other fields are passed over, as protobuf demands.
fn status_field(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return None,
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn failure(error: &h2::Error) -> Failure {
    if let Some(error) = error.get_io() {
        return Failure::io(Step::Answer, error);
    }
    malformed(error)
}

fn malformed(words: impl std::fmt::Display) -> Failure {
    Failure::Malformed {
        protocol: "gRPC",
        words: cut(words),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_request_is_the_protocols() {
        assert_eq!(&request("").unwrap()[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab").unwrap()[..], b"\0\0\0\0\x04\x0a\x02ab");
        for length in [127, 128, 252, 253] {
            let message = request(&"x".repeat(length)).unwrap();
            let mut field = &message[6..];
            assert_eq!(varint(&mut field), Some(length as u64));
            assert_eq!(field.len(), length);
            let announced = u32::from_be_bytes(message[1..5].try_into().unwrap());
            assert_eq!(announced as usize, message.len() - 5);
        }
        assert!(request(&"x".repeat(254)).is_err());
    }

    #[test]
    fn statuses_are_read_and_other_fields_passed_over() {
        assert_eq!(status(b"\0\0\0\0\x02\x08\x01"), Ok("SERVING"));
        assert_eq!(status(b"\0\0\0\0\x02\x08\x02"), Ok("NOT_SERVING"));
        assert_eq!(status(b"\0\0\0\0\0"), Ok("UNKNOWN"));
        assert_eq!(status(b"\0\0\0\0\x06\x12\x02hi\x08\x01"), Ok("SERVING"));
        assert!(status(b"\x01\0\0\0\x02\x08\x01").is_err());
        assert!(status(b"\0\0\0\0\x09\x08\x01").is_err());
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = status(&bytes);
            let mut framed = vec![0, 0, 0, 0, bytes.len() as u8];
            framed.extend(&bytes);
            let _ = status(&framed);
        }
    }
}
