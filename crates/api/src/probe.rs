//! Health checks: what is asked, how often, and what counts.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How each backend is checked. At most one of `tcp`, `http`, `https`, `grpc`, `udp` and `icmp`; none is a TCP connect.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.tcp), has(self.http), has(self.https), has(self.grpc), has(self.udp), has(self.icmp)].filter(x, x).size() <= 1").message("at most one of tcp, http, https, grpc, udp and icmp"))]
#[x_kube(validation = Rule::new("(has(self.timeoutSeconds) ? self.timeoutSeconds : 2) <= (has(self.periodSeconds) ? self.periodSeconds : 5)").message("timeoutSeconds must not exceed periodSeconds"))]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// TCP connect to the target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<PortCheck>,
    /// HTTP GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// HTTPS GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<HttpsCheck>,
    /// gRPC health check, `grpc.health.v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// UDP datagram and its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpCheck>,
    /// ICMP echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpCheck>,
    /// Seconds between two checks, 1 to 3600. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,
    /// Seconds until a check counts as failed, 1 to 300. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: Option<i32>,
    /// Successes in a row that make an unhealthy backend healthy, 1 to 100. One is enough for a backend that was never
    /// unhealthy, or was healthy before nobody could tell. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: Option<i32>,
    /// Failures in a row that make a backend unhealthy, 1 to 100. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: Option<i32>,
}

/// A check that needs a port only.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortCheck {
    /// Port, 1 to 65535. Default: the target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// An HTTP GET. Status line and headers of an answer may have 1 MiB together, and be 2,000; its body does not matter.
/// By https all that the server sends, certificates too, may have 192 KiB.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Port, 1 to 65535. Default: the target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Path, with query, of visible ASCII characters; it starts with a slash. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path: starts with a slash, for example /healthz"))]
    #[schemars(length(max = 2048), regex(pattern = r"^[!-~]*$"))]
    pub path: Option<String>,
    /// Status codes that count as success: one (204) or an inclusive range (200-299). Default 200-399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.substring(0, 3) <= self.substring(self.size() - 3)").message("statuses: the first code must not exceed the last, for example 200-299"))]
    #[schemars(
        length(min = 3, max = 7),
        regex(pattern = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")
    )]
    pub statuses: Option<String>,
    /// The `Host` of the request, up to 253 characters. Default: the serverName of https, else address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[A-Za-z0-9.:_\[\]-]*$"))]
    pub host: Option<String>,
}

/// An HTTP GET over TLS.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.caBundle) != (has(self.insecureSkipVerify) && self.insecureSkipVerify)").message("https: exactly one of caBundle and insecureSkipVerify: true"))]
#[serde(rename_all = "camelCase")]
pub struct HttpsCheck {
    /// The request.
    #[serde(flatten)]
    pub request: HttpCheck,
    /// The name to ask for (SNI) and that the certificate must bear, up to 253 characters. Default: no SNI, and the
    /// certificate must bear the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
    )]
    pub server_name: Option<String>,
    /// Certificates that the server's must be signed by, in PEM, at most 32, up to 32,768 characters. Required, unless
    /// insecureSkipVerify is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----')").message("caBundle: no certificate in PEM; it begins with -----BEGIN CERTIFICATE-----"))]
    #[schemars(length(max = 32768))]
    pub ca_bundle: Option<String>,
    /// Whether any certificate will do. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// A gRPC health check.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GrpcCheck {
    /// Port, 1 to 65535. Default: the target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Service name in the request. Default: empty, the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service: Option<String>,
}

/// A UDP datagram and its answer.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UdpCheck {
    /// Port, 1 to 65535. Default: the target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Payload to send: text, in which `\n`, `\r`, `\t`, `\\` and `\xNN` stand for bytes. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^([^\\]|\\([nrt\\]|x[0-9A-Fa-f]{2}))*$")
    )]
    pub send: Option<String>,
    /// What the first answer must contain, written as `send`. Default: any answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^([^\\]|\\([nrt\\]|x[0-9A-Fa-f]{2}))*$")
    )]
    pub expect: Option<String>,
}

/// An ICMP echo request.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IcmpCheck {}
