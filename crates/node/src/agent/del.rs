//! DEL: takes a Pod's port out of Open vSwitch and its link out of the kernel. Needs neither the API server nor the Pod's
//! namespace, and finds nothing as gladly as something.

use super::Agent;
use super::pod_links;
use super::{netlink, ovs};
use crate::protocol::{AttachmentId, Failure, code};

/// Why a Pod's port is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] ovs::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        super::failure(code::TRY_AGAIN, &error)
    }
}

/// Undoes an ADD.
///
/// # Errors
/// See [`Error`]; the runtime repeats the DEL.
pub async fn del(agent: &Agent, id: &AttachmentId) -> Result<(), Error> {
    let _turn = agent.turns.take(&id.container).await;
    remove(agent, id).await
}

/// What [`del`] does once it is the container's turn.
pub(super) async fn remove(agent: &Agent, id: &AttachmentId) -> Result<(), Error> {
    agent.ovs.connected().await?;
    let mut ports = agent.ovs.view().ports();
    ports.retain(|port| port.facts.id == *id);
    agent.ovs.remove_ports(&ports).await?;
    for port in &ports {
        agent.netlink.delete_link(&port.name).await?;
    }
    // An agent that was killed between the link and the port has left the link.
    let name = pod_links::host_interface(id);
    agent.netlink.delete_link(&name).await?;
    Ok(())
}
