//! Nodes and parts that carry elastic addresses die and return, while questions are asked: what that costs those who ask.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::ask::{Attempts, Held, Kept, Protocol, Stream};
use crate::command::run;
use crate::lab::Lab;
use crate::layout::Machine;
use crate::links::Watch;
use crate::place::Place;

/// Between two questions of a stream.
pub const PACE: Duration = Duration::from_millis(25);
/// How long all is quiet before.
const BEFORE: Duration = Duration::from_secs(1);

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// ovn-controller ends by itself: it gives back what it holds.
    Exit,
    /// ovn-controller is killed.
    Controller,
    /// ovs-vswitchd is killed.
    Switch,
    /// The node is cut off from all networks.
    Node,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exit => "ovn-controller exits",
            Self::Controller => "ovn-controller killed",
            Self::Switch => "ovs-vswitchd killed",
            Self::Node => "node cut off",
        })
    }
}

/// Who carries an EipGateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carriers {
    /// The node that has the gateway itself.
    pub gateway: Machine,
    /// The nodes of its service gateways, by their number.
    pub services: Vec<(u8, Machine)>,
}

/// What became of questions while something died, and when it returned.
#[derive(Debug)]
pub struct Outcome {
    /// New connections to each address, from the death to the return.
    pub death: Vec<Attempts>,
    /// Likewise, from the return to the end.
    pub back: Vec<Attempts>,
    /// When links or routes of the other nodes changed, since the questions began.
    pub changes: Vec<Range<Duration>>,
    /// For each connection that was held all the time, the longest that it waited for an answer, or how it broke.
    pub held: Vec<Result<Duration, String>>,
}

impl Lab {
    /// Who carries an EipGateway; `None` while a part of it is carried by nobody.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn carriers(&self, gateway: &str) -> Result<Option<Carriers>> {
        let object = self.api()?.get("", "eipgateway", gateway)?;
        let object = object.with_context(|| format!("there is no EipGateway {gateway}"))?;
        let status = &object["status"];
        let node = |value: &Value| value.as_str().and_then(|name| name.parse().ok());
        let services = status["serviceGateways"].as_array().into_iter().flatten();
        let services: Option<Vec<(u8, Machine)>> = services
            .map(|one| {
                let index = one["index"].as_u64()?;
                Some((u8::try_from(index).ok()?, node(&one["node"])?))
            })
            .collect();
        let found = node(&status["activeNode"]).zip(services);
        Ok(found.map(|(gateway, services)| Carriers { gateway, services }))
    }

    fn strike(&self, node: Machine, death: Death) -> Result<()> {
        match death {
            Death::Exit => {
                let words = ["ovn-appctl", "-t", "ovn-controller", "exit"];
                run(&mut self.exec(node, words)?).map(drop)
            }
            Death::Controller => self.stop(node, "ovn-controller"),
            Death::Switch => self.stop(node, "ovs-vswitchd"),
            Death::Node => self.isolate(node),
        }
    }

    fn revive(&self, node: Machine, death: Death) -> Result<()> {
        match death {
            Death::Node => self.rejoin(node),
            _ => self.start(node),
        }
    }

    /// Lets a part of `node` die for a while, and return. Meanwhile `from` opens connections to each address all the time,
    /// and asks through those that it holds. Ends `after` the return.
    ///
    /// # Errors
    /// When nothing can be killed there, or what died does not come back.
    pub fn die_and_return(
        &self,
        (node, death): (Machine, Death),
        (dead_for, after): (Duration, Duration),
        from: &Place,
        to: &[SocketAddr],
        held: Vec<Held>,
    ) -> Result<Outcome> {
        let others = self.nodes()?.into_iter().filter(|other| *other != node);
        let others: Result<Vec<Place>> = others.map(|other| self.place(other)).collect();
        let watch = Watch::start(&others?)?;
        let asking = Asking::start(from, to, held);
        thread::sleep(BEFORE);
        let struck = asking.now();
        let done = self.strike(node, death);
        thread::sleep(dead_for);
        let returned = asking.now();
        done.and(self.revive(node, death))
            .with_context(|| format!("{node}: {death}"))?;
        thread::sleep(after);
        let started = asking.started;
        let mut outcome = asking.finish(struck, returned);
        outcome.changes = watch.finish(started)?;
        Ok(outcome)
    }
}

/// What becomes of questions for so long: all of it is in [`Outcome::death`].
pub fn ask_for(span: Duration, from: &Place, to: &[SocketAddr], held: Vec<Held>) -> Outcome {
    let asking = Asking::start(from, to, held);
    thread::sleep(span);
    let ended = asking.now();
    asking.finish(Duration::ZERO, ended)
}

/// Streams of questions, and held connections.
struct Asking {
    started: Instant,
    streams: Vec<Stream>,
    held: Vec<Kept>,
}

impl Asking {
    fn start(from: &Place, to: &[SocketAddr], held: Vec<Held>) -> Self {
        let held = held.into_iter().map(Kept::start).collect();
        let streams = to.iter();
        let streams = streams.map(|to| Stream::start(from, Protocol::Tcp, *to, PACE));
        Self {
            started: Instant::now(),
            streams: streams.collect(),
            held,
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn finish(self, struck: Duration, returned: Duration) -> Outcome {
        let ended = self.now();
        let attempts: Vec<Attempts> = self.streams.into_iter().map(Stream::finish).collect();
        let span = |from, to| attempts.iter().map(|a| a.between(from, to)).collect();
        let held = self.held.into_iter();
        Outcome {
            death: span(struck, returned),
            back: span(returned, ended),
            changes: Vec::new(),
            held: held
                .map(|one| one.finish().map_err(|error| error.to_string()))
                .collect(),
        }
    }
}
