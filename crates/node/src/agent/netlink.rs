//! The kernel's links, addresses, routes and neighbours, by rtnetlink(7). The one module that knows `rtnetlink`.

pub mod probing;
pub mod way_back;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup,
    RouteMessageBuilder,
};

use tokio::sync::Mutex;
use ycloud_client::Supervisor;
use ycloud_client::supervisor::reported;

use super::family::{Family, has_ipv6};
use super::mac::Mac;
use super::netns::{self, Netns};

/// Protocol number of the routes that the agent makes, so that it finds again what is its own. rtnetlink(7) leaves
/// numbers above 4 to users; 157 is in no list of known daemons.
pub const PROTOCOL: u8 = 157;

/// The table of the addresses that the node has itself: rtnetlink(7), RT_TABLE_LOCAL.
const TABLE_LOCAL: u8 = 255;

/// How long [`Netlink::await_local`] waits at most, and how often it looks.
const LOCAL_LIMIT: Duration = Duration::from_secs(2);
const LOCAL_PERIOD: Duration = Duration::from_millis(5);

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
    /// Index of the bridge, bond or datapath that it is a port of.
    pub master: Option<u32>,
    /// Index of the link of the same namespace on which it stands, as a VLAN does, or of its other end.
    pub lower: Option<u32>,
    /// What it is, as `ip -details link` has it: `veth`, `vlan`; empty for a network card and what pretends to be one.
    pub kind: String,
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: Mac::default(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            master: None,
            lower: None,
            kind: String::new(),
        };
        let mut elsewhere = false;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(bytes) => link.mac = Mac::of(&bytes).unwrap_or_default(),
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Link(index) => link.lower = Some(index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(info) => link.take_info(info),
                _ => {}
            }
        }
        // The index is one of another namespace then.
        link.lower = link.lower.filter(|index| *index != 0 && !elsewhere);
        link
    }

    fn take_info(&mut self, info: Vec<LinkInfo>) {
        for info in info {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                // It has no IFLA_LINK.
                LinkInfo::Data(InfoData::Vxlan(data)) => {
                    let lower = data.iter().find_map(|data| match data {
                        InfoVxlan::Link(index) => Some(*index),
                        _ => None,
                    });
                    self.lower = self.lower.or(lower);
                }
                _ => {}
            }
        }
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

/// A route of the main table by one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Next hop; without: on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// Source address of the node's own packets. Default: the kernel's choice.
    pub source: Option<IpAddr>,
}

/// A connection to one namespace's rtnetlink. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    /// The kernel runs one dump per socket at a time and answers a second one with EBUSY.
    dumps: Arc<Mutex<()>>,
}

