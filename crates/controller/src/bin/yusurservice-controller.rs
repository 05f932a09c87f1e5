//! yusurservice-controller: turns YusurServices into Services and EndpointSlices.

use std::process::ExitCode;

use clap::Parser;
use prometheus_client::registry::Registry;
use ycloud_controller::runtime::{self, RuntimeArgs};
use ycloud_controller::yusurservice::execute::NAME;
use ycloud_controller::yusurservice::metrics::Metrics;

/// The default port of /healthz, /readyz and /metrics.
const PORT: u16 = 9442;

/// Turns YusurServices into Services and EndpointSlices, and tells their status.
///
/// It finds the API server by its service account when it runs as a Pod, else by the kubeconfig that KUBECONFIG names.
#[derive(Parser)]
#[command(
    name = "yusurservice-controller",
    version,
    after_help = "Examples:\n  \
        yusurservice-controller                          in a Pod, as deploy/ runs it\n  \
        KUBECONFIG=admin.kubeconfig yusurservice-controller --leader-elect=false   by hand\n  \
        RUST_LOG=debug yusurservice-controller --log-format json"
)]
struct Arguments {
    #[command(flatten)]
    runtime: RuntimeArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut registry = Registry::with_prefix("ycloud_yusurservice_controller");
    let metrics = Metrics::new(&mut registry);
    let body = |runtime| ycloud_controller::yusurservice::run(runtime, metrics);
    runtime::run(NAME, PORT, &arguments.runtime, registry, body)
}
