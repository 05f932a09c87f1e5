//! TCP connect: whoever completes the handshake is well. Not a byte is read.

use ycloud_api::probe::PortCheck;

use crate::failure::Failure;
use crate::probe::{Invalid, port};
use crate::round::Round;
use crate::stream;

/// A TCP connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    port: u16,
}

impl Tcp {
    pub(crate) fn new(spec: &PortCheck, target: Option<u16>) -> Result<Self, Invalid> {
        let port = port(spec.port, target, "tcp.port")?;
        Ok(Self { port })
    }

    pub(crate) async fn ask(&self, round: &Round<'_>) -> Result<(), Failure> {
        stream::connect(round, self.port, 0).await?.close()
    }
}