impl Netlink {
    /// Connects in the namespace of the calling thread, for as long as the process runs. Needs a runtime.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(supervisor: &Supervisor) -> Result<Self, Error> {
        let (netlink, connection) = Self::connect()?;
        supervisor.carry("netlink", connection);
        Ok(netlink)
    }

    /// Connects inside `netns`, until the last clone is dropped.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Netns`].
    pub async fn open_in(netns: &Netns) -> Result<Self, Error> {
        let (netlink, connection) = Self::connect_in(netns).await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with its last clone; a panic is reported, and fails what is asked by it"
        )]
        tokio::spawn(
            async move { reported("netlink within a network namespace", connection).await },
        );
        Ok(netlink)
    }

    /// As [`open_in`](Self::open_in), with the connection for the caller to carry: nothing is answered while nobody does.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Netns`].
    pub async fn connect_in(
        netns: &Netns,
    ) -> Result<(Self, impl Future<Output = ()> + Send + Unpin + use<>), Error> {
        netns.run(Self::connect).await?
    }

    fn connect() -> Result<(Self, impl Future<Output = ()> + Send + Unpin + use<>), Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        let netlink = Self {
            handle,
            dumps: Arc::default(),
        };
        Ok((netlink, connection))
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

    /// Sets a link down.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_down(&self, link: &Link) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index).down().build();
        self.set(message, &format!("set link {} down", link.name))
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

    /// Keeps the kernel, if it has IPv6, from giving a link a link-local address (and from soliciting routers by it).
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn without_ipv6_address(&self, link: &Link) -> Result<(), Error> {
        if !has_ipv6() {
            return Ok(());
        }
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

    /// Addresses of a link, with their prefix length.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn addresses(&self, link: &Link) -> Result<Vec<IpNet>, Error> {
        let _turn = self.dumps.lock().await;
        let get = self.handle.address().get();
        let messages = get.set_link_index_filter(link.index).execute();
        let messages: Vec<_> = messages
            .try_collect()
            .await
            .map_err(request(format!("list addresses of {}", link.name)))?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Addresses of all links.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn local_addresses(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let _turn = self.dumps.lock().await;
        let messages = self.handle.address().get().execute();
        let messages: Vec<_> = messages
            .try_collect()
            .await
            .map_err(request("list addresses"))?;
        let local = messages.iter().filter_map(address);
        Ok(local.map(|address| address.addr()).collect())
    }

    /// Gives a link an address; one that it has is success. An IPv4 link-local one has that scope, so that the kernel never
    /// chooses it as the source of packets to elsewhere. An IPv6 one is usable at once: who gives it out has seen to it that
    /// nobody else has it.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn add_address(&self, link: &Link, address: IpNet) -> Result<(), Error> {
        self.add(link, address, |message| match address.addr() {
            IpAddr::V4(ip) if ip.is_link_local() => message.header.scope = AddressScope::Link,
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        })
        .await
    }

    /// Waits until the kernel takes packets to an address of its own. To an IPv6 address it does so a little after it has
    /// accepted it, from a work queue, and an answer to a neighbour solicitation that comes before is lost for a second.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn await_local(&self, ip: IpAddr) -> Result<(), Error> {
        let start = Instant::now();
        let is_local = |message: &RouteMessage| message.header.table == TABLE_LOCAL;
        loop {
            let local = self.all_routes(is_local).await?;
            let there = local.iter().any(|route| route.destination.addr() == ip);
            // Whatever is wrong then, the Pod is better off with what it has.
            if there || start.elapsed() > LOCAL_LIMIT {
                return Ok(());
            }
            tokio::time::sleep(LOCAL_PERIOD).await;
        }
    }

    /// Gives a link an IPv6 address that the kernel chooses as a source only where a route says so.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn add_deprecated(&self, link: &Link, ip: Ipv6Addr) -> Result<(), Error> {
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        let lifetime = AddressAttribute::CacheInfo(lifetime);
        let address = IpNet::from(IpAddr::V6(ip));
        self.add(link, address, |message| message.attributes.push(lifetime))
            .await
    }

    async fn add(
        &self,
        link: &Link,
        address: IpNet,
        how: impl FnOnce(&mut AddressMessage),
    ) -> Result<(), Error> {
        let add = self.handle.address();
        let mut add = add.add(link.index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        how(add.message_mut());
        let added = add.replace().execute().await;
        added.map_err(request(format!("add address {address} to {}", link.name)))
    }

    /// Takes an address from a link; one that it has not is success.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn delete_address(&self, link: &Link, address: IpNet) -> Result<(), Error> {
        let (index, length) = (link.index, address.prefix_len());
        let message = match address.addr() {
            IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(ip, length)
                .build(),
            IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(ip, length)
                .build(),
        };
        let deleted = self.handle.address().del(message).execute().await;
        match deleted.map_err(request(format!(
            "delete address {address} of {}",
            link.name
        ))) {
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }

    /// The routes of the main table that have this protocol number; all if `None`.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn routes(&self, protocol: Option<u8>) -> Result<Vec<Route>, Error> {
        let wanted = |message: &RouteMessage| {
            message.header.table == RouteHeader::RT_TABLE_MAIN
                && protocol.is_none_or(|p| message.header.protocol == RouteProtocol::from(p))
        };
        self.all_routes(wanted).await
    }

    /// The routes of which `wanted` holds, in any table.
    async fn all_routes(
        &self,
        wanted: impl Fn(&RouteMessage) -> bool,
    ) -> Result<Vec<Route>, Error> {
        let _turn = self.dumps.lock().await;
        let mut routes = Vec::new();
        for family in present() {
            let mut filter = RouteMessage::default();
            filter.header.address_family = number(family);
            let messages = self.handle.route().get(filter).execute();
            let messages: Vec<RouteMessage> = messages
                .try_collect()
                .await
                .map_err(request(format!("list {family} routes")))?;
            let of_family =
                |message: &&RouteMessage| message.header.address_family == number(family);
            let messages = messages.iter().filter(of_family).filter(|m| wanted(m));
            routes.extend(messages.filter_map(|message| route(family, message)));
        }
        Ok(routes)
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
    pub async fn set_neighbour(&self, link: &Link, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        let add = self.handle.neighbours().add(link.index, ip);
        let added = add.link_layer_address(&mac.bytes()).replace().execute();
        let action = format!("set neighbour {ip} at {mac} on {}", link.name);
        added.await.map_err(request(action))
    }
}

