//! Answers from the node interface's address leave by the node interface.
//!
//! A client of an elastic address that gets a server in a node's own network calls it, by OVN's translation, at the node's
//! join address. The node's routes would send the answer to the client by the underlay, past the gateway that must undo the
//! translation. So what has that source address has a table of routes of its own, and so has what has it only later, on
//! its way out: [`ANSWER_MARK`].

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::{Error, Link, Netlink, PROTOCOL, Route, message, request, route};
use crate::agent::nft::ANSWER_MARK;

/// Number of the table: rtnetlink(7) leaves all but 253 to 255 to users; the same as [`PROTOCOL`].
pub const TABLE: u8 = PROTOCOL;

/// Priority of the rule: after the table `local` (0), before `main` (32766).
pub const PRIORITY: u32 = 15700;

impl Netlink {
    /// Makes packets from `address` leave by `link`: on the link within the address's network, else by `gateway`.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn set_way_back(
        &self,
        address: Ipv4Net,
        gateway: Ipv4Addr,
        link: &Link,
    ) -> Result<(), Error> {
        let to = |destination, gateway| Route {
            destination,
            gateway,
            link: link.index,
            source: None,
        };
        let wanted = [
            to(address.trunc(), None),
            to(Ipv4Net::default(), Some(gateway)),
        ];
        let existing = self.way_back_routes().await?;
        for route in wanted.iter().filter(|route| !existing.contains(route)) {
            let add = self.handle.route().add(of_table(route)).replace();
            let added = add.execute().await;
            let action = format!("set route to {} for answers", route.destination);
            added.map_err(request(action))?;
        }
        for route in existing.iter().filter(|route| !wanted.contains(route)) {
            let deleted = self.handle.route().del(of_table(route)).execute().await;
            let action = format!("delete route to {} for answers", route.destination);
            absent_is_success(deleted.map_err(request(action)))?;
        }
        let source = RuleAttribute::Source(IpAddr::V4(address.addr()));
        self.set_rules([(source, 32), (RuleAttribute::FwMark(ANSWER_MARK), 0)])
            .await
    }

    async fn way_back_routes(&self) -> Result<Vec<Route>, Error> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let _turn = self.dumps.lock().await;
        let messages = self.handle.route().get(filter).execute();
        let messages: Vec<RouteMessage> = messages
            .try_collect()
            .await
            .map_err(request("list routes for answers"))?;
        let of_table = |message: &&RouteMessage| {
            message.header.address_family == AddressFamily::Inet && message.header.table == TABLE
        };
        Ok(messages.iter().filter(of_table).filter_map(route).collect())
    }

    /// `wanted`: what each rule looks at, and the length of its source prefix.
    async fn set_rules(&self, wanted: [(RuleAttribute, u8); 2]) -> Result<(), Error> {
        let mut missing = Vec::from(wanted);
        for rule in self.own_rules().await? {
            let of = missing.iter().position(|wanted| is_wanted(&rule, wanted));
            if let Some(at) = of {
                missing.remove(at);
                continue;
            }
            let deleted = self.handle.rule().del(rule).execute().await;
            absent_is_success(deleted.map_err(request("delete a routing rule")))?;
        }
        for (of, length) in missing {
            let mut add = self.handle.rule().add().v4();
            let message = add.message_mut();
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
    async fn own_rules(&self) -> Result<Vec<RuleMessage>, Error> {
        let _turn = self.dumps.lock().await;
        let rules = self.handle.rule().get(IpVersion::V4).execute();
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

fn of_table(route: &Route) -> RouteMessage {
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
