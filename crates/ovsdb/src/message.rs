//! JSON-RPC messages, RFC 7047 §4 (JSON-RPC 1.0).

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use serde_json::value::RawValue;

use crate::operation::Operation;

/// One message, its parts not parsed any further.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// A request (it has an id and wants an answer) or a notification (it has none).
    Request {
        method: Cow<'a, str>,
        params: &'a str,
        id: Option<&'a str>,
    },
    /// The answer to one of our requests. `error` is `None` if it succeeded.
    Response {
        id: &'a str,
        result: &'a str,
        error: Option<&'a str>,
    },
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// The id of our probes; their answers mean nothing but "alive".
pub(crate) const PROBE_ID: &str = "\"probe\"";

/// An inactivity probe, ovsdb-server(7) §4.1.11.
pub(crate) const PROBE: &[u8] = br#"{"method":"echo","params":[],"id":"probe"}"#;

impl<'a> Message<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let envelope: Envelope<'a> = serde_json::from_slice(bytes)
            .map_err(|error| format!("a message is no JSON-RPC: {error}"))?;
        let id = envelope.id.map(RawValue::get);
        match (envelope.method, id) {
            (Some(method), id) => Ok(Message::Request {
                method,
                params: envelope.params.map_or("[]", RawValue::get),
                id,
            }),
            (None, Some(id)) => Ok(Message::Response {
                id,
                result: envelope.result.map_or("null", RawValue::get),
                error: envelope.error.map(RawValue::get),
            }),
            (None, None) => Err("a message has neither method nor id".to_owned()),
        }
    }

    /// The answer, if this is an `echo` request.
    pub(crate) fn echo_reply(&self) -> Option<Vec<u8>> {
        match self {
            Message::Request {
                method,
                params,
                id: Some(id),
            } if method == "echo" => {
                Some(format!(r#"{{"result":{params},"error":null,"id":{id}}}"#).into_bytes())
            }
            _ => None,
        }
    }
}

/// Appends a request.
pub(crate) fn write_request(out: &mut Vec<u8>, method: &str, params: &impl Serialize, id: u64) {
    #[derive(Serialize)]
    struct Request<'a, P> {
        method: &'a str,
        params: &'a P,
        id: u64,
    }
    // Writing to a Vec does not fail, and no type of this crate that is written here fails to serialize.
    if let Err(error) = serde_json::to_writer(&mut *out, &Request { method, params, id }) {
        unreachable!("a request could not be written: {error}");
    }
}

/// The parameters of `transact`: the database's name, then the operations.
pub(crate) struct TransactParams<'a> {
    pub(crate) database: &'a str,
    pub(crate) operations: &'a [Operation],
}

impl Serialize for TransactParams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut params = serializer.serialize_seq(Some(1 + self.operations.len()))?;
        params.serialize_element(self.database)?;
        self.operations
            .iter()
            .try_for_each(|operation| params.serialize_element(operation))?;
        params.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_in_any_order_of_members() {
        let echo = Message::parse(br#"{"id":["x",1],"params":[1, 2],"method":"echo"}"#).unwrap();
        assert_eq!(
            echo.echo_reply().unwrap(),
            br#"{"result":[1, 2],"error":null,"id":["x",1]}"#
        );
        let update = Message::parse(br#"{"method":"update2","params":[],"id":null}"#).unwrap();
        assert!(matches!(update, Message::Request { id: None, .. }));
        assert!(update.echo_reply().is_none());
        let reply = Message::parse(br#"{"error":null,"result":{"a":1},"id":7}"#).unwrap();
        assert!(matches!(
            reply,
            Message::Response {
                id: "7",
                result: r#"{"a":1}"#,
                error: None
            }
        ));
        let error = Message::parse(br#"{"error":"canceled","result":null,"id":7}"#).unwrap();
        assert!(matches!(
            error,
            Message::Response {
                error: Some("\"canceled\""),
                ..
            }
        ));
    }

    #[test]
    fn rubbish_is_refused() {
        for rubbish in [
            "{}",
            "{]",
            r#"{"id":null}"#,
            r#"{"method":5,"id":1}"#,
            "{\"method\":\"\u{0}\"}",
        ] {
            assert!(Message::parse(rubbish.as_bytes()).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn transact_names_the_database_first() {
        let mut out = Vec::new();
        let operations = [Operation::comment("x")];
        write_request(
            &mut out,
            "transact",
            &TransactParams {
                database: "D",
                operations: &operations,
            },
            3,
        );
        let expected =
            r#"{"method":"transact","params":["D",{"op":"comment","comment":"x"}],"id":3}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
