//! Where the servers are, and what to ask of them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::operation::Where;
use crate::session::{Monitored, SessionConfig};

/// One server, in the syntax of ovsdb(7), "Connection Methods".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// `unix:<path>`.
    Unix(PathBuf),
    /// `tcp:<host>:<port>`; an IPv6 address in brackets.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `ssl:<host>:<port>`: TLS.
    Ssl {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// A remote that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse remote {remote:?}: {problem}")]
pub struct RemoteError {
    /// What was given.
    pub remote: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Remote {
    /// Parses a list separated by commas, as in `OVN_NB_DB`: the members of one cluster.
    ///
    /// # Errors
    /// A member is malformed, or there is none.
    pub fn parse_list(list: &str) -> Result<Vec<Remote>, RemoteError> {
        let remotes = list
            .split(',')
            .map(str::trim)
            .filter(|remote| !remote.is_empty());
        let remotes: Vec<Remote> = remotes.map(str::parse).collect::<Result<_, _>>()?;
        match remotes.is_empty() {
            true => Err(RemoteError {
                remote: list.to_owned(),
                problem: "it names no server",
            }),
            false => Ok(remotes),
        }
    }
}

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let error = |problem| RemoteError {
            remote: text.to_owned(),
            problem,
        };
        let (method, rest) = text
            .split_once(':')
            .ok_or_else(|| error("it has no method"))?;
        if method == "unix" {
            return match rest {
                "" => Err(error("it has no path")),
                path => Ok(Remote::Unix(PathBuf::from(path))),
            };
        }
        let (host, port) = rest
            .rsplit_once(':')
            .ok_or_else(|| error("it has no port"))?;
        let port = port
            .parse()
            .map_err(|_| error("its port is not in 0..=65535"))?;
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(address)) => address,
            Some(None) => return Err(error("its bracket is not closed")),
            None if host.contains(':') => return Err(error("an IPv6 address needs brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(error("it has no host"));
        }
        let host = host.to_owned();
        match method {
            "tcp" => Ok(Remote::Tcp { host, port }),
            "ssl" => Ok(Remote::Ssl { host, port }),
            _ => Err(error("its method is none of unix, tcp, ssl")),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, host, port) = match self {
            Remote::Unix(path) => return write!(f, "unix:{}", path.display()),
            Remote::Tcp { host, port } => ("tcp", host, port),
            Remote::Ssl { host, port } => ("ssl", host, port),
        };
        match host.contains(':') {
            true => write!(f, "{method}:[{host}]:{port}"),
            false => write!(f, "{method}:{host}:{port}"),
        }
    }
}

/// Files for [`Remote::Ssl`], PEM. They are read at each connection, so replaced files are taken up by the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the server's.
    pub ca: PathBuf,
    /// Our certificate, followed by intermediate ones.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The name that the server's certificate must be for. `None`: any certificate of these authorities will do, which is how
    /// Open vSwitch itself checks (`ovs-pki` makes certificates without such names).
    pub server_name: Option<String>,
}

/// How a [`Client`](super::Client) works.
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers: of a cluster its members, else one.
    pub remotes: Vec<Remote>,
    /// What to replicate.
    pub session: SessionConfig,
    /// Needed for [`Remote::Ssl`].
    pub tls: Option<Tls>,
    /// How long a server may be silent before it is probed, and again before it is given up. `None` never probes. Unix
    /// sockets are never probed: the kernel tells when such a server is gone. Default 5 s, as in Open vSwitch.
    pub probe_interval: Option<Duration>,
    /// How long connecting may take, TLS included. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest message to accept, in bytes. The first answer to a monitor holds the whole database. Default 256 MiB.
    pub max_message: usize,
}

impl Config {
    /// A client of a database that replicates no table yet and takes only the leader of a cluster.
    pub fn new(remotes: Vec<Remote>, database: impl Into<String>) -> Self {
        let session = SessionConfig {
            database: database.into(),
            leader_only: true,
            ..SessionConfig::default()
        };
        Config {
            remotes,
            session,
            tls: None,
            probe_interval: Some(Duration::from_secs(5)),
            connect_timeout: Duration::from_secs(10),
            max_message: 256 << 20,
        }
    }

    /// Replicates these columns of a table. A table or column that the server lacks is left out.
    pub fn monitor(mut self, table: &str, columns: &[&str]) -> Self {
        let columns = Some(columns.iter().map(|column| (*column).to_owned()).collect());
        self.session.tables.insert(
            table.to_owned(),
            Monitored {
                columns,
                rows: Where::all(),
            },
        );
        self
    }

    /// Replicates all columns of a table that the server has.
    pub fn monitor_all(mut self, table: &str) -> Self {
        self.session
            .tables
            .insert(table.to_owned(), Monitored::default());
        self
    }

    /// Replicates of a table that is already chosen only the rows that fulfil the conditions.
    pub fn only(mut self, table: &str, rows: impl Into<Where>) -> Self {
        self.session
            .tables
            .entry(table.to_owned())
            .or_default()
            .rows = rows.into();
        self
    }

    /// Takes any connected member of a cluster. What a follower shows may be older, and its transactions take longer.
    pub fn any_member(mut self) -> Self {
        self.session.leader_only = false;
        self
    }

    /// Uses these files for [`Remote::Ssl`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_round_trip() {
        for text in [
            "unix:/run/ovn/ovnnb_db.sock",
            "tcp:192.0.2.1:6641",
            "ssl:ovn-nb:6641",
            "tcp:[2001:db8::1]:6641",
        ] {
            assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
        }
        assert_eq!(Remote::parse_list("tcp:a:1, tcp:b:2,").unwrap().len(), 2);
    }

    #[test]
    fn rubbish_is_named() {
        let cases = [
            ("", "it names no server"),
            ("a", "it has no method"),
            ("unix:", "it has no path"),
            ("tcp:a", "it has no port"),
            ("tcp::1", "it has no host"),
            ("tcp:a:70000", "its port is not in 0..=65535"),
            ("tcp:2001:db8::1:6641", "an IPv6 address needs brackets"),
            ("tcp:[::1:6641", "its bracket is not closed"),
            ("ptcp:a:1", "its method is none of unix, tcp, ssl"),
        ];
        for (text, problem) in cases {
            assert_eq!(
                Remote::parse_list(text).unwrap_err().problem,
                problem,
                "{text}"
            );
        }
    }
}
