//! A server that sends 100 MB where a message should be: alone in its process, because its memory is measured.

mod support;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use support::schema;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use ycloud_ovsdb::{Client, Config, Remote};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_takes_no_memory() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let remotes = Remote::parse_list(&format!("tcp:{}", listener.local_addr()?))?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let chunk = vec![b'x'; 1 << 20];
            let mut sent = stream
                .write_all(b"{\"id\":1,\"error\":null,\"result\":\"")
                .await;
            for _ in 0..100 {
                // The client closes the connection in the middle of it.
                if sent.is_ok() {
                    sent = stream.write_all(&chunk).await;
                }
            }
        }
    });
    let before = resident()?;
    let mut config = Config::new(remotes, schema::DATABASE).monitor_all("Shape");
    config.max_message = 4 << 20;
    let client = Client::spawn(config);
    let (start, mut most) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(1) {
        most = most.max(resident()?.saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = client
        .connection()
        .borrow()
        .last_error
        .clone()
        .unwrap_or_default();
    ensure!(error.contains("it is longer than 4194304 bytes"), "{error}");
    ensure!(most < 32 << 20, "{} MiB more than before", most >> 20);
    Ok(())
}

/// This process' memory in bytes.
fn resident() -> Result<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm")?
        .split(' ')
        .nth(1)
        .unwrap_or("0")
        .parse()?;
    Ok(pages * 4096)
}
