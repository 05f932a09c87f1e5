//! One connection's reader and writer.

use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::config::Config;
use super::transport::Transport;
use crate::link::{Link, Received};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Writes that may wait for the server to read.
const WRITES: usize = 1024;
/// How long the server may leave our bytes unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the reader tells the driver.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A message, with its share of the memory that messages may take up.
    Message(Vec<u8>, OwnedSemaphorePermit),
    /// The connection is over: why, in words.
    Closed(String),
}

/// The driver's end of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Connection {
    inbound: mpsc::UnboundedReceiver<Inbound>,
    outbound: mpsc::Sender<Vec<u8>>,
    /// Reader and writer; aborts them when it is dropped.
    tasks: JoinSet<()>,
}

impl Connection {
    /// Starts reader and writer.
    pub(super) fn start(
        stream: Box<dyn Transport>,
        config: &Config,
        probe_interval: Option<Duration>,
    ) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (sender, inbound) = mpsc::unbounded_channel();
        let (outbound, writes) = mpsc::channel(WRITES);
        let reader = Reader {
            read,
            link: Link::new(config.max_message, probe_interval, Instant::now()),
            memory: Arc::new(Semaphore::new(
                permits(config.max_message).saturating_mul(2) as usize,
            )),
            inbound: sender.clone(),
            outbound: outbound.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let inbound = reader.inbound.clone();
            let reason = reader.run().await;
            // An error says that the driver has already left.
            drop(inbound.send(Inbound::Closed(reason)));
        });
        tasks.spawn(async move {
            if let Err(reason) = write_all(write, writes).await {
                drop(sender.send(Inbound::Closed(reason)));
            }
        });
        Connection {
            inbound,
            outbound,
            tasks,
        }
    }

    /// The next message, or why the connection is over. Panics if reader or writer has: the other one would keep the connection open,
    /// and nothing would come by it any more. Cancel safe.
    pub(super) async fn receive(&mut self) -> Inbound {
        let over = || Inbound::Closed("the connection's tasks have ended".to_owned());
        loop {
            let ended = tokio::select! {
                inbound = self.inbound.recv() => return inbound.unwrap_or_else(over),
                Some(ended) = self.tasks.join_next() => ended,
            };
            match ended {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // It has said why, or the runtime is shutting down.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Sends bytes; says in words if the server has stopped reading.
    pub(super) fn send_all(&self, bytes: Vec<u8>) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.outbound
            .try_send(bytes)
            .map_err(|_| "failed to send: the server does not read".to_owned())
    }
}

struct Reader {
    read: ReadHalf<Box<dyn Transport>>,
    link: Link,
    memory: Arc<Semaphore>,
    inbound: mpsc::UnboundedSender<Inbound>,
    outbound: mpsc::Sender<Vec<u8>>,
}

impl Reader {
    /// Reads until the connection is over; returns why, in words.
    async fn run(mut self) -> String {
        let mut chunk = vec![0; CHUNK];
        loop {
            let step = tokio::select! {
                read = self.read.read(&mut chunk) => match read {
                    Ok(0) => Err("the server closed the connection".to_owned()),
                    Ok(length) => self.take(&chunk[..length]).await,
                    Err(error) => Err(format!("failed to read: {error}")),
                },
                () = sleep_until(self.link.deadline()) => self.tick().await,
            };
            if let Err(reason) = step {
                return reason;
            }
        }
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), String> {
        let mut received = Received::default();
        let result = self.link.receive(chunk, Instant::now(), &mut received);
        if !received.reply.is_empty() {
            self.send(received.reply).await?;
        }
        for message in received.messages {
            // Waits if the driver is far behind: then the server's bytes stay in the kernel.
            let permit = self
                .memory
                .clone()
                .acquire_many_owned(permits(message.len()))
                .await;
            let permit = permit.map_err(|error| error.to_string())?;
            self.inbound
                .send(Inbound::Message(message, permit))
                .map_err(|error| error.to_string())?;
        }
        result.map_err(|error| error.to_string())
    }

    async fn tick(&mut self) -> Result<(), String> {
        match self.link.tick(Instant::now()) {
            Ok(Some(probe)) => self.send(probe.to_vec()).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        self.outbound
            .send(bytes)
            .await
            .map_err(|_| "failed to send: the writer has ended".to_owned())
    }
}

/// Memory of a message in KiB, rounded up.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
}

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => future::pending().await,
    }
}

async fn write_all(
    mut write: WriteHalf<Box<dyn Transport>>,
    mut writes: mpsc::Receiver<Vec<u8>>,
) -> Result<(), String> {
    while let Some(bytes) = writes.recv().await {
        let write = async {
            write.write_all(&bytes).await?;
            write.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("failed to send: {error}")),
            Err(_) => {
                return Err(format!(
                    "failed to send for {} s: the server does not read",
                    WRITE_TIMEOUT.as_secs()
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "an unheard-of message")]
    async fn a_reader_that_panics_takes_the_driver_with_it() {
        let (sender, inbound) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("an unheard-of message") });
        // The writer, which has nothing to write and would wait for ever.
        tasks.spawn(async move { sender.closed().await });
        let mut connection = Connection {
            inbound,
            outbound: mpsc::channel(WRITES).0,
            tasks,
        };
        connection.receive().await;
    }
}
