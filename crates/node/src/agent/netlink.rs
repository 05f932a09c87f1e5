//! The kernel's links, addresses, routes and neighbours, by rtnetlink(7). The one module that knows `rtnetlink`.

pub mod way_back;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkFlags,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder,
};

use tokio::sync::Mutex;

use super::mac::Mac;
use super::netns::{self, Netns};

/// Protocol number of the routes that the agent makes, so that it finds again what is its own. rtnetlink(7) leaves
/// numbers above 4 to users; 157 is in no list of known daemons.
pub const PROTOCOL: u8 = 157;

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket could be made.
    #[error("failed to open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The namespace could not be entered to make one.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel refused.
    #[error("failed to {action}")]
    Request {
        /// What, in words.
        action: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// A link is not there.
    #[error("failed to find link {name}")]
    NoLink {
        /// Its name.
        name: String,
    },
}

impl Error {
    fn errno(&self) -> Option<i32> {
        match self {
            Error::Request {
                source: rtnetlink::Error::NetlinkError(message),
                ..
            } => Some(-message.raw_code()),
            _ => None,
        }
    }

    /// What was to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(nix::libc::EEXIST)
    }

    /// What was to be found is not there.
    pub fn is_absent(&self) -> bool {
        let absent = [
            nix::libc::ENODEV,
            nix::libc::ESRCH,
            nix::libc::ENOENT,
            nix::libc::EADDRNOTAVAIL,
        ];
        matches!(self, Error::NoLink { .. }) || self.errno().is_some_and(|e| absent.contains(&e))
    }
}

fn request(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let action = action.into();
    move |source| Error::Request { action, source }
}

/// A link, as far as the agent looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC address; all zero where a link has none.
    pub mac: Mac,
    /// MTU, bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: Mac::default(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(bytes) => link.mac = Mac::of(&bytes).unwrap_or_default(),
                _ => {}
            }
        }
        link
    }
}

/// A veth pair to make.
#[derive(Debug)]
pub struct Veth<'a> {
    /// The host's end.
    pub host: &'a str,
    /// The Pod's end.
    pub peer: &'a str,
    /// Where the Pod's end goes.
    pub netns: &'a Netns,
    /// MAC of the Pod's end.
    pub mac: Mac,
    /// MTU of both ends.
    pub mtu: u32,
}

/// An IPv4 route of the main table by one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Net,
    /// Next hop; without: on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// Index of the link.
    pub link: u32,
    /// Source address of the node's own packets. Default: the kernel's choice.
    pub source: Option<Ipv4Addr>,
}

/// A connection to one namespace's rtnetlink. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    /// The kernel runs one dump per socket at a time and answers a second one with EBUSY.
    dumps: Arc<Mutex<()>>,
}

