//! Addresses by which the node itself reaches other machines. A Vpc's range may overlap them: within the Vpc that is no
//! matter, but a route of the node to a Pod of such an address would give the Pod what the node sends to that machine.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use ycloud_client::supervisor::LIMIT;
use ycloud_client::{Heartbeat, Supervisor};

use super::netlink::Route;

/// How often names are looked up again.
const PERIOD: Duration = Duration::from_secs(30);

/// How long a look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Where the node's name servers stand: resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the node needs for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnHosts {
    /// Networks that other links of the node are on; host routes among them.
    networks: BTreeSet<IpNet>,
    /// Routers, tunnel ends, database, API server and name servers that may be beyond a router.
    hosts: BTreeSet<IpAddr>,
}

impl OwnHosts {
    /// From the node's `routes` that are not the agent's own, and hosts that are known otherwise. What lies beyond a router
    /// is not protected as a whole: a route to 10.0.0.0/8 is common, and so are Vpcs in it.
    pub fn new(routes: &[Route], hosts: impl IntoIterator<Item = IpAddr>) -> Self {
        // A route without link and router is a blackhole, or has several routers; a default route says nothing.
        let on_link = |route: &&Route| {
            let destination = route.destination.prefix_len();
            destination == route.destination.max_prefix_len()
                || (route.gateway.is_none() && route.link != 0 && destination > 0)
        };
        let networks = routes.iter().filter(on_link).map(|r| r.destination.trunc());
        let routers = routes.iter().filter_map(|route| route.gateway);
        Self {
            networks: networks.collect(),
            hosts: hosts.into_iter().chain(routers).collect(),
        }
    }

    /// Why the node must not take `ip` for a Pod's, in words that go after the address; `None` if it may.
    pub fn claim(&self, ip: IpAddr) -> Option<String> {
        if self.hosts.contains(&ip) {
            return Some("is a router, server or tunnel end that the node itself uses".into());
        }
        let network = self.networks.iter().find(|net| net.contains(&ip))?;
        Some(format!("is in {network}, which the node itself is on"))
    }
}

/// Follows the addresses of the API server (`host:port`) and of the name servers.
pub fn follow(
    supervisor: &Supervisor,
    api_server: Option<String>,
) -> watch::Receiver<BTreeSet<IpAddr>> {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    let task = |heartbeat: Heartbeat| async move {
        let mut api = BTreeSet::new();
        loop {
            let pass = heartbeat.pass();
            if let Some(name) = &api_server {
                let found = tokio::time::timeout(LOOKUP_LIMIT, tokio::net::lookup_host(name)).await;
                // While names are not answered for, those that were found before are as good as ever.
                if let Ok(Ok(found)) = found {
                    api = found.map(|address| address.ip().to_canonical()).collect();
                }
            }
            let text = tokio::fs::read_to_string(RESOLV_CONF).await;
            let mut hosts = name_servers(&text.unwrap_or_default());
            hosts.extend(&api);
            sender.send_if_modified(|known| {
                let changed = *known != hosts;
                *known = hosts;
                changed
            });
            drop(pass);
            tokio::time::sleep(PERIOD).await;
        }
    };
    supervisor.spawn("addresses that the node itself uses", LIMIT, task);
    receiver
}

fn name_servers(resolv_conf: &str) -> BTreeSet<IpAddr> {
    let lines = resolv_conf.lines();
    let servers = lines.filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|ip| ip.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, link: u32) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|ip| ip.parse().unwrap()),
            link,
            source: None,
        }
    }

    #[test]
    fn links_networks_routers_and_known_hosts_are_the_node_s() {
        let routes = [
            route("0.0.0.0/0", Some("172.18.0.1"), 2),
            route("172.18.0.0/24", None, 2),
            route("10.0.0.0/8", Some("192.168.7.9"), 2),
            route("10.9.0.3/32", Some("172.18.0.1"), 2),
            // A default route by several routers, and one by a tunnel's device.
            route("0.0.0.0/0", None, 0),
            route("0.0.0.0/0", None, 3),
            route("10.66.0.0/16", None, 0),
            route("::/0", Some("fe80::1"), 2),
            route("fd00:18::/64", None, 2),
            route("fd00:9::3/128", Some("fd00:18::1"), 2),
            route("::/0", None, 3),
        ];
        let own = OwnHosts::new(&routes, ["10.1.0.10".parse().unwrap()]);
        let claimed = |ip: &str| own.claim(ip.parse().unwrap());
        let ipv6 = ["fd00:18::77", "fd00:18::1", "fd00:9::3", "fe80::1"];
        for ip in ["172.18.0.77", "192.168.7.9", "10.9.0.3", "10.1.0.10"]
            .iter()
            .chain(&ipv6)
        {
            assert!(claimed(ip).is_some(), "{ip}");
        }
        let ipv6 = ["fd00:18:0:1::77", "fd00:9::4"];
        for ip in ["172.18.1.77", "10.9.0.4", "10.66.0.1", "8.8.4.4"]
            .into_iter()
            .chain(ipv6)
        {
            assert_eq!(claimed(ip), None, "{ip}");
        }
        assert!(claimed("172.18.0.77").unwrap().contains("172.18.0.0/24"));
    }

    #[tokio::test]
    async fn the_api_server_is_looked_up() {
        let supervisor = Supervisor::new(Default::default());
        let mut hosts = follow(&supervisor, Some("localhost:6443".into()));
        let known = hosts.wait_for(|hosts| hosts.iter().any(IpAddr::is_loopback));
        let known = tokio::time::timeout(Duration::from_secs(5), known).await;
        assert!(known.is_ok());
    }

    #[test]
    fn name_servers_are_read() {
        let text = "# x\nsearch a.example\nnameserver 10.0.0.53\nnameserver\t2001:db8::1\noptions ndots:5\n";
        assert_eq!(
            name_servers(text),
            ["10.0.0.53", "2001:db8::1"]
                .map(|ip| ip.parse().unwrap())
                .into()
        );
    }
}
