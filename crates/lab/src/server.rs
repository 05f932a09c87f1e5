//! The server that runs behind VNics and in Pods of `ycloud.io/server:v1` (`go/server`): it can be asked by every kind of probe,
//! and told to fail in every way.
//!
//! HTTP and UDP answer as `agnhost netexec` does ([`ask`](crate::ask)), HTTPS as HTTP, gRPC has the health service. Orders are
//! POSTed to a port of their own, and carried out once they are answered.

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{command, run};
use crate::place::Place;
use crate::progress::Step;
use crate::toolchain;

/// Port of HTTP.
pub const HTTP: u16 = 8080;
/// Port of UDP.
pub const UDP: u16 = 8081;
/// Port of HTTPS.
pub const HTTPS: u16 = 8443;
/// Port of gRPC.
pub const GRPC: u16 = 50051;
/// Port of the orders.
pub const CONTROL: u16 = 8079;
/// A name that the certificate of each server bears, besides its own and its addresses.
pub const NAME: &str = "server.lab";
/// How long an order may take: a virtual machine's processor is emulated, and starting a process takes it a while.
const LIMIT: Duration = Duration::from_secs(20);

/// How such a server is asked: a kind of probe each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// A TCP connection to the port of HTTP.
    Tcp,
    /// HTTP GET.
    Http,
    /// HTTP GET over TLS; the certificate must be right.
    Https,
    /// gRPC's health service.
    Grpc,
    /// A datagram and the right answer.
    Udp,
    /// An echo request.
    Icmp,
}

impl Check {
    /// Every kind of probe.
    pub const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Http,
        Self::Https,
        Self::Grpc,
        Self::Udp,
        Self::Icmp,
    ];

    /// Its field in `spec.healthCheck`, with what is in it, in one line of YAML. `authority` is what [`authority`] returns.
    pub fn yaml(self, authority: &str) -> String {
        match self {
            Self::Tcp => format!("{self}: {{port: {HTTP}}}"),
            Self::Http => format!("{self}: {{port: {HTTP}, path: /healthz}}"),
            // JSON's texts are YAML's.
            Self::Https => format!(
                "{self}: {{port: {HTTPS}, path: /healthz, serverName: {NAME}, caBundle: {}}}",
                serde_json::Value::from(authority)
            ),
            Self::Grpc => format!("{self}: {{port: {GRPC}}}"),
            Self::Udp => format!("{self}: {{port: {UDP}, send: echo ycloud, expect: ycloud}}"),
            Self::Icmp => format!("{self}: {{}}"),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// What a server may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Do all as it should be; start again what was killed.
    Well,
    /// Kill the process that serves; that which listens to orders stays.
    Kill,
    /// Stop it in the middle of what it does: connections are made, and nobody answers.
    Stop,
    /// Close all ports but that of the orders.
    Close,
    /// Answer each request of HTTP and HTTPS with status 500.
    Http500,
    /// Show a certificate that an unknown authority signed.
    CertificateOfAStranger,
    /// Show a certificate that is right, but another server's.
    CertificateOfAnotherName,
    /// Answer health checks of gRPC by NOT_SERVING.
    GrpcNotServing,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Well => "well",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Close => "close",
            Self::Http500 => "http-500",
            Self::CertificateOfAStranger => "certificate-of-a-stranger",
            Self::CertificateOfAnotherName => "certificate-of-another-name",
            Self::GrpcNotServing => "grpc-not-serving",
        })
    }
}

/// Tells the server at an address what to do, and returns when it is done.
///
/// # Errors
/// When it cannot be reached from there, or says that it could not do it.
pub fn tell(from: &Place, server: IpAddr, order: Order) -> Result<()> {
    let at = SocketAddr::new(server, CONTROL);
    let told = || -> Result<String> {
        let mut connection = from.connect(at, LIMIT)?;
        let request = format!("POST /{order} HTTP/1.0\r\nHost: lab\r\nContent-Length: 0\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = told().with_context(|| format!("failed to tell the server at {at}: {order}"))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => bail!("the server at {at} was told {order}, and said: {answer}"),
    }
}

/// The certificate of the authority that signs those of all servers, in PEM. Builds the server if it is missing.
///
/// # Errors
/// When that fails.
pub fn authority() -> Result<String> {
    let server = toolchain::server(&Step::silent())?;
    run(&mut command(server, ["-ca"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_the_same_ports_name_and_orders() {
        let ports = include_str!("../go/server/main.go");
        for (name, port) in [
            ("httpPort", HTTP),
            ("udpPort", UDP),
            ("httpsPort", HTTPS),
            ("grpcPort", GRPC),
            ("controlPort", CONTROL),
        ] {
            let line = |line: &str| {
                line.split(" = ")
                    .map(str::trim)
                    .eq([name, &port.to_string()])
            };
            assert!(ports.lines().any(line), "{name} = {port}");
        }
        let name = format!("const serverName = {NAME:?}");
        assert!(include_str!("../go/server/certificates.go").contains(&name));
        let orders = [
            include_str!("../go/server/orders.go"),
            include_str!("../go/server/serve.go"),
        ]
        .concat();
        for order in [
            Order::Well,
            Order::Kill,
            Order::Stop,
            Order::Close,
            Order::Http500,
            Order::CertificateOfAStranger,
            Order::CertificateOfAnotherName,
            Order::GrpcNotServing,
        ] {
            assert!(orders.contains(&format!("case \"{order}\":")), "{order}");
        }
    }
}
