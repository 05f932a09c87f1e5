//! What ycloud's programs have around their work: how they reach the API server, [`connect`], with [`Retry`] for watches; and who
//! watches their tasks, [`supervisor`].
//!
//! # The API server
//! kube's own client waits on a connection whose other end went away without a word (a network cut in two, a load balancer that
//! moved): a watch of which nothing comes looks like one of which there is nothing to tell, for five minutes, and the kernel sends again
//! what is under way at intervals that double up to two minutes. Whoever follows endpoints and probes must not be deaf for so long.
//! Here the kernel asks the other end whether it is there once it has been silent for [`SILENCE`], and gives a connection up that has
//! had no answer for [`PATIENCE`]. The watch then fails, and is made anew.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod supervisor;

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::retry::RetryPolicy;
use kube::client::{Client, ConfigExt};
use kube::runtime::utils::Backoff;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

pub use supervisor::{Heartbeat, Supervisor};

/// How long a connection is silent before its other end is asked whether it is there (`TCP_KEEPIDLE`, tcp(7)).
pub const SILENCE: Duration = Duration::from_secs(2);

/// Between two such questions (`TCP_KEEPINTVL`).
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may go without an answer, to such a question or to data, before it is given up (`TCP_USER_TIMEOUT`).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long TCP's handshake may take. The kernel asks again after 1 s, then less and less often; a new attempt asks at once.
const CONNECT: Duration = Duration::from_secs(3);

/// How long all handshakes, TLS' included, may take: of a server that hangs, the kernel goes on to answer for TCP.
pub const HANDSHAKES: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A proxy is configured.
    #[error(
        "the API server is to be reached by the proxy {0}, which ycloud's programs do not use: they need a way of their own; take \
         `proxy-url` out of the kubeconfig, and HTTPS_PROXY and HTTP_PROXY out of the environment"
    )]
    Proxy(http::Uri),
    /// Credentials or certificates that cannot be read or used.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// A client of the API server that `config` names. The process' default rustls provider must be installed.
///
/// # Errors
/// See [`Error`].
pub fn connect(config: Config) -> Result<Client, Error> {
    if let Some(proxy) = config.proxy_url {
        return Err(Error::Proxy(proxy));
    }
    let mut tcp = HttpConnector::new();
    // The scheme is the TLS connector's affair.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(SILENCE));
    tcp.set_keepalive_interval(Some(INTERVAL));
    tcp.set_tcp_user_timeout(Some(PATIENCE));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(Some(HANDSHAKES));
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let again = || RetryLayer::new(RetryPolicy::server_retry());
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(again))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// Waits between attempts of a failing watch: double each time, from 0.1 s to a bound of 3 s, so that an outage of the API server does
/// not last much longer here than there; and up to half of that less, by chance, as all of a cluster's programs lose it at once.
#[derive(Debug, Default)]
pub struct Retry {
    failures: u32,
}

/// First wait.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        Some(
            wait.min(LONGEST_WAIT)
                .mul_f64(rand::random_range(0.5..=1.0)),
        )
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_tried_again_soon_and_then_every_three_seconds() {
        let mut retry = Retry::default();
        for most in [100, 200, 400, 800, 1600, 3000, 3000] {
            let wait = retry.next().expect("it never gives up").as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        retry.reset();
        assert!(retry.next() <= Some(FIRST_WAIT));
    }

    #[test]
    fn a_proxy_is_refused_in_words() {
        let mut config = Config::new("https://api:6443".parse().expect("a URL"));
        config.proxy_url = Some("http://proxy:3128".parse().expect("a URL"));
        let error = connect(config).map(drop).expect_err("it would be ignored");
        assert!(
            error.to_string().contains("the proxy http://proxy:3128"),
            "{error}"
        );
    }
}
