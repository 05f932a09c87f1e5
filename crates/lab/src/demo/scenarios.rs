//! The other scenarios of the demo: a node's host network, and the world outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ask::{Protocol, Reply, ask};
use crate::command::run;
use crate::ext;
use crate::lab::Lab;
use crate::layout::Machine;
use crate::place::Place;
use crate::progress::Progress;

/// Questions that each client asks, each on a connection of its own.
const QUESTIONS: u32 = 12;
/// Backends of each Deployment.
const REPLICAS: u64 = 2;

/// A scenario: its YusurService, how many backends it has, and where its address is in the status.
struct Scenario {
    ysvc: &'static str,
    backends: u64,
    address: &'static str,
    machine: Machine,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        ysvc: "ysvc2",
        backends: REPLICAS,
        address: "clusterIP",
        machine: Machine::Node(1),
    },
    Scenario {
        ysvc: "ysvc3",
        backends: REPLICAS,
        address: "eip",
        machine: Machine::External,
    },
    Scenario {
        ysvc: "ysvc4",
        backends: 2 * REPLICAS,
        address: "eip",
        machine: Machine::External,
    },
];

impl Lab {
    /// Makes an EipGateway, servers in three Vpcs, and a YusurService a scenario; asks each and says who answered.
    ///
    /// # Errors
    /// Names the step that failed and what was last seen.
    pub(super) fn demo_scenarios(&self, progress: &Progress) -> Result<()> {
        progress.step("an EipGateway, and web servers in three VPCs", |_| {
            self.example("eip-gateway.yaml")?;
            self.example("web.yaml")?;
            for deployment in ["web", "web-1", "web-2"] {
                let target = format!("deployment/{deployment}");
                run(&mut self.kubectl(["rollout", "status", &target, "--timeout=120s"])?)?;
            }
            Ok(())
        })?;
        let mut lines = Vec::new();
        for scenario in &SCENARIOS {
            let Scenario { ysvc, machine, .. } = scenario;
            let line = progress.step(
                &format!("YusurService {ysvc}, asked from {machine}"),
                |_| {
                    self.example(&format!("{ysvc}.yaml"))?;
                    self.wait_ready(ysvc, scenario.backends)?;
                    self.ask_all(scenario)
                },
            )?;
            lines.push(line);
        }
        self.show("kubectl get ysvc", &["get", "ysvc"])?;
        println!("\nWho answered, and the client's address that the backends saw:");
        for line in lines {
            println!("  {line}");
        }
        Ok(())
    }

    fn ask_all(&self, scenario: &Scenario) -> Result<String> {
        let status = self.ysvc(scenario.ysvc)?["status"].clone();
        let address = status[scenario.address].as_str().unwrap_or_default();
        let address: IpAddr = address.parse().with_context(|| {
            format!(
                "YusurService {}: status.{} is {address:?}, no address",
                scenario.ysvc, scenario.address
            )
        })?;
        let mut client = self.place(scenario.machine)?;
        if scenario.machine == Machine::External {
            client = client.from(ext::EXTERNAL);
        }
        let to = SocketAddr::new(address, 80);
        let replies = answers(&client, to)?;
        Ok(format!(
            "{} from {} to {to}: {}",
            scenario.ysvc,
            scenario.machine,
            summary(&replies, &self.vpcs_of_pods()?)
        ))
    }

    /// The Vpc and address of each Pod, and of each VNic that is no Pod's, in words.
    pub(super) fn vpcs_of_pods(&self) -> Result<BTreeMap<String, String>> {
        let text = run(&mut self.kubectl(["get", "vnic", "-o", "json"])?)?;
        let vnics: Value = serde_json::from_str(&text).context("failed to read kubectl's JSON")?;
        let items = vnics["items"].as_array().into_iter().flatten();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let described = items.map(|vnic| {
            let place = format!(
                "{}, {}",
                word(&vnic["status"]["vpc"]),
                word(&vnic["status"]["ip"])
            );
            let attached = &vnic["spec"]["attachment"]["name"];
            let name = match attached.as_str() {
                Some(name) => name.to_owned(),
                None => word(&vnic["metadata"]["name"]),
            };
            (name, place)
        });
        Ok(described.collect())
    }
}

pub(super) fn answers(client: &Place, to: SocketAddr) -> Result<Vec<Reply>> {
    let mut replies = Vec::new();
    for _ in 0..QUESTIONS {
        match ask(client, Protocol::Tcp, to, Duration::from_secs(5)) {
            Ok(reply) => replies.push(reply),
            Err(error) => bail!("{} asked {to} in vain: {error}", client.name()),
        }
    }
    Ok(replies)
}

/// `web-a (vpc1, 10.0.1.4) 5, web-b (vpc2, 10.0.1.4) 7; they saw 203.0.113.10`
pub(super) fn summary(replies: &[Reply], pods: &BTreeMap<String, String>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut clients = BTreeSet::new();
    for reply in replies {
        *counts.entry(&reply.backend).or_default() += 1;
        clients.insert(reply.client.ip());
    }
    let backends = counts.iter().map(|(backend, count)| {
        let place = pods.get(*backend).map_or("", String::as_str);
        format!("{backend} ({place}) {count}")
    });
    let backends: Vec<String> = backends.collect();
    let clients: Vec<String> = clients.iter().map(IpAddr::to_string).collect();
    format!("{}; they saw {}", backends.join(", "), clients.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_who_answered_and_names_the_clients() {
        let reply = |backend: &str, client: &str| Reply {
            backend: backend.to_owned(),
            client: client.parse().unwrap(),
        };
        let replies = [
            reply("b", "203.0.113.10:1"),
            reply("a", "203.0.113.10:2"),
            reply("b", "100.83.255.1:3"),
        ];
        let pods = BTreeMap::from([("b".to_owned(), "vpc1, 10.0.1.2".to_owned())]);
        assert_eq!(
            summary(&replies, &pods),
            "a () 1, b (vpc1, 10.0.1.2) 2; they saw 100.83.255.1, 203.0.113.10"
        );
    }
}
