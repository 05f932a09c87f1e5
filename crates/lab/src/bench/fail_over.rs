//! `cargo lab bench --fail-over`: for how long new connections to EIPs fail when what carries them dies, and once more when
//! it returns.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::NAMESPACE;
use crate::command::{run, wait_until};
use crate::ext;
use crate::failover::{Carriers, Death};
use crate::lab::Lab;
use crate::layout::Machine;
use crate::progress::Progress;

/// The EipGateway of `examples/eip-gateway.yaml`.
const GATEWAY: &str = "gw";
/// The benchmark's Vpcs; they have the same range.
const VPCS: [&str; 2] = ["bench-1", "bench-2"];
/// How long it is dead: longer than a Lease of the controllers.
const DEAD: Duration = Duration::from_secs(20);
/// How long is watched after its return.
const AFTER: Duration = Duration::from_secs(12);
/// How long the lab may take for a step in between.
const SOON: Duration = Duration::from_secs(60);

/// Whose node it is that something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Gateway,
    ServiceGateway,
}

/// What is measured, a line of the table each.
const LINES: [(Role, Death); 7] = [
    (Role::Gateway, Death::Node),
    (Role::Gateway, Death::Switch),
    (Role::Gateway, Death::Controller),
    (Role::Gateway, Death::Exit),
    (Role::ServiceGateway, Death::Node),
    (Role::ServiceGateway, Death::Switch),
    (Role::ServiceGateway, Death::Controller),
];

/// Outages of one line, a round each.
#[derive(Debug, Default)]
struct Outages {
    /// To the EIP of one Vpc, and to that over two.
    death: [Vec<Duration>; 2],
    /// Of both, when it returns.
    back: Vec<Duration>,
}

impl Lab {
    /// Measures fail-over on a lab of three nodes with ycloud installed: an EIP of one Vpc and one over two Vpcs are asked
    /// from outside, on a new connection every 25 ms, from the first that fails until none does any more. `rounds` times
    /// each, the lines by turns. Prints a table. Removes what it made, but for the EipGateway.
    ///
    /// # Errors
    /// When the lab is not up, or something does not come back.
    pub fn bench_fail_over(&self, rounds: u32) -> Result<()> {
        let progress = Progress::new();
        self.clear_fail_over()?;
        self.example("eip-gateway.yaml")?;
        let mut all: [Outages; LINES.len()] = Default::default();
        let mut measure = || {
            for round in 1..=rounds {
                for ((role, death), outages) in LINES.into_iter().zip(&mut all) {
                    let what = format!("{}: {death}, round {round} of {rounds}", role.name());
                    progress.step(&what, |_| self.one_death(role, death, outages))?;
                }
            }
            Ok(())
        };
        let measured: Result<()> = measure();
        let cleared = self.clear_fail_over();
        println!("{}", table(&all)?);
        measured.and(cleared)
    }

    fn one_death(&self, role: Role, death: Death, outages: &mut Outages) -> Result<()> {
        let doomed = role.node(&self.all_carried()?)?;
        let to = self.serve_without(doomed)?;
        let from = self.place(Machine::External)?.from(ext::EXTERNAL);
        let outcome = self.die_and_return((doomed, death), (DEAD, AFTER), &from, &to, Vec::new());
        self.clear_fail_over()?;
        let outcome = outcome?;
        for (outages, attempts) in outages.death.iter_mut().zip(&outcome.death) {
            outages.push(attempts.disturbance());
        }
        let back = outcome.back.iter().map(|attempts| attempts.disturbance());
        outages.back.extend(back.max());
        Ok(())
    }

    fn all_carried(&self) -> Result<Carriers> {
        let mut found = None;
        wait_until(SOON, Duration::from_millis(200), || {
            found = self.carriers(GATEWAY)?;
            Ok(found.is_some())
        })?;
        found.with_context(|| {
            format!("EipGateway {GATEWAY}: nobody carries all of it; see `kubectl describe eipgw`")
        })
    }

    /// A Service of one Vpc and one of both, with backends on the other nodes. Returns their EIPs.
    fn serve_without(&self, doomed: Machine) -> Result<[SocketAddr; 2]> {
        let nodes = run(&mut self.kubectl(["get", "nodes", "-o", "name"])?)?;
        let nodes = nodes.lines().filter_map(|name| name.strip_prefix("node/"));
        let alive: Vec<&str> = nodes.filter(|name| *name != doomed.to_string()).collect();
        if alive.len() < 2 {
            bail!("fail-over needs three nodes; `cargo lab up --nodes 3`");
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("scene.yaml");
        fs::write(&file, scene(&alive)?)?;
        run(self.kubectl(["apply", "-f"])?.arg(&file))?;
        let namespace = ["-n", NAMESPACE, "wait", "--timeout=120s"];
        let ready = [&namespace[..], &["--for=condition=Ready", "pods", "--all"]].concat();
        run(&mut self.kubectl(ready)?)?;
        Ok([self.eip("one", 2)?, self.eip("several", 4)?])
    }

    fn eip(&self, ysvc: &str, healthy: u64) -> Result<SocketAddr> {
        let mut eip = None;
        let mut status = Value::Null;
        wait_until(SOON, Duration::from_millis(200), || {
            let words = ["-n", NAMESPACE, "get", "ysvc", ysvc, "-o", "json"];
            let object: Value = serde_json::from_str(&run(&mut self.kubectl(words)?)?)?;
            status = object["status"].clone();
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|c| c["type"] == "Ready" && c["status"] == "True");
            let all = status["backends"]["healthy"] == healthy && ready.next().is_some();
            let address = status["eip"].as_str().filter(|_| all);
            eip = address.and_then(|address| address.parse().ok());
            Ok(eip.is_some())
        })?;
        let eip = eip.with_context(|| format!("YusurService {ysvc} is not ready: {status}"))?;
        Ok(SocketAddr::new(eip, 80))
    }

