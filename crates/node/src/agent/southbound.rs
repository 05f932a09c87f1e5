//! The connection to the Southbound database.

use std::path::PathBuf;

use ycloud_client::Supervisor;
use ycloud_ovsdb::{Client, Config, Remote, RemoteError, Tls};

use super::affinity::flow;
use super::announce::claims;
use super::ct_flush::pairs;

/// Where the database is: the same arguments as ycloud-controller's.
#[derive(Debug, Clone, clap::Args)]
pub struct Southbound {
    /// Servers of the Southbound database: `tcp:<host>:<port>`, `ssl:<host>:<port>` or `unix:<path>`; of a cluster all
    /// members, separated by commas.
    #[arg(
        long = "ovn-sb",
        env = "OVN_SB",
        value_name = "REMOTES",
        default_value = "unix:/run/ovn/ovnsb_db.sock"
    )]
    pub remotes: String,

    /// For ssl remotes: file with the certificates of the authority that signed the servers', PEM.
    #[arg(long = "ovn-ca", env = "OVN_CA", value_name = "FILE", requires_all = ["certificate", "key"])]
    pub ca: Option<PathBuf>,

    /// For ssl remotes: file with our certificate, PEM.
    #[arg(id = "certificate", long = "ovn-cert", env = "OVN_CERT", value_name = "FILE", requires_all = ["ca", "key"])]
    pub certificate: Option<PathBuf>,

    /// For ssl remotes: file with its private key, PEM.
    #[arg(id = "key", long = "ovn-key", env = "OVN_KEY", value_name = "FILE", requires_all = ["ca", "certificate"])]
    pub key: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of servers.
    #[error("failed to read --ovn-sb")]
    Remotes(#[from] RemoteError),
    /// A server by TLS, without what TLS needs.
    #[error(
        "failed to use --ovn-sb {remotes}: an ssl remote needs --ovn-ca, --ovn-cert and --ovn-key"
    )]
    NoFiles {
        /// The servers.
        remotes: String,
    },
}

impl Southbound {
    /// Starts a client that follows what the agent's tasks read.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connect(&self, supervisor: &Supervisor) -> Result<Client, Error> {
        let servers = Remote::parse_list(&self.remotes)?;
        let by_tls = |server: &Remote| matches!(server, Remote::Ssl { .. });
        let needs_files = servers.iter().any(by_tls);
        let config = Config::new(servers, "OVN_Southbound");
        let config = claims::monitored(pairs::monitored(flow::monitored(config)));
        let config = match (&self.ca, &self.certificate, &self.key) {
            (Some(ca), Some(certificate), Some(key)) => config.tls(Tls {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
                server_name: None,
            }),
            _ if needs_files => {
                return Err(Error::NoFiles {
                    remotes: self.remotes.clone(),
                });
            }
            _ => config,
        };
        let (client, task) = Client::new(config);
        supervisor.carry("client of the Southbound database", task);
        Ok(client)
    }
}