/// The families that the kernel has.
fn present() -> impl Iterator<Item = Family> {
    let ipv6 = has_ipv6();
    let families = Family::ALL.into_iter();
    families.filter(move |family| *family == Family::Ipv4 || ipv6)
}

fn number(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

/// The address that a message is about: IPv4 has it as the local one, IPv6 unless the link has a peer not.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let (mut own, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => own = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(own.or(other)?, message.header.prefix_len).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The network of all addresses of a family.
pub fn everywhere(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => IpNet::V4(Ipv4Net::default()),
        Family::Ipv6 => IpNet::V6(Ipv6Net::default()),
    }
}

fn route(family: Family, message: &RouteMessage) -> Option<Route> {
    let (mut gateway, mut link, mut source) = (None, 0, None);
    let mut destination = everywhere(family).addr();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => link = *index,
            _ => {}
        }
    }
    let prefix = message.header.destination_prefix_length;
    Some(Route {
        destination: IpNet::new(destination, prefix).ok()?,
        gateway,
        link,
        source,
    })
}

fn message(route: &Route) -> RouteMessage {
    let destination = route.destination;
    let mut message = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(route.link)
        .protocol(RouteProtocol::from(PROTOCOL))
        .build();
    message.header.address_family = number(Family::of(destination.addr()));
    message.header.destination_prefix_length = destination.prefix_len();
    let network = RouteAttribute::Destination(destination.network().into());
    message.attributes.push(network);
    match route.gateway {
        Some(ip) => message.attributes.push(RouteAttribute::Gateway(ip.into())),
        None => message.header.scope = RouteScope::Link,
    }
    let source = route.source.map(|ip| RouteAttribute::PrefSource(ip.into()));
    message.attributes.extend(source);
    message
}

/// Tells, without saying what, that links, addresses, routes or routing rules of the namespace changed.
pub struct Events {
    messages: UnboundedReceiver<(
        rtnetlink::packet_core::NetlinkMessage<netlink_packet_route::RouteNetlinkMessage>,
        rtnetlink::sys::SocketAddr,
    )>,
}

impl Events {
    /// Subscribes in the namespace of the calling thread, for as long as the process runs. Needs a runtime. `of`: who is told.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(supervisor: &Supervisor, of: &'static str) -> Result<Self, Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Rule,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(Error::Socket)?;
        supervisor.carry(format!("netlink events of {of}"), connection);
        Ok(Self { messages })
    }

    /// Waits for the next change. False if there will be no more.
    pub async fn changed(&mut self) -> bool {
        let changed = self.messages.next().await.is_some();
        while self.messages.try_recv().is_ok() {}
        changed
    }
}
