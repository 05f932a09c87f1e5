//! `ycloud-controller`: the control plane of the SDN. Reads Vpcs, Subnets, VNics, Pods, Nodes, Services and
//! EndpointSlices; writes OVN's Northbound database, addresses and status.

use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prometheus_client::registry::Registry;
use ycloud_compiler::{MtuCheck, Settings};
use ycloud_controller::metrics::Metrics;
use ycloud_controller::ovn::Remotes;
use ycloud_controller::reconcile::{self, Options};
use ycloud_controller::runtime::{self, RuntimeArgs};

/// Name of the Lease.
const NAME: &str = "ycloud-controller";

/// Port of health checks and metrics.
const PORT: u16 = 9441;

const EXAMPLES: &str = "\
Examples:
  In a Pod, with the service account's credentials:
    ycloud-controller --ovn-nb tcp:ovn-nb:6641 --ovn-sb tcp:ovn-sb:6642 --log-format json

  On a workstation, against the cluster of a kubeconfig, as the only replica:
    KUBECONFIG=~/.kube/config ycloud-controller --ovn-nb tcp:192.0.2.1:6641 --ovn-sb tcp:192.0.2.1:6642 --leader-elect false

  With a clustered database and TLS:
    ycloud-controller --ovn-nb ssl:nb-0:6641,ssl:nb-1:6641,ssl:nb-2:6641 --ovn-sb ssl:sb-0:6642,ssl:sb-1:6642,ssl:sb-2:6642 \\
        --ovn-ca /tls/ca.pem --ovn-cert /tls/tls.crt --ovn-key /tls/tls.key

  What it waits for, and how it is:
    curl http://127.0.0.1:9441/readyz
    curl http://127.0.0.1:9441/metrics";

/// The control plane of ycloud's network: turns Vpcs, Subnets, VNics, Services and EndpointSlices into OVN's Northbound
/// database, and gives Pods and nodes their addresses.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    runtime: RuntimeArgs,

    #[command(flatten)]
    remotes: Remotes,

    /// Range from which ycloud takes its own networks, the join network first. No Subnet of a user may overlap it.
    /// Prefix length 8 to 24. Change it only before the first start.
    #[arg(long, env = "SYSTEM_CIDR", default_value = "100.64.0.0/10", value_parser = network::<Ipv4Net, 8, 24>)]
    system_cidr: Ipv4Net,

    /// Range of the Subnet `ovn-default`, for Pods that no other Subnet claims. Prefix length 8 to 30. Used when that
    /// Subnet is made; afterwards its spec counts.
    #[arg(long, env = "DEFAULT_SUBNET_CIDR", default_value = "10.16.0.0/16", value_parser = network::<Ipv4Net, 8, 30>)]
    default_subnet_cidr: Ipv4Net,

    /// IPv6 range from which ycloud takes its own networks; the first /64 is the join network's. No Subnet of a user may
    /// overlap it. Prefix length 8 to 64. Change it only before the first start with --default-subnet-ipv6-cidr.
    #[arg(long, env = "SYSTEM_IPV6_CIDR", default_value = "fd00:100:64::/48", value_parser = network::<Ipv6Net, 8, 64>)]
    system_ipv6_cidr: Ipv6Net,

    /// IPv6 range of the Subnet `ovn-default`. Prefix length 64 to 126. Where the default Subnets exist without IPv6, they
    /// get it. Not given: the default Vpc is IPv4 only.
    #[arg(long, env = "DEFAULT_SUBNET_IPV6_CIDR", value_parser = network::<Ipv6Net, 64, 126>)]
    default_subnet_ipv6_cidr: Option<Ipv6Net>,

    /// MTU of Pods, bytes: that of ycloud-cni, from the same ConfigMap.
    #[arg(long, env = "MTU", default_value_t = 1400, value_parser = clap::value_parser!(u32).range(576..=9000))]
    mtu: u32,

    /// Which routers tell the sender of a larger packet the MTU (ICMP), instead of losing it. Cards do not take over what is
    /// checked.
    #[arg(long, env = "MTU_CHECK", value_enum, default_value_t = Check::Outside)]
    mtu_check: Check,
}

/// See [`MtuCheck`].
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Check {
    /// None.
    Off,
    /// Those of EipGateways, of what comes from outside: all but TCP, whose segments are as small as the backend makes them.
    Outside,
    /// Those of EipGateways, of TCP too, and those of Vpcs, for machines whose own MTU is larger.
    Everywhere,
}

impl From<Check> for MtuCheck {
    fn from(check: Check) -> Self {
        match check {
            Check::Off => Self::Off,
            Check::Outside => Self::Outside,
            Check::Everywhere => Self::Everywhere,
        }
    }
}

/// Reads a network of the family of `N` with a prefix length of `MIN` to `MAX` and no host bits.
fn network<N, const MIN: u8, const MAX: u8>(text: &str) -> Result<N, String>
where
    N: FromStr + Into<IpNet> + Copy,
{
    let network: N = text
        .parse()
        .map_err(|_| "write a network such as 10.16.0.0/16 or fd00:10:16::/64".to_owned())?;
    let range: IpNet = network.into();
    if range.trunc() != range {
        return Err(format!(
            "host bits are set; did you mean {}?",
            range.trunc()
        ));
    }
    if !(MIN..=MAX).contains(&range.prefix_len()) {
        return Err(format!("the prefix length must be {MIN} to {MAX}"));
    }
    Ok(network)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut registry = Registry::with_prefix("ycloud_controller");
    let metrics = Metrics::new(&mut registry);
    let options = Options {
        remotes: arguments.remotes,
        settings: Settings {
            system_cidr: arguments.system_cidr,
            default_subnet_cidr: arguments.default_subnet_cidr,
            system_ipv6_cidr: arguments.system_ipv6_cidr,
            default_subnet_ipv6_cidr: arguments.default_subnet_ipv6_cidr,
            mtu: arguments.mtu,
            mtu_check: arguments.mtu_check.into(),
        },
    };
    runtime::run(NAME, PORT, &arguments.runtime, registry, |runtime| {
        reconcile::run(runtime, options, metrics)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::net::Ipv4Addr;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ranges_are_checked() {
        let ipv4 = network::<Ipv4Net, 8, 30>;
        let default = Ipv4Net::new(Ipv4Addr::new(10, 16, 0, 0), 16).unwrap();
        assert_eq!(ipv4("10.16.0.0/16"), Ok(default));
        let hint = ipv4("10.16.3.0/16").unwrap_err();
        assert!(hint.contains("did you mean 10.16.0.0/16?"), "{hint}");
        assert!(ipv4("10.16.0.0/31").is_err());
        assert!(ipv4("fd00::/64").is_err());
        let ipv6 = network::<Ipv6Net, 64, 126>;
        assert_eq!(ipv6("fd00:10:16::/64").unwrap().prefix_len(), 64);
        assert!(ipv6("fd00:10:16::/48").is_err());
        assert!(ipv6("10.16.0.0/16").is_err());
    }
}
