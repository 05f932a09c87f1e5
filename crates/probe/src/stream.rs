//! Connections whose answers cost a bounded number of bytes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::failure::{Failure, Step, TooLarge};
use crate::round::Round;
use crate::socket::{Shape, TRIES};

/// How many bytes of a connection are read without asking whether there is memory for more.
pub(crate) const FREE: usize = 16 * 1024;

/// How many connections at a time may get more than [`FREE`] bytes. The others wait, within their round's time, so that a
/// prober of ten thousand targets that all answer at length needs no memory for all of them at once. Who hinders others by it
/// hinders only those that answer at length, too.
const WIDE: usize = 64;

fn wide() -> PollSemaphore {
    static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(WIDE)));
    PollSemaphore::new(Arc::clone(&PLACES))
}

/// Connects to `port` of the round's address; what is read from it is counted, and ends the round beyond `limit` bytes.
pub(crate) async fn connect(
    round: &Round<'_>,
    port: u16,
    limit: usize,
) -> Result<Bounded<TcpStream>, Failure> {
    let mut attempt = 0;
    let stream = loop {
        let socket = round.open_instead(Shape::Tcp, attempt)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        attempt += 1;
        match socket.connect(round.at(port)).await {
            Ok(stream) => break stream,
            // Another probe of the same address and port is just being asked from this source port.
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && attempt < TRIES => {}
            Err(error) => return Err(Failure::io(Step::Connect, &error)),
        }
    };
    round.enter(Step::Answer);
    Ok(Bounded {
        inner: stream,
        limit,
        left: limit,
        wide: wide(),
        place: None,
    })
}

impl Bounded<TcpStream> {
    /// Ends the connection by FIN, where it would end by RST: of those that say nothing some servers die (iperf 2).
    pub(crate) fn close(self) -> Result<(), Failure> {
        let off = socket2::SockRef::from(&self.inner).set_linger(None);
        off.map_err(|error| Failure::io(Step::Answer, &error))
    }
}

/// A connection with a budget: bytes beyond it are an error, however long they took to arrive.
///
/// The protocols' own libraries bound what they keep in memory. This bounds what they are fed, and so the work that an
/// endless answer of small pieces can cause.
#[derive(Debug)]
pub(crate) struct Bounded<T> {
    inner: T,
    limit: usize,
    left: usize,
    wide: PollSemaphore,
    /// Held from [`FREE`] bytes on.
    place: Option<OwnedSemaphorePermit>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place.is_none() && self.limit - self.left >= FREE {
            // It is never closed.
            self.place = ready!(self.wide.poll_acquire(context));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        match self.left.checked_sub(read) {
            Some(left) => {
                self.left = left;
                result
            }
            None => Poll::Ready(Err(io::Error::other(TooLarge(self.limit)))),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bounded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
