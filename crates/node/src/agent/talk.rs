//! One conversation with the integration bridge by OpenFlow: requests, and an answer once all of them are done.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::affinity::openflow::{self, Malformed, Message};

/// The conversation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket.
    #[error("failed to speak with Open vSwitch at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The switch speaks otherwise.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A conversation.
#[derive(Debug)]
pub struct Talk<'a> {
    path: &'a Path,
    stream: UnixStream,
    unsent: Vec<u8>,
    unread: Vec<u8>,
}

impl<'a> Talk<'a> {
    /// Connects to the bridge's management socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn open(path: &'a Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(path).await;
        Ok(Self {
            path,
            stream: stream.map_err(|source| socket(path, source))?,
            unsent: openflow::hello(),
            unread: Vec::new(),
        })
    }

    /// Says more with the next [`Talk::answer`].
    pub fn say(&mut self, message: Vec<u8>) {
        self.unsent.extend(message);
    }

    /// Sends, and reads until all is done: until a barrier of this number. Returns the numbers of requests that were refused,
    /// with type and code of the error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn answer(&mut self, barrier: u32) -> Result<Vec<(u32, u16, u16)>, Error> {
        self.unsent.extend(openflow::barrier(barrier));
        let mut refused = Vec::new();
        loop {
            let sent = self.stream.write_all(&self.unsent).await;
            sent.map_err(|source| socket(self.path, source))?;
            self.unsent.clear();
            let read = self.stream.read_buf(&mut self.unread).await;
            if read.map_err(|source| socket(self.path, source))? == 0 {
                let end = std::io::ErrorKind::UnexpectedEof.into();
                return Err(socket(self.path, end));
            }
            let mut done = false;
            while let Some(message) = openflow::next(&mut self.unread)? {
                match message {
                    Message::Echo(body) => self.unsent.extend(openflow::echo(&body)),
                    Message::Refused {
                        request,
                        kind,
                        code,
                    } => refused.push((request, kind, code)),
                    Message::Done(xid) => done |= xid == barrier,
                    Message::Flows { .. } | Message::Other => {}
                }
            }
            if done {
                return Ok(refused);
            }
        }
    }
}

/// The socket failed.
pub(super) fn socket(path: &Path, source: std::io::Error) -> Error {
    let path = path.to_owned();
    Error::Socket { path, source }
}
