//! CHECK: is everything as ADD left it?

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Agent;
use super::family::Family;
use super::netlink::{self, Netlink, everywhere};
use super::netns::{self, Netns};
use super::ovs;
use crate::protocol::{Address, AttachmentId, Failure, code};

/// What is not as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] ovs::Error),
    /// Something differs, in words.
    #[error("failed to find container {container} as it was wired: {what}")]
    Differs {
        /// The container.
        container: String,
        /// The difference.
        what: String,
    },
    /// The Pod's namespace.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Ovs(ovs::Error::Away { .. }) => code::TRY_AGAIN,
            _ => code::CHECK,
        };
        super::failure(code, &error)
    }
}

/// Compares port, links, address and route with what is remembered, and that with the runtime's `addresses`.
///
/// # Errors
/// See [`Error`].
pub async fn check(
    agent: &Agent,
    id: &AttachmentId,
    path: &str,
    addresses: &[String],
) -> Result<(), Error> {
    let differs = |what: String| Error::Differs {
        container: id.container.clone(),
        what,
    };
    agent.ovs.connected().await?;
    let port = agent.ovs.view().port(id);
    let port = port.ok_or_else(|| differs("it has no port in Open vSwitch".into()))?;
    let facts = &port.facts;
    if let Some(error) = &port.error {
        return Err(differs(format!(
            "its port {} has an error: {error}",
            port.name
        )));
    }
    if !port.installed {
        let what = format!(
            "ovn-controller has not installed logical port {}",
            facts.logical_port
        );
        return Err(differs(what));
    }
    let own: BTreeSet<IpNet> = facts.addresses.iter().map(Address::net).collect();
    let told: Option<BTreeSet<IpNet>> = addresses.iter().map(|text| text.parse().ok()).collect();
    if told.as_ref() != Some(&own) {
        let own: Vec<String> = own.iter().map(IpNet::to_string).collect();
        let what = format!(
            "its address is {}, not {}",
            own.join(", "),
            addresses.join(", ")
        );
        return Err(differs(what));
    }
    if agent
        .netlink
        .link(&port.name)
        .await?
        .is_none_or(|link| !link.up)
    {
        return Err(differs(format!("link {} is not there, or down", port.name)));
    }
    let inside = Netlink::open_in(&Netns::open(path)?).await?;
    let link = inside.need_link(&id.ifname).await?;
    if !link.up || link.mac != facts.mac {
        let what = format!(
            "{} is down or has MAC {}, not {}",
            link.name, link.mac, facts.mac
        );
        return Err(differs(what));
    }
    let (present, routes) = (inside.addresses(&link).await?, inside.routes(None).await?);
    for address in facts.addresses.iter() {
        let (net, gateway) = (address.net(), address.gateway);
        if !present.contains(&net) {
            return Err(differs(format!("{} has not address {net}", link.name)));
        }
        let everywhere = everywhere(Family::of(address.ip));
        let default = |route: &netlink::Route| {
            route.destination == everywhere && route.gateway == Some(gateway)
        };
        if !routes.iter().any(default) {
            return Err(differs(format!("it has no default route by {gateway}")));
        }
    }
    Ok(())
}
