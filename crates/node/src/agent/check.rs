//! CHECK: is everything as ADD left it?

use super::Agent;
use super::netlink::{self, Netlink};
use super::netns::{self, Netns};
use super::ovs;
use crate::protocol::{AttachmentId, Failure, code};
use ipnet::Ipv4Net;

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
    if addresses != [facts.address.to_string()] {
        let what = format!(
            "its address is {}, not {}",
            facts.address,
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
    if !inside.addresses(&link).await?.contains(&facts.address) {
        return Err(differs(format!(
            "{} has not address {}",
            link.name, facts.address
        )));
    }
    let default = |route: &netlink::Route| {
        route.destination == Ipv4Net::default() && route.gateway == Some(facts.gateway)
    };
    if !inside.routes(None).await?.iter().any(default) {
        return Err(differs(format!(
            "it has no default route by {}",
            facts.gateway
        )));
    }
    Ok(())
}
