//! The connections to OVN's databases, and what is replicated of each.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ycloud_client::Supervisor;
use ycloud_compiler::row::MONITORED;
use ycloud_ovsdb::{Client, Condition, Config, Remote, Tls, nb, sb};

use crate::southbound::CHASSIS_REDIRECT;

/// Where the databases are.
#[derive(Debug, Clone, clap::Args)]
pub struct Remotes {
    /// Servers of the Northbound database: `tcp:<host>:<port>`, `ssl:<host>:<port>` or `unix:<path>`; of a cluster all
    /// members, separated by commas.
    #[arg(
        long = "ovn-nb",
        env = "OVN_NB",
        value_name = "REMOTES",
        default_value = "unix:/run/ovn/ovnnb_db.sock"
    )]
    pub northbound: String,

    /// Servers of the Southbound database, in the same form.
    #[arg(
        long = "ovn-sb",
        env = "OVN_SB",
        value_name = "REMOTES",
        default_value = "unix:/run/ovn/ovnsb_db.sock"
    )]
    pub southbound: String,

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

/// Starts a client of the Northbound database and one of the Southbound, whose tasks `supervisor` watches.
///
/// # Errors
/// When a remote cannot be read, or an ssl remote lacks its files.
pub fn connect(supervisor: &Supervisor, remotes: &Remotes) -> Result<(Client, Client)> {
    let northbound = config(remotes, "--ovn-nb", &remotes.northbound, "OVN_Northbound")?;
    let northbound = MONITORED
        .iter()
        .fold(northbound, |config, (table, columns)| {
            config.monitor(table, columns)
        });
    let northbound = northbound.monitor(
        nb::NbGlobal::TABLE,
        &[nb::NbGlobal::NB_CFG, nb::NbGlobal::OPTIONS],
    );
    let southbound = config(remotes, "--ovn-sb", &remotes.southbound, "OVN_Southbound")?;
    let (northbound, task) = Client::new(northbound);
    supervisor.carry("client of the Northbound database", task);
    let (southbound, task) = Client::new(monitor_southbound(southbound));
    supervisor.carry("client of the Southbound database", task);
    Ok((northbound, southbound))
}

/// Adds what is read of the Southbound database: how far the chassis are, their physical networks, and who holds the
/// ports of gateways. Of the ports, which are as many as Pods, only those.
fn monitor_southbound(config: Config) -> Config {
    let redirect = Condition::equal(sb::PortBinding::TYPE, CHASSIS_REDIRECT);
    // A follower may be a little behind, which only makes a Service programmed a little later.
    config
        .any_member()
        .monitor(
            sb::ChassisPrivate::TABLE,
            &[sb::ChassisPrivate::NAME, sb::ChassisPrivate::NB_CFG],
        )
        .monitor(sb::SbGlobal::TABLE, &[sb::SbGlobal::NB_CFG])
        .monitor(
            sb::Chassis::TABLE,
            &[sb::Chassis::NAME, sb::Chassis::OTHER_CONFIG],
        )
        .monitor(sb::HaChassisGroup::TABLE, &[sb::HaChassisGroup::NAME])
        .monitor(
            sb::PortBinding::TABLE,
            &[
                sb::PortBinding::TYPE,
                sb::PortBinding::CHASSIS,
                sb::PortBinding::HA_CHASSIS_GROUP,
            ],
        )
        .only(sb::PortBinding::TABLE, redirect)
}

fn config(remotes: &Remotes, argument: &str, list: &str, database: &str) -> Result<Config> {
    let servers =
        Remote::parse_list(list).with_context(|| format!("failed to read {argument} {list:?}"))?;
    let tls = match (&remotes.ca, &remotes.certificate, &remotes.key) {
        (Some(ca), Some(certificate), Some(key)) => Some(Tls {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            server_name: None,
        }),
        _ => None,
    };
    if tls.is_none()
        && servers
            .iter()
            .any(|remote| matches!(remote, Remote::Ssl { .. }))
    {
        anyhow::bail!(
            "{argument} {list:?} has an ssl remote; it needs --ovn-ca, --ovn-cert and --ovn-key"
        );
    }
    let config = Config::new(servers, database);
    Ok(match tls {
        Some(tls) => config.tls(tls),
        None => config,
    })
}
