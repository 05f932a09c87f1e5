//! Answers from the node interface's address leave by the node interface.
//!
//! A client of an elastic address that gets a server in a node's own network calls it, by OVN's translation, at the node's
//! join address. The node's routes would send the answer to the client by the underlay, past the gateway that must undo the
//! translation. So what has that source address has a table of routes of its own, and so has what has it only later, on
//! its way out: [`ANSWER_MARK`].

use futures::TryStreamExt;
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::IpVersion;

use super::{Error, Link, Netlink, PROTOCOL, Route, everywhere, message, number, present, request};
use crate::agent::family::Family;
use crate::agent::nft::ANSWER_MARK;
use crate::protocol::{Address, Addresses};

/// Number of the table: rtnetlink(7) leaves all but 253 to 255 to users; the same as [`PROTOCOL`].
pub const TABLE: u8 = PROTOCOL;

/// Priority of the rule: after the table `local` (0), before `main` (32766).
pub const PRIORITY: u32 = 15700;

impl Netlink {
    /// Makes packets from `addresses` leave by `link`: on the link within an address's network, else by its gateway.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_way_back(&self, addresses: &Addresses, link: &Link) -> Result<(), Error> {
        let to = |destination, gateway| Route {
            destination,
            gateway,
            link: link.index,
            source: None,
        };
        let of_address = |address: &Address| {
            let everywhere = everywhere(Family::of(address.ip));
            [
                to(address.net().trunc(), None),
                to(everywhere, Some(address.gateway)),
            ]
        };
        let wanted: Vec<Route> = addresses.iter().flat_map(of_address).collect();
        let of_table = |message: &RouteMessage| message.header.table == TABLE;
        let existing = self.all_routes(of_table).await?;
        for route in wanted.iter().filter(|route| !existing.contains(route)) {
            let add = self.handle.route().add(in_table(route)).replace();
            let added = add.execute().await;
            let action = format!("set route to {} for answers", route.destination);
            added.map_err(request(action))?;
        }
        for route in existing.iter().filter(|route| !wanted.contains(route)) {
            let deleted = self.handle.route().del(in_table(route)).execute().await;
            let action = format!("delete route to {} for answers", route.destination);
            absent_is_success(deleted.map_err(request(action)))?;
        }
        for family in present() {
            let own = addresses.ips().filter(|ip| Family::of(*ip) == family);
            let rules = own.flat_map(|ip| {
                let source = (RuleAttribute::Source(ip), family.bits());
                [source, (RuleAttribute::FwMark(ANSWER_MARK), 0)]
            });
            self.set_rules(family, rules.collect()).await?;
        }
        Ok(())
    }

    /// `wanted`: what each rule looks at, and the length of its source prefix.
    async fn set_rules(
        &self,
        family: Family,
        wanted: Vec<(RuleAttribute, u8)>,
    ) -> Result<(), Error> {
        let mut missing = wanted;
        for rule in self.own_rules(family).await? {
            let of = missing.iter().position(|wanted| is_wanted(&rule, wanted));
            if let Some(at) = of {
                missing.remove(at);
                continue;
            }
            let deleted = self.handle.rule().del(rule).execute().await;
            absent_is_success(deleted.map_err(request("delete a routing rule")))?;
        }
        for (of, length) in missing {
            let mut add = self.handle.rule().add();
            let message = add.message_mut();
            message.header.family = number(family);
            message.header.src_len = length;
            let protocol = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
            let action = format!("add a routing rule for answers, of {of:?}");
            message.attributes.extend([protocol, of]);
            let add = add
                .table_id(u32::from(TABLE))
                .priority(PRIORITY)
                .action(RuleAction::ToTable);
            let added = add.execute().await;
            added.map_err(request(action))?;
        }
        Ok(())
    }

    /// The rules that have the agent's protocol number.
    async fn own_rules(&self, family: Family) -> Result<Vec<RuleMessage>, Error> {
        let version = match family {
            Family::Ipv4 => IpVersion::V4,
            Family::Ipv6 => IpVersion::V6,
        };
        let _turn = self.dumps.lock().await;
        let rules = self.handle.rule().get(version).execute();
        let mut rules: Vec<RuleMessage> = rules
            .try_collect()
            .await
            .map_err(request("list routing rules"))?;
        let ours = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
        rules.retain(|rule| rule.attributes.contains(&ours));
        Ok(rules)
    }
}

fn is_wanted(rule: &RuleMessage, (of, length): &(RuleAttribute, u8)) -> bool {
    rule.header.table == TABLE
        && rule.header.src_len == *length
        && rule.attributes.contains(of)
        && rule.attributes.contains(&RuleAttribute::Priority(PRIORITY))
}

fn in_table(route: &Route) -> RouteMessage {
    let mut message = message(route);
    message.header.table = TABLE;
    message
}

fn absent_is_success(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        result => result,
    }
}
