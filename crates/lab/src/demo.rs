//! `make demo`: the four scenarios, and backends of every kind, on real parts, from YAML to packets, with what to try next.

mod machines;
mod scenarios;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{run, wait_until};
use crate::image::Profile;
use crate::install::repository;
use crate::lab::{Lab, UpOptions};
use crate::progress::Progress;

/// Connections that the client makes.
const CONNECTIONS: u32 = 12;

impl Lab {
    /// Brings the lab up, installs ycloud, makes a VPC with backends and a client, applies the example YusurService,
    /// lets the client reach it, and shows the other scenarios and the other kinds of backends. Leaves everything up.
    ///
    /// # Errors
    /// Names the step that failed and what was last seen.
    pub fn demo(&self, options: &UpOptions) -> Result<()> {
        // install builds and loads ycloud.
        self.up(&UpOptions {
            ycloud: false,
            ..*options
        })?;
        self.install(Profile::default())?;
        let progress = Progress::new();
        progress.step("VPC vpc1 with three subnets", |_| self.example("vpc1.yaml"))?;
        progress.step("three backends and a client", |_| {
            self.example("backends.yaml")?;
            self.example("client.yaml")?;
            for target in ["deployment/iperf-a", "deployment/iperf-b"] {
                run(&mut self.kubectl(["rollout", "status", target, "--timeout=120s"])?)?;
            }
            run(&mut self.kubectl([
                "wait",
                "--for=condition=Ready",
                "pod/client",
                "--timeout=120s",
            ])?)
        })?;
        progress.step("YusurService ysvc1", |_| {
            self.example("ysvc1.yaml")?;
            self.wait_ready("ysvc1", 3)
        })?;
        self.show("kubectl get pods -o wide", &["get", "pods", "-o", "wide"])?;
        self.show("kubectl get ysvc ysvc1", &["get", "ysvc", "ysvc1"])?;
        let address = self.cluster_ip()?;
        let answered = progress.step(
            &format!("the client runs iperf to {address}:5001, {CONNECTIONS} times"),
            |_| self.converse(&address),
        )?;
        println!("\nWho answered, as the backends' own logs say:");
        for (backend, count) in &answered {
            println!("  {count:>3} of {CONNECTIONS}  {backend}");
        }
        self.demo_scenarios(&progress)?;
        self.demo_machines(&progress)?;
        println!(
            "\nThe lab is up. To go on:
  cargo lab kubectl exec client -- iperf -c {address} -p 5001 -t 2
  cargo lab kubectl describe ysvc ysvc4
  cargo lab backend cut vm-1; cargo lab kubectl get ysvc ysvc5 -w
  cargo lab ovn-nbctl lb-list
`make down` removes every trace."
        );
        Ok(())
    }

    /// `kubectl apply` of a file in `examples/`.
    pub(crate) fn example(&self, file: &str) -> Result<String> {
        let path = repository().join("examples").join(file);
        run(self.kubectl(["apply", "-f"])?.arg(path))
    }

    fn show(&self, title: &str, words: &[&str]) -> Result<()> {
        println!(
            "\n$ {title}\n{}",
            run(&mut self.kubectl(words)?)?.trim_end()
        );
        Ok(())
    }

    fn ysvc(&self, name: &str) -> Result<Value> {
        let text = run(&mut self.kubectl(["get", "ysvc", name, "-o", "json"])?)?;
        serde_json::from_str(&text).context("failed to read kubectl's JSON")
    }

    fn cluster_ip(&self) -> Result<String> {
        let ysvc = self.ysvc("ysvc1")?;
        let address = ysvc["status"]["clusterIP"].as_str();
        Ok(address
            .context("YusurService ysvc1 has no ClusterIP")?
            .to_owned())
    }

    fn wait_ready(&self, ysvc: &str, backends: u64) -> Result<()> {
        let ready = wait_until(Duration::from_secs(60), Duration::from_millis(300), || {
            let status = self.ysvc(ysvc)?["status"].clone();
            let ready = status["conditions"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            Ok(ready && status["backends"]["healthy"] == backends)
        })?;
        if !ready {
            bail!(
                "YusurService {ysvc} is not ready after a minute: {}",
                self.ysvc(ysvc)?["status"]
            );
        }
        Ok(())
    }

    /// Connects again and again and returns how many connections each backend logged meanwhile.
    fn converse(&self, address: &str) -> Result<BTreeMap<String, usize>> {
        let before = self.connections()?;
        let script = format!(
            "for i in $(seq {CONNECTIONS}); do iperf -c {address} -p 5001 -n 64K || exit 1; done"
        );
        run(&mut self.kubectl(["exec", "client", "--", "sh", "-c", &script])?)?;
        let mut answered = BTreeMap::new();
        wait_until(Duration::from_secs(10), Duration::from_millis(500), || {
            answered = self.connections()?;
            for (backend, count) in &mut answered {
                *count -= before.get(backend).copied().unwrap_or(0).min(*count);
            }
            Ok(answered.values().sum::<usize>() >= CONNECTIONS as usize)
        })?;
        Ok(answered)
    }

    /// How many connections of the client each backend has logged since it started. The kubelet's probes are in the log
    /// too, but carry no data.
    fn connections(&self) -> Result<BTreeMap<String, usize>> {
        let words = ["get", "pods", "-l", "svc=svc1-ep", "-o", "json"];
        let pods: Value = serde_json::from_str(&run(&mut self.kubectl(words)?)?)?;
        let mut counts = BTreeMap::new();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            let address = pod["status"]["podIP"].as_str().unwrap_or_default();
            let log = run(&mut self.kubectl(["logs", name])?)?;
            let count = log
                .lines()
                .filter(|line| line.contains(" sec ") && line.contains(" KBytes "))
                .count();
            counts.insert(format!("{name} ({address} on {node})"), count);
        }
        Ok(counts)
    }
}
