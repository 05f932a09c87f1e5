//! The node agent, a DaemonSet.

use std::io::IsTerminal;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;
use ycloud_node::agent;

/// Wires this node's Pods: serves the CNI plugin, which it installs, and keeps the node's own interface.
#[derive(Debug, Parser)]
#[command(name = "ycloud-cni", version)]
struct Arguments {
    #[command(flatten)]
    options: agent::Options,

    /// Log lines as text for people, or as JSON, one object a line. What is logged: environment variable RUST_LOG, default
    /// `info` but for the API client.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log_format);
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = arguments.options.node,
        "ycloud-cni starts"
    );
    match agent::run(arguments.options).await {
        Ok(()) => {
            tracing::info!("ycloud-cni ends");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            let error: &dyn std::error::Error = &*error;
            tracing::error!(error, "ycloud-cni ends");
            std::process::ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat) {
    // The client repeats as its own errors what the watches report.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
