//! A TCP listener in front of a unix socket that counts what it passes and can cut it off.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone)]
pub struct Proxy {
    pub remote: String,
    /// Bytes from the server to clients.
    passed: Arc<AtomicU64>,
    open: Arc<AtomicBool>,
    cuts: Arc<watch::Sender<u64>>,
}

impl Proxy {
    pub async fn start(server: &Path) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Proxy {
            remote: format!("tcp:{}", listener.local_addr()?),
            passed: Arc::default(),
            open: Arc::new(AtomicBool::new(true)),
            cuts: Arc::new(watch::Sender::new(0)),
        };
        let (passing, server) = (proxy.clone(), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if passing.open.load(Ordering::SeqCst) {
                    tokio::spawn(passing.clone().pass(client, server.clone()));
                }
            }
        });
        Ok(proxy)
    }

    async fn pass(self, mut client: TcpStream, server: PathBuf) {
        let mut cut = self.cuts.subscribe();
        let Ok(mut server) = UnixStream::connect(server).await else {
            return;
        };
        let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
        loop {
            let written = tokio::select! {
                read = client.read(&mut up) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(length) => server.write_all(&up[..length]).await,
                },
                read = server.read(&mut down) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(length) => {
                        self.passed.fetch_add(length as u64, Ordering::SeqCst);
                        client.write_all(&down[..length]).await
                    }
                },
                _ = cut.changed() => return,
            };
            if written.is_err() {
                return;
            }
        }
    }

    /// Ends all connections and lets no new one through until `mend`.
    pub fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Bytes from the server since the last call.
    pub fn take_passed(&self) -> u64 {
        self.passed.swap(0, Ordering::SeqCst)
    }
}
