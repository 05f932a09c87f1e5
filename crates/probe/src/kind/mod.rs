//! The kinds of probes, one file each: what it is made from, what it asks, and what answer counts.

pub mod grpc;
pub mod http;
pub mod https;
pub mod icmp;
pub mod tcp;
pub mod udp;

use ycloud_api::probe::HealthCheck;

use crate::failure::Failure;
use crate::probe::Invalid;
use crate::round::Round;

/// How a target is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// TCP connect.
    Tcp(tcp::Tcp),
    /// HTTP GET.
    Http(http::Http),
    /// HTTPS GET.
    Https(https::Https),
    /// `grpc.health.v1`.
    Grpc(grpc::Grpc),
    /// A datagram and its answer.
    Udp(udp::Udp),
    /// ICMP echo.
    Icmp(icmp::Icmp),
}

impl Check {
    /// The check that `spec` asks for, of the target's `port` where it names none. No kind is a TCP connect.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(
        spec: &HealthCheck,
        port: Option<u16>,
        trust: &mut https::Trust,
    ) -> Result<Self, Invalid> {
        let mut checks = Vec::new();
        if let Some(tcp) = &spec.tcp {
            checks.push(Check::Tcp(tcp::Tcp::new(tcp, port)?));
        }
        if let Some(http) = &spec.http {
            checks.push(Check::Http(http::Http::new(http, port)?));
        }
        if let Some(https) = &spec.https {
            checks.push(Check::Https(https::Https::new(https, port, trust)?));
        }
        if let Some(grpc) = &spec.grpc {
            checks.push(Check::Grpc(grpc::Grpc::new(grpc, port)?));
        }
        if let Some(udp) = &spec.udp {
            checks.push(Check::Udp(udp::Udp::new(udp, port)?));
        }
        if spec.icmp.is_some() {
            checks.push(Check::Icmp(icmp::Icmp));
        }
        let several = "at most one of tcp, http, https, grpc, udp and icmp";
        match (checks.pop(), checks.is_empty()) {
            (None, _) => Ok(Check::Tcp(tcp::Tcp::new(&Default::default(), port)?)),
            (Some(check), true) => Ok(check),
            (Some(_), false) => Err(Invalid::new("", "several kinds of checks", several)),
        }
    }

    /// The kind's name as users write it.
    pub fn name(&self) -> &'static str {
        match self {
            Check::Tcp(_) => "tcp",
            Check::Http(_) => "http",
            Check::Https(_) => "https",
            Check::Grpc(_) => "grpc",
            Check::Udp(_) => "udp",
            Check::Icmp(_) => "icmp",
        }
    }

    /// Asks once, without a deadline of its own. The larger kinds' states are boxed, so that a round of a small kind
    /// does not pay for them.
    pub(crate) async fn ask(&self, round: &Round<'_>) -> Result<(), Failure> {
        match self {
            Check::Tcp(tcp) => tcp.ask(round).await,
            Check::Http(http) => Box::pin(http.ask(round)).await,
            Check::Https(https) => Box::pin(https.ask(round)).await,
            Check::Grpc(grpc) => Box::pin(grpc.ask(round)).await,
            Check::Udp(udp) => Box::pin(udp.ask(round)).await,
            Check::Icmp(icmp) => Box::pin(icmp.ask(round)).await,
        }
    }
}
