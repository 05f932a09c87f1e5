//! What a prober's device needs of the kernel: to be moved into the namespace, and a way out of its own.

use std::net::IpAddr;

use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::RouteAttribute;
use rtnetlink::LinkUnspec;

use super::{Error, Link, Netlink, Route, everywhere, message, request};
use crate::agent::family::Family;
use crate::agent::netns::Netns;

impl Netlink {
    /// Moves a link into another network namespace, where it is down and has no addresses.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn move_into(&self, link: &Link, netns: &Netns) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::NetNsFd(netns.raw_fd()))
            .build();
        let action = format!("move link {} to {}", link.name, netns.path());
        self.set(message, &action).await
    }

    /// Adds the default route by `gateway` on `link`, beside those by other links: each has its link's index as its metric.
    /// A socket that is bound to a device gets that device's.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_default_by(&self, link: &Link, gateway: IpAddr) -> Result<(), Error> {
        let mut message = message(&Route {
            destination: everywhere(Family::of(gateway)),
            gateway: Some(gateway),
            link: link.index,
            source: None,
        });
        let metric = RouteAttribute::Priority(link.index);
        message.attributes.push(metric);
        let added = self.handle.route().add(message).replace().execute().await;
        added.map_err(request(format!(
            "set the default route by {gateway} on {}",
            link.name
        )))
    }
}
