//! The client on a Northbound database of 10,000 load balancers with 10 endpoints each, served by a real ovsdb-server.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use criterion::{Criterion, SamplingMode};
use support::Server;
use tokio::runtime::Runtime;
use ycloud_ovsdb::{Client, Config, Operation, Remote, Uuid, nb};

#[path = "../tests/support/mod.rs"]
mod support;

const BALANCERS: u128 = 10_000;
const SCHEMA: &str = "schemas/ovn-nb.ovsschema";

/// Random bits, the same in each run: UUIDs are spread evenly in life as well.
fn uuid(n: u128) -> Uuid {
    Uuid::from_u128((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn balancer(n: u128, port: u32) -> nb::LoadBalancer {
    let endpoints: Vec<String> = (0..10)
        .map(|e| format!("10.{}.{}.{e}:{port}", n / 256, n % 256))
        .collect();
    nb::LoadBalancer::new()
        .name(format!("namespace/service-{n}:tcp"))
        .protocol(Some(nb::LoadBalancerProtocol::Tcp))
        .vips([(
            format!("10.96.{}.{}:80", n / 256, n % 256),
            endpoints.join(","),
        )])
        .options([
            ("reject", "true"),
            ("neighbor_responder", "none"),
            ("ct_flush", "true"),
        ])
        .external_ids([
            (
                "iaas.yusur.io/owner".to_owned(),
                format!("Service/namespace/service-{n}"),
            ),
            ("iaas.yusur.io/role".to_owned(), "tcp".to_owned()),
        ])
}

async fn synced(server: &Server) -> Result<Client> {
    let config = Config::new(Remote::parse_list(&server.unix())?, nb::DATABASE)
        .monitor(nb::LoadBalancer::TABLE, nb::LoadBalancer::COLUMNS);
    let client = Client::spawn(config);
    client.synced().await?;
    Ok(client)
}

async fn fill(client: &Client) -> Result<()> {
    let all: Vec<u128> = (0..BALANCERS).collect();
    for chunk in all.chunks(1000) {
        let insert =
            |n: &u128| Operation::insert(nb::LoadBalancer::TABLE, uuid(*n), balancer(*n, 8080));
        let outcome = client.transact(chunk.iter().map(insert).collect()).await?;
        ensure!(outcome.is_committed(), "{outcome:?}");
    }
    Ok(())
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::standalone(dir.path(), Path::new(SCHEMA))?;
    let runtime = Runtime::new()?;
    runtime.block_on(async { fill(&synced(&server).await?).await })?;

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("10k load balancers x 10 endpoints");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .measurement_time(Duration::from_secs(5));
    group.bench_function("first sync", |bencher| {
        bencher.iter(|| {
            let client = runtime.block_on(synced(&server)).expect("the server runs");
            assert_eq!(
                client.snapshot().table(nb::LoadBalancer::TABLE).len() as u128,
                BALANCERS
            );
            black_box(client)
        });
    });
    let client = runtime.block_on(synced(&server))?;
    let mut port = 0;
    group.bench_function("one row, until it is in the snapshot", |bencher| {
        bencher.iter(|| {
            port = (port + 1) % 60_000;
            let update = Operation::update(nb::LoadBalancer::TABLE, uuid(7), balancer(7, port));
            let outcome = runtime
                .block_on(client.transact(vec![update]))
                .expect("the server runs");
            assert!(outcome.is_committed());
            black_box(client.snapshot())
        });
    });
    group.finish();
    criterion.final_summary();

    let memory = std::fs::read_to_string("/proc/self/status")?;
    let memory = memory
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .context("no VmRSS")?;
    println!("with one replica and the bench itself: {memory}");
    Ok(())
}