    fn clear_fail_over(&self) -> Result<()> {
        let more = ["--ignore-not-found", "--timeout=120s"];
        let delete = |words: &[&str]| run(&mut self.kubectl([&["delete"], words, &more].concat())?);
        delete(&["namespace", NAMESPACE])?;
        delete(&[&["subnet"], &VPCS[..]].concat())?;
        delete(&[&["vpc"], &VPCS[..]].concat())?;
        Ok(())
    }
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "EIP gateway",
            Self::ServiceGateway => "service gateway",
        }
    }

    /// A node that is this; for a service gateway one that is not the gateway too.
    fn node(self, carriers: &Carriers) -> Result<Machine> {
        if self == Self::Gateway {
            return Ok(carriers.gateway);
        }
        let mut nodes = carriers.services.iter().map(|(_, node)| *node);
        nodes
            .find(|node| *node != carriers.gateway)
            .with_context(|| {
                format!("no service gateway is elsewhere than the gateway: {carriers:?}")
            })
    }
}

/// Two Vpcs with a server on each of two nodes, and a YusurService over one and over both.
fn scene(nodes: &[&str]) -> Result<String> {
    let mut yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
    for vpc in VPCS {
        write!(
            yaml,
            "---\napiVersion: iaas.yusur.io/v1\nkind: Vpc\nmetadata: {{name: {vpc}}}\nspec: {{allowedNamespaces: {{selector: {{}}}}}}\n\
             ---\napiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {vpc}}}\nspec: {{vpc: {vpc}, cidr: 10.0.1.0/24}}\n"
        )?;
        for (i, node) in nodes.iter().take(2).enumerate() {
            write!(
                yaml,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {vpc}-{i}, namespace: {NAMESPACE}, labels: {{app: {vpc}}}, \
                 annotations: {{iaas.yusur.io/subnet: {vpc}}}}}\n\
                 spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: c, \
                 image: 'registry.k8s.io/e2e-test-images/agnhost:2.59', args: [netexec, --http-port=8080]}}]}}\n"
            )?;
        }
    }
    let [one, other] = VPCS;
    write!(
        yaml,
        "---\napiVersion: iaas.yusur.io/v1\nkind: YusurService\nmetadata: {{name: one, namespace: {NAMESPACE}}}\n\
         spec: {{type: LoadBalancer, scope: vpc, vpc: {one}, selector: {{app: {one}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n\
         ---\napiVersion: iaas.yusur.io/v1\nkind: YusurService\nmetadata: {{name: several, namespace: {NAMESPACE}}}\n\
         spec: {{type: LoadBalancer, scope: multiVpc, ports: [{{port: 80, targetPort: 8080}}], backends: [\
         {{kind: Pod, vpc: {one}, selector: {{matchLabels: {{app: {one}}}}}}}, \
         {{kind: Pod, vpc: {other}, selector: {{matchLabels: {{app: {other}}}}}}}]}}\n"
    )?;
    Ok(yaml)
}

/// The median and, in brackets, the least and the most, in seconds; `-` for none.
fn spread(outages: &[Duration]) -> String {
    let mut sorted = outages.to_vec();
    sorted.sort_unstable();
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(least), Some(median), Some(most)) => format!(
            "{:.2} ({:.2}–{:.2})",
            median.as_secs_f32(),
            least.as_secs_f32(),
            most.as_secs_f32()
        ),
        _ => "-".to_owned(),
    }
}

fn table(all: &[Outages]) -> Result<String> {
    let mut table = format!(
        "{:<40} {:<20} {:<20} {}\n",
        "outage of new connections, s", "EIP of one Vpc", "over two Vpcs", "at the return"
    );
    for ((role, death), outages) in LINES.into_iter().zip(all) {
        let [one, two] = &outages.death;
        writeln!(
            table,
            "{:<40} {:<20} {:<20} {}",
            format!("{}: {death}", role.name()),
            spread(one),
            spread(two),
            spread(&outages.back)
        )?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_names_median_least_and_most() {
        let of = |ms: &[u64]| {
            spread(
                &ms.iter()
                    .map(|ms| Duration::from_millis(*ms))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&[]), "-");
        assert_eq!(of(&[1_300, 300, 900]), "0.90 (0.30–1.30)");
    }
}
