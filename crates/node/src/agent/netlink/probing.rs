//! Default routes of a prober's devices: several in one table.

use std::net::IpAddr;

use netlink_packet_route::route::RouteAttribute;

use super::{Error, Link, Netlink, Route, everywhere, message, request};
use crate::agent::family::Family;

impl Netlink {
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
