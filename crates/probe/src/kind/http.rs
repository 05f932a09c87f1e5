//! HTTP/1.1 GET: the status decides; redirects are not followed, and the body is not read.
//!
//! hyper reads the answer: it is in the binaries anyway, and keeps a head of at most [`HEAD`] bytes in memory. A head must
//! be whole to count, so a server that stops within it has failed. The bounds are as wide as those of the kubelet, so that what
//! is ready for Kubernetes is Healthy here.

use std::fmt;
use std::ops::RangeInclusive;
use std::pin::pin;

use http::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use ycloud_api::probe::HttpCheck;

use crate::failure::{Failure, Step, cut};
use crate::probe::{Invalid, port};
use crate::round::Round;
use crate::stream;

/// Most bytes of a status line with its headers. Few connections at a time get more than [`stream::FREE`] of it.
pub const HEAD: usize = 1024 * 1024;

/// Most headers.
const HEADERS: usize = 2_000;

/// Most bytes of a connection: heads of informational answers come before the one that counts.
const LIMIT: usize = 2 * HEAD;

/// Who asks.
pub(crate) const AGENT: &str = concat!("ycloud-probe/", env!("CARGO_PKG_VERSION"));

/// An HTTP GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    pub(crate) port: u16,
    path: Uri,
    host: Option<HeaderValue>,
    statuses: Statuses,
}

/// Status codes that count as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(RangeInclusive<u16>);

impl Statuses {
    /// `204`, or `200-299`.
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (100 <= first && first <= last && last <= 599).then_some(Self(first..=last))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Http {
    pub(crate) fn new(spec: &HttpCheck, target: Option<u16>) -> Result<Self, Invalid> {
        Self::named(spec, target, "http", None)
    }

    /// The GET of kind `kind`; `host` is the `Host` where the spec has none.
    pub(crate) fn named(
        spec: &HttpCheck,
        target: Option<u16>,
        kind: &str,
        host: Option<&str>,
    ) -> Result<Self, Invalid> {
        let field = |name: &str| format!("{kind}.{name}");
        let path = spec.path.as_deref().unwrap_or("/");
        let uri = Some(path).filter(|path| path.starts_with('/'));
        let uri = uri.and_then(|path| path.parse().ok());
        let statuses = spec.statuses.as_deref().unwrap_or("200-399");
        let host = spec.host.as_deref().or(host);
        Ok(Self {
            port: port(spec.port, target, &field("port"))?,
            path: uri.ok_or_else(|| {
                let cure = "write a path of visible ASCII that starts with a slash";
                Invalid::new(&field("path"), path, cure)
            })?,
            host: host.map(HeaderValue::from_str).transpose().map_err(|_| {
                let value = host.unwrap_or_default();
                Invalid::new(&field("host"), value, "write a host name")
            })?,
            statuses: Statuses::parse(statuses).ok_or_else(|| {
                let cure = "write one code (204) or a range (200-299)";
                Invalid::new(&field("statuses"), statuses, cure)
            })?,
        })
    }

    pub(crate) async fn ask(&self, round: &Round<'_>) -> Result<(), Failure> {
        let stream = stream::connect(round, self.port, LIMIT).await?;
        self.get(round, stream).await
    }

    /// Asks over a connection, plain or encrypted, and judges the status.
    pub(crate) async fn get<S>(&self, round: &Round<'_>, stream: S) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let status = exchange(stream, self.request(round)?).await?;
        if self.statuses.0.contains(&status) {
            return Ok(());
        }
        Err(Failure::Status {
            got: status,
            expected: self.statuses.to_string(),
        })
    }

    fn request(&self, round: &Round<'_>) -> Result<Request<String>, Failure> {
        let request = Request::get(self.path.clone())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "*/*")
            .header(CONNECTION, "close");
        let request = match &self.host {
            Some(host) => request.header(HOST, host),
            None => request.header(HOST, round.at(self.port).to_string()),
        };
        request
            .body(String::new())
            .map_err(|error| Failure::Prober {
                what: "write the request",
                words: error.to_string(),
            })
    }
}

/// The status of the answer to `request`.
async fn exchange<S>(stream: S, request: Request<String>) -> Result<u16, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        // RFC 9112 §5.2 lets a client take them for spaces.
        .allow_obsolete_multiline_headers_in_responses(true);
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure(&error))?;
    let mut answer = pin!(sender.send_request(request));
    // The connection must be driven for an answer to come. It may end in the same moment in which the answer is there.
    let ended = tokio::select! {
        biased;
        answer = &mut answer => return status(answer),
        ended = connection => ended,
    };
    match answer.await {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(failure(&ended.err().unwrap_or(error))),
    }
}

fn status<B>(answer: hyper::Result<http::Response<B>>) -> Result<u16, Failure> {
    match answer {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &hyper::Error) -> Failure {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Failure::Closed { step: Step::Answer };
    }
    Failure::below(Step::Answer, error).unwrap_or_else(|| Failure::Malformed {
        protocol: "HTTP",
        words: cut(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_code_or_a_range() {
        let show = |text| Statuses::parse(text).map(|s| s.to_string());
        assert_eq!(show("204").as_deref(), Some("204"));
        assert_eq!(show("200-299").as_deref(), Some("200-299"));
        for wrong in [
            "",
            "99",
            "600",
            "299-200",
            "200-",
            "-200",
            "2x0",
            "200-299-300",
        ] {
            assert_eq!(show(wrong), None, "{wrong}");
        }
    }
}
