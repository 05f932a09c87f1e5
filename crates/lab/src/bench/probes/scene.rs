//! The objects of the benchmark of probes, and where they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::matrix::{Behind, PERIOD, THRESHOLD, TIMEOUT};
use crate::bench::NAMESPACE;
use crate::command::{run, wait_until};
use crate::lab::Lab;
use crate::layout::Machine;
use crate::server::Check;

/// The Vpc, and its Subnet.
pub const VPC: &str = "bench-probes";
/// How long the lab may take for a step in between.
const SOON: Duration = Duration::from_secs(60);

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Of all backends but the bare-metal server. No controller leads there: who takes its place would be measured too.
    pub node: Machine,
    /// Of the client.
    pub client: Machine,
}

impl Lab {
    /// Chooses nodes.
    ///
    /// # Errors
    /// When there are too few.
    pub(super) fn placement(&self) -> Result<Placement> {
        let nodes = run(&mut self.kubectl(["get", "nodes", "-o", "name"])?)?;
        let nodes = nodes.lines().filter_map(|name| name.strip_prefix("node/"));
        let nodes: Result<Vec<Machine>> = nodes.map(str::parse).collect();
        let nodes = nodes?;
        let leaders =
            ["ycloud-controller", "yusurservice-controller"].map(|name| self.leader(name));
        let mut taken = Vec::new();
        for leader in leaders {
            taken.push(leader?);
        }
        let free = nodes.iter().find(|node| !taken.contains(node));
        let other = nodes.iter().find(|node| Some(*node) != free);
        let both = free.zip(other);
        let (node, client) =
            both.context("needs a node where no controller leads; `cargo lab up --nodes 3`")?;
        Ok(Placement {
            node: *node,
            client: *client,
        })
    }

    /// The node of the replica that leads.
    fn leader(&self, lease: &str) -> Result<Machine> {
        let system = |words: &[&str]| -> Result<Value> {
            let all = [&["-n", "ycloud-system", "get", "-o", "json"], words].concat();
            Ok(serde_json::from_str(&run(&mut self.kubectl(all)?)?)?)
        };
        let lease = system(&["lease", lease])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        // <Pod>_<a number of the process>
        let pod = system(&["pod", holder.split('_').next().unwrap_or_default()])?;
        pod["spec"]["nodeName"].as_str().unwrap_or_default().parse()
    }

    /// The addresses of the backends.
    pub(super) fn addresses(&self) -> Result<BTreeMap<Behind, IpAddr>> {
        let mut found = BTreeMap::new();
        for behind in Behind::ALL {
            let (kind, field) = match behind {
                Behind::Pod => ("pod", "podIP"),
                _ => ("vnic", "ip"),
            };
            let object = self.bench_object(kind, behind.name())?;
            let address = object["status"][field].as_str().unwrap_or_default();
            let parsed = address.parse();
            let parsed = parsed.with_context(|| format!("{} has no address", behind.name()))?;
            found.insert(behind, parsed);
        }
        Ok(found)
    }

    /// The cluster addresses of the YusurServices.
    pub(super) fn services_of_checks(&self) -> Result<Vec<(Check, SocketAddr)>> {
        let mut found = Vec::new();
        for check in Check::ALL {
            let mut address: Option<IpAddr> = None;
            wait_until(SOON, Duration::from_millis(200), || {
                let object = self.bench_object("ysvc", &check.to_string())?;
                let text = object["status"]["clusterIP"].as_str();
                address = text.and_then(|text| text.parse().ok());
                Ok(address.is_some())
            })?;
            let address =
                address.with_context(|| format!("YusurService {check} has no address"))?;
            found.push((check, SocketAddr::new(address, 80)));
        }
        Ok(found)
    }

    fn bench_object(&self, kind: &str, name: &str) -> Result<Value> {
        let words = ["-n", NAMESPACE, "get", kind, name, "-o", "json"];
        Ok(serde_json::from_str(&run(&mut self.kubectl(words)?)?)?)
    }
}

/// All objects in the namespace, which must be there. The Vpc has one Subnet, of its own name.
pub fn yaml(placement: Placement, authority: &str) -> Result<String> {
    let Placement { node, client } = placement;
    let mut yaml = format!(
        "apiVersion: iaas.yusur.io/v1\nkind: Vpc\nmetadata: {{name: {VPC}}}\nspec: {{allowedNamespaces: {{selector: {{}}}}}}\n\
         ---\napiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {VPC}}}\nspec: {{vpc: {VPC}, cidr: 10.0.1.0/24}}\n"
    );
    let pod = Behind::Pod.name();
    for (name, node, container) in [
        (
            pod,
            node,
            format!("image: 'ycloud.io/server:v1', args: [{pod}]"),
        ),
        ("client", client, "image: 'ycloud.io/tools:v1'".to_owned()),
    ] {
        write!(
            yaml,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {{iaas.yusur.io/subnet: {VPC}}}}}\n\
             spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0, containers: [{{name: c, {container}}}]}}\n"
        )?;
    }
    for (behind, attachment) in [
        (
            Behind::Vm,
            format!("kind: VM, name: vm, chassis: {node}, device: {{tap: bench-vm}}"),
        ),
        (
            Behind::Server,
            format!(
                "kind: BM, name: bm, chassis: {}, device: {{port: bench-bm}}",
                Machine::Dpu
            ),
        ),
        (Behind::Address, format!("kind: None, chassis: {node}")),
    ] {
        let name = behind.name();
        write!(
            yaml,
            "---\napiVersion: iaas.yusur.io/v1\nkind: VNic\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec: {{subnet: {VPC}, attachment: {{{attachment}}}}}\n"
        )?;
    }
    let backends = Behind::ALL.map(|one| format!("{{kind: {}, name: {}}}", one.kind(), one.name()));
    for check in Check::ALL {
        write!(
            yaml,
            "---\napiVersion: iaas.yusur.io/v1\nkind: YusurService\nmetadata: {{name: {check}, namespace: {NAMESPACE}}}\n\
             spec: {{vpc: {VPC}, ports: [{{port: 80, targetPort: 8080}}], backends: [{}], healthCheck: {{{}, periodSeconds: {PERIOD}, \
             timeoutSeconds: {TIMEOUT}, successThreshold: {THRESHOLD}, failureThreshold: {THRESHOLD}}}}}\n",
            backends.join(", "),
            check.yaml(authority)
        )?;
    }
    Ok(yaml)
}
