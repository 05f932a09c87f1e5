//! What nobody uses any more: ports whose containers are gone, and on GC whatever the runtime does not know.
//!
//! [`sweep`] runs when the agent starts and every [`SWEEP_PERIOD`] after; runtimes below CNI 1.1 never send GC. It takes
//! only what is certainly dead. A container with an ADD or DEL under way is left to it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Agent;
use super::del;
use super::netns::Netns;
use super::ovs::Port;
use super::pod_links::{host_interface, is_host_interface};
use crate::protocol::AttachmentId;

/// How often the agent looks for dead ports.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// GC: removes every port and link that is not of one of the `valid` attachments.
///
/// # Errors
/// The first removal that failed; the others were tried.
pub async fn gc(agent: &Agent, valid: &[AttachmentId]) -> Result<(), del::Error> {
    let ids: BTreeSet<&AttachmentId> = valid.iter().collect();
    let unknown = |port: &Port| !ids.contains(&port.facts.id);
    let removed = remove_ports(agent, unknown).await;
    removed.and(remove_links(agent, valid).await)
}

/// Removes the ports of Pods that are gone: neither their network namespace nor the host's end of their link is there.
/// Both ends of a veth pair go together with either's namespace, so a link that is there means a Pod that may be running,
/// whatever this container can or cannot see in `/run/netns`.
///
/// # Errors
/// The first removal that failed; the others were tried.
pub async fn sweep(agent: &Agent) -> Result<(), del::Error> {
    let links = agent.netlink.links().await?;
    let links: BTreeSet<String> = links.into_iter().map(|link| link.name).collect();
    let dead = |port: &Port| {
        !links.contains(&port.name)
            && matches!(Netns::open(&port.facts.netns), Err(error) if error.is_gone())
    };
    remove_ports(agent, dead).await
}

async fn remove_ports(agent: &Agent, leaked: impl Fn(&Port) -> bool) -> Result<(), del::Error> {
    agent.ovs.connected().await?;
    let mut result = Ok(());
    for port in agent.ovs.view().ports() {
        let id = &port.facts.id;
        let Some(_turn) = agent.turns.try_take(&id.container) else {
            continue;
        };
        // Looked at again now that it is ours: an ADD may have just ended.
        let current = agent.ovs.view().port(id);
        if !current.is_some_and(|port| leaked(&port)) {
            continue;
        }
        tracing::info!(
            container = id.container,
            pod = format!("{}/{}", port.facts.pod.namespace, port.facts.pod.name),
            port = port.name,
            "removing a port whose container is gone"
        );
        let removed = del::remove(agent, id).await;
        result = result.and(removed);
    }
    result
}

/// Links of ours that are no valid attachment's. Skipped while any ADD is under way: it makes the link before the port.
async fn remove_links(agent: &Agent, valid: &[AttachmentId]) -> Result<(), del::Error> {
    let Some(_all) = agent.turns.try_take_all() else {
        return Ok(());
    };
    let valid: BTreeSet<String> = valid.iter().map(host_interface).collect();
    let mut result = Ok(());
    for link in agent.netlink.links().await? {
        if !is_host_interface(&link.name) || valid.contains(&link.name) {
            continue;
        }
        tracing::info!(link = link.name, "removing a link that no container has");
        let removed = agent.netlink.delete_link(&link.name).await;
        result = result.and(removed.map_err(del::Error::from));
    }
    result
}
