//! What can fail behind whom, and which kinds of probes see it.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::layout::Machine;
use crate::server::{Check, Order};

/// Of each probe, seconds between two rounds.
pub const PERIOD: u32 = 1;
/// Of each probe, seconds a round may take.
pub const TIMEOUT: u32 = 1;
/// Of each probe, failures in a row, and successes.
pub const THRESHOLD: u32 = 2;
/// By when a failure, or its end, must have got to the endpoints.
pub const BOUND: Duration = Duration::from_secs((PERIOD * THRESHOLD + TIMEOUT + 1) as u64);

/// A backend of each kind; named as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    Pod,
    Vm,
    Server,
    Address,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Told(Order),
    Cable,
    Power,
    Chassis(Machine),
}

impl Behind {
    pub const ALL: [Self; 4] = [Self::Pod, Self::Vm, Self::Server, Self::Address];

    /// The name of the object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Vm => "vm",
            Self::Server => "bm",
            Self::Address => "addr",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// What a YusurService calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Vm => "VM",
            Self::Server => "BM",
            Self::Address => "VNicIP",
        }
    }
}

impl Failure {
    /// Whether a probe of this kind can see it.
    pub fn concerns(self, check: Check) -> bool {
        match self {
            Self::Told(Order::Http500) => matches!(check, Check::Http | Check::Https),
            Self::Told(Order::CertificateOfAStranger | Order::CertificateOfAnotherName) => {
                check == Check::Https
            }
            Self::Told(Order::GrpcNotServing) => check == Check::Grpc,
            // The kernel goes on to make connections and to answer echo requests.
            Self::Told(Order::Stop) => !matches!(check, Check::Tcp | Check::Icmp),
            Self::Told(Order::Kill | Order::Close) => check != Check::Icmp,
            Self::Told(Order::Well) => false,
            Self::Cable | Self::Power | Self::Chassis(_) => true,
        }
    }

    /// The same line of the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Told(Order::Kill) => "process killed",
            Self::Told(Order::Stop) => "process stuck",
            Self::Told(Order::Close) => "port closed",
            Self::Told(Order::Http500) => "HTTP 500",
            Self::Told(Order::CertificateOfAStranger) => "wrong certificate",
            Self::Told(Order::CertificateOfAnotherName) => "another's certificate",
            Self::Told(Order::GrpcNotServing) => "gRPC NOT_SERVING",
            Self::Told(Order::Well) => "nothing",
            Self::Cable => "packets dropped",
            Self::Power => "guest powered off",
            Self::Chassis(_) => "chassis dead",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chassis(machine) => write!(f, "{}: {machine}", self.title()),
            other => f.write_str(other.title()),
        }
    }
}

/// What fails, and whose. A chassis takes all that are on it.
pub type Strike = (Failure, Vec<Behind>);

/// One after the other.
pub fn strikes(node: Machine) -> Vec<Strike> {
    let mut all = Vec::new();
    for failure in [
        Failure::Told(Order::Kill),
        Failure::Told(Order::Close),
        Failure::Cable,
        Failure::Told(Order::Http500),
        Failure::Told(Order::CertificateOfAStranger),
        Failure::Told(Order::GrpcNotServing),
    ] {
        all.extend(Behind::ALL.map(|behind| (failure, vec![behind])));
    }
    all.push((Failure::Power, vec![Behind::Vm]));
    let on_node = vec![Behind::Pod, Behind::Vm, Behind::Address];
    all.push((Failure::Chassis(node), on_node));
    all.push((Failure::Chassis(Machine::Dpu), vec![Behind::Server]));
    all
}

/// Those with `part` in their titles.
///
/// # Errors
/// When there are none: names all.
pub fn named(mut strikes: Vec<Strike>, part: &str) -> Result<Vec<Strike>> {
    let mut titles: Vec<&str> = strikes.iter().map(|(failure, _)| failure.title()).collect();
    strikes.retain(|(failure, _)| failure.title().contains(part));
    if strikes.is_empty() {
        titles.dedup();
        bail!(
            "no failure has {part:?} in its name; there are: {}",
            titles.join(", ")
        );
    }
    Ok(strikes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_chosen_by_a_part_of_their_names() {
        let chosen = |part| named(strikes(Machine::Node(2)), part);
        assert_eq!(chosen("chassis").unwrap().len(), 2);
        assert_eq!(chosen("").unwrap().len(), strikes(Machine::Node(2)).len());
        let error = chosen("flood").unwrap_err().to_string();
        assert!(error.contains("process killed, port closed,"), "{error}");
    }

    #[test]
    fn every_failure_strikes_every_kind_that_can_have_it() {
        let strikes = strikes(Machine::Node(2));
        for (title, kinds) in [
            ("process killed", 4),
            ("port closed", 4),
            ("packets dropped", 4),
            ("HTTP 500", 4),
            ("wrong certificate", 4),
            ("gRPC NOT_SERVING", 4),
            ("guest powered off", 1),
            ("chassis dead", 4),
        ] {
            let same = strikes
                .iter()
                .filter(|(failure, _)| failure.title() == title);
            assert_eq!(
                same.map(|(_, whose)| whose.len()).sum::<usize>(),
                kinds,
                "{title}"
            );
        }
    }
}