impl Netlink {
    /// Connects in the namespace of the calling thread. Needs a runtime.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            dumps: Arc::default(),
        })
    }

    /// Connects inside `netns`.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Netns`].
    pub async fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open).await?
    }

    /// All links.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let _turn = self.dumps.lock().await;
        let messages = self.handle.link().get().execute();
        let messages: Vec<LinkMessage> = messages
            .try_collect()
            .await
            .map_err(request("list links"))?;
        Ok(messages.into_iter().map(Link::of).collect())
    }

    /// One link; `None` if there is none of this name.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut messages = Box::pin(self.handle.link().get().match_name(name).execute());
        match messages.try_next().await {
            Ok(message) => Ok(message.map(Link::of)),
            Err(source) => {
                let error = request(format!("look up link {name}"))(source);
                if error.is_absent() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// One link that must be there.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::Request`].
    pub async fn need_link(&self, name: &str) -> Result<Link, Error> {
        self.link(name).await?.ok_or_else(|| Error::NoLink {
            name: name.to_owned(),
        })
    }

    /// Makes a veth pair; the Pod's end is born inside its namespace under its final name.
    ///
    /// # Errors
    /// [`Error::Request`]; [`Error::is_exists`] if either name is taken.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.peer)
            .setns_by_fd(veth.netns.raw_fd())
            .address(veth.mac.bytes().to_vec())
            .mtu(veth.mtu)
            .build();
        let message = LinkVeth::new(veth.host, veth.peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(veth.mtu)
            .build();
        let action = format!("make veth pair {} ⇄ {}", veth.host, veth.peer);
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(request(action))
    }

    /// Removes a link, and with it the other end of a pair; one that is not there is success.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn delete_link(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.link(name).await? else {
            return Ok(());
        };
        let deleted = self.handle.link().del(link.index).execute().await;
        match deleted.map_err(request(format!("delete link {name}"))) {
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_up(&self, link: &Link) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.set(message, &format!("set link {} up", link.name))
            .await
    }

    /// Sets a link's MAC address.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_mac(&self, link: &Link, mac: Mac) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index)
            .address(mac.bytes().to_vec())
            .build();
        self.set(message, &format!("set MAC {mac} on link {}", link.name))
            .await
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.set(message, &format!("set MTU {mtu} on link {}", link.name))
            .await
    }

    /// Keeps the kernel from giving a link an IPv6 link-local address (and from soliciting routers by it).
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn without_ipv6_address(&self, link: &Link) -> Result<(), Error> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        let message = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(spec)
            .build();
        self.set(message, &format!("keep IPv6 off link {}", link.name))
            .await
    }

    async fn set(&self, message: LinkMessage, action: &str) -> Result<(), Error> {
        let set = self.handle.link().set(message).execute().await;
        set.map_err(request(action))
    }

    /// IPv4 addresses of a link, with their prefix length.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn addresses(&self, link: &Link) -> Result<Vec<Ipv4Net>, Error> {
        let _turn = self.dumps.lock().await;
        let get = self.handle.address().get();
        let messages = get.set_link_index_filter(link.index).execute();
        let messages: Vec<_> = messages
            .try_collect()
            .await
            .map_err(request(format!("list addresses of {}", link.name)))?;
        let address = |message: netlink_packet_route::address::AddressMessage| {
            let prefix = message.header.prefix_len;
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            })?;
            Ipv4Net::new(local, prefix).ok()
        };
        Ok(messages.into_iter().filter_map(address).collect())
    }

    /// IPv4 addresses of all links.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn local_addresses(&self) -> Result<BTreeSet<Ipv4Addr>, Error> {
        let _turn = self.dumps.lock().await;
        let messages = self.handle.address().get().execute();
        let messages: Vec<_> = messages
            .try_collect()
            .await
            .map_err(request("list addresses"))?;
        let local = |message: netlink_packet_route::address::AddressMessage| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            })
        };
        Ok(messages.into_iter().filter_map(local).collect())
    }

    /// Gives a link an address; one that it has is success. A link-local one has that scope, so that the kernel never
    /// chooses it as the source of packets to elsewhere.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn add_address(&self, link: &Link, address: Ipv4Net) -> Result<(), Error> {
        let add = self.handle.address();
        let mut add = add.add(link.index, address.addr().into(), address.prefix_len());
        if address.addr().is_link_local() {
            add.message_mut().header.scope = AddressScope::Link;
        }
        let added = add.replace().execute().await;
        added.map_err(request(format!("add address {address} to {}", link.name)))
    }

    /// Takes an address from a link; one that it has not is success.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn delete_address(&self, link: &Link, address: Ipv4Net) -> Result<(), Error> {
        let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link.index)
            .address(address.addr(), address.prefix_len())
            .build();
        let deleted = self.handle.address().del(message).execute().await;
        match deleted.map_err(request(format!(
            "delete address {address} of {}",
            link.name
        ))) {
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }

    /// The IPv4 routes of the main table that have this protocol number; all if `None`.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn routes(&self, protocol: Option<u8>) -> Result<Vec<Route>, Error> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let _turn = self.dumps.lock().await;
        let messages = self.handle.route().get(filter).execute();
        let messages: Vec<RouteMessage> = messages
            .try_collect()
            .await
            .map_err(request("list routes"))?;
        let wanted = |message: &RouteMessage| {
            message.header.address_family == AddressFamily::Inet
                && message.header.table == RouteHeader::RT_TABLE_MAIN
                && protocol.is_none_or(|p| message.header.protocol == RouteProtocol::from(p))
        };
        Ok(messages
            .iter()
            .filter(|m| wanted(m))
            .filter_map(route)
            .collect())
    }

    /// Adds a route, or puts it in the place of another to the same destination.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_route(&self, route: &Route) -> Result<(), Error> {
        let add = self.handle.route().add(message(route)).replace();
        let added = add.execute().await;
        added.map_err(request(format!("set route to {}", route.destination)))
    }

    /// Deletes a route; one that is not there is success.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let deleted = self.handle.route().del(message(route)).execute().await;
        match deleted.map_err(request(format!("delete route to {}", route.destination))) {
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }

    /// Says once and for all which MAC address `ip` has on a link.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_neighbour(&self, link: &Link, ip: Ipv4Addr, mac: Mac) -> Result<(), Error> {
        let add = self.handle.neighbours().add(link.index, ip.into());
        let added = add.link_layer_address(&mac.bytes()).replace().execute();
        let action = format!("set neighbour {ip} at {mac} on {}", link.name);
        added.await.map_err(request(action))
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    let mut route = Route {
        destination: Ipv4Net::default(),
        gateway: None,
        link: 0,
        source: None,
    };
    let mut destination = Ipv4Addr::UNSPECIFIED;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = *ip,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.gateway = Some(*ip),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => route.source = Some(*ip),
            RouteAttribute::Oif(index) => route.link = *index,
            _ => {}
        }
    }
    let prefix = message.header.destination_prefix_length;
    route.destination = Ipv4Net::new(destination, prefix).ok()?;
    Some(route)
}

fn message(route: &Route) -> RouteMessage {
    let destination = route.destination;
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .output_interface(route.link)
        .protocol(RouteProtocol::from(PROTOCOL));
    builder = match route.gateway {
        Some(gateway) => builder.gateway(gateway),
        None => builder.scope(RouteScope::Link),
    };
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    builder.build()
}

/// Tells, without saying what, that links, IPv4 addresses, IPv4 routes or routing rules of the namespace changed.
pub struct Events {
    messages: UnboundedReceiver<(
        rtnetlink::packet_core::NetlinkMessage<netlink_packet_route::RouteNetlinkMessage>,
        rtnetlink::sys::SocketAddr,
    )>,
}

impl Events {
    /// Subscribes in the namespace of the calling thread. Needs a runtime.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Self { messages })
    }

    /// Waits for the next change. False if there will be no more.
    pub async fn changed(&mut self) -> bool {
        let changed = self.messages.next().await.is_some();
        while self.messages.try_recv().is_ok() {}
        changed
    }
}
