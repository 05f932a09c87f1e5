//! `cargo lab bench --network-probes`: what thousands of NetworkProbes cost that one node asks, and what a restart of its agent
//! does to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NAMESPACE;
use super::process::Running;
use crate::command::{run, wait_until};
use crate::lab::Lab;
use crate::layout::Machine;
use crate::progress::Progress;

/// The node whose agent asks all of them, as it has all targets.
const NODE: Machine = Machine::Node(1);
/// An image of the lab's that has a server.
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.59";
/// Pods that answer.
const TARGETS: u32 = 20;
/// Period of each probe, seconds: with five, the user-space datapath of Open vSwitch is what is measured.
const PERIOD: u32 = 30;
/// How long is measured.
const MEASURED: Duration = Duration::from_secs(60);
/// How long the lab may take until all is steady.
const STEADY: Duration = Duration::from_secs(600);

/// What stands in a NetworkProbe's status: state, since when, prober.
type States = BTreeMap<String, [String; 3]>;

/// A line of the table: what, how much, and the bound, if there is one.
type Line = (&'static str, String, String);

impl Lab {
    /// Measures, on a lab with ycloud installed, what `probes` NetworkProbes of TCP cost that one node asks every half minute.
    /// Prints a table. Removes what it made.
    ///
    /// # Errors
    /// When the lab is not up, or it does not become steady within ten minutes.
    pub fn bench_network_probes(&self, probes: u32) -> Result<()> {
        let progress = Progress::new();
        self.clear(&progress)?;
        run(&mut self.kubectl(["create", "namespace", NAMESPACE])?)?;
        let measured = self.measure_probes(probes, &progress);
        let measured = measured.and_then(|lines| table(&lines));
        if let Ok(table) = &measured {
            // Ten thousand objects go slowly: nobody shall have to wait for that.
            println!("{table}");
        }
        let cleared = self.clear(&progress);
        measured.and(cleared)
    }

    fn measure_probes(&self, probes: u32, progress: &Progress) -> Result<Vec<Line>> {
        let targets = progress.step(&format!("{TARGETS} Pods on {NODE}"), |_| self.targets())?;
        progress.step(&format!("{probes} NetworkProbes created"), |_| {
            self.create(&manifests(probes, &targets))
        })?;
        progress.step("all are Healthy, and all of that is written", |_| {
            self.wait_steady(probes)
        })?;
        let mut lines = progress.step("a minute of steady probes", |_| self.steady(probes))?;
        lines.extend(progress.step("the agent's restart", |_| self.restarted(probes))?);
        Ok(lines)
    }

    /// Starts Pods that take connections; their addresses.
    fn targets(&self) -> Result<Vec<String>> {
        let mut yaml = String::new();
        for n in 0..TARGETS {
            write!(
                yaml,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: t{n}, namespace: {NAMESPACE}}}\nspec: {{nodeName: {NODE}, \
                 terminationGracePeriodSeconds: 0, containers: [{{name: c, image: '{}', args: [netexec, --http-port=80, \
                 --udp-port=-1]}}]}}\n",
                AGNHOST
            )?;
        }
        self.create(&[yaml])?;
        let words = [
            "-n",
            NAMESPACE,
            "wait",
            "--for=condition=Ready",
            "pods",
            "--all",
            "--timeout=300s",
        ];
        run(&mut self.kubectl(words)?)?;
        let words = [
            "-n",
            NAMESPACE,
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].status.podIP}",
        ];
        let ips = run(&mut self.kubectl(words)?)?;
        Ok(ips.split_whitespace().map(str::to_owned).collect())
    }

    fn wait_steady(&self, probes: u32) -> Result<()> {
        let mut seen = (0, 0.0);
        let steady = wait_until(STEADY, Duration::from_secs(2), || {
            let states = self.states()?;
            let healthy = states.values().filter(|[state, ..]| state == "Healthy");
            let waiting = self.agent_metric("ycloud_cni_prober_reports_waiting")?;
            seen = (healthy.count(), waiting);
            Ok(seen.0 == probes as usize && waiting == 0.0)
        })?;
        if !steady {
            bail!(
                "after {STEADY:?} {} of {probes} NetworkProbes are Healthy, and {} reports wait",
                seen.0,
                seen.1
            );
        }
        let here = |[.., prober]: &[String; 3]| *prober == NODE.to_string();
        let elsewhere = self
            .states()?
            .values()
            .filter(|states| !here(states))
            .count();
        if elsewhere > 0 {
            bail!("{elsewhere} NetworkProbes are not asked by {NODE}");
        }
        Ok(())
    }

    /// State, since when and prober of each of them.
    fn states(&self) -> Result<States> {
        let columns =
            "custom-columns=N:.metadata.name,S:.status.state,T:.status.since,P:.status.prober";
        let words = [
            "-n",
            NAMESPACE,
            "get",
            "networkprobes",
            "--no-headers",
            "-o",
            columns,
        ];
        let text = run(&mut self.kubectl(words)?)?;
        let states = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some((words.next()?, [words.next()?, words.next()?, words.next()?]))
        });
        Ok(states.collect())
    }

    fn steady(&self, probes: u32) -> Result<Vec<Line>> {
        let agent = self.process("ycloud-cni", Some(NODE))?;
        let controllers = ["ycloud-controller", "yusurservice-controller"];
        let [ycloud, yusurservice] = controllers.map(|name| self.process(name, None));
        let (ycloud, yusurservice) = (ycloud?, yusurservice?);
        let rounds = || self.agent_metric("ycloud_cni_prober_succeeded_total");
        let late = || self.agent_metric("ycloud_cni_prober_late_total");
        let before = (agent.processor()?, rounds()?, late()?, self.api_writes()?);
        let start = Instant::now();
        sleep(MEASURED);
        let seconds = start.elapsed().as_secs_f64();
        let cores = (agent.processor()? - before.0) / seconds;
        let rate = (rounds()? - before.1) / seconds;
        let late = late()? - before.2;
        let after = self.api_writes()?;
        let written = |resource: &str| {
            let of =
                |counts: &BTreeMap<String, f64>| counts.get(resource).copied().unwrap_or_default();
            (of(&after) - of(&before.3)) / seconds
        };
        let wanted = probes / PERIOD;
        let mebibytes = |process: &Running| process.resident().map(|r| format!("{r} MiB"));
        let writes = |resource| format!("{:.2}/s", written(resource));
        Ok(vec![
            ("rounds", format!("{rate:.0}/s"), format!("{wanted}/s")),
            (
                "rounds more than a second late",
                format!("{late}"),
                "0".into(),
            ),
            (
                "agent, processor",
                format!("{cores:.2} cores"),
                "0.5 cores".into(),
            ),
            ("agent, RSS", mebibytes(&agent)?, "200 MiB".into()),
            (
                "ycloud-controller, RSS",
                mebibytes(&ycloud)?,
                "200 MiB".into(),
            ),
            (
                "yusurservice-controller, RSS",
                mebibytes(&yusurservice)?,
                String::new(),
            ),
            (
                "API writes to networkprobes",
                writes("networkprobes"),
                "5/s".into(),
            ),
            (
                "API writes to leases, all of the cluster's",
                writes("leases"),
                String::new(),
            ),
        ])
    }

    /// Kills the agent, and sees what that does. The kubelet starts it anew.
    fn restarted(&self, probes: u32) -> Result<Vec<Line>> {
        let before = self.states()?;
        let old = self.process("ycloud-cni", Some(NODE))?;
        kill(Pid::from_raw(old.pid), Signal::SIGTERM).context("failed to stop the agent")?;
        let mut new = None;
        wait_until(Duration::from_secs(120), Duration::from_millis(20), || {
            new = self
                .process("ycloud-cni", Some(NODE))
                .ok()
                .filter(|new| new.pid != old.pid);
            Ok(new.is_some())
        })?;
        let new = new.context("the kubelet does not start the agent anew")?;
        let begun = Instant::now();
        let age = new.age()?;
        let asks = |least: f64| {
            let done = || {
                let succeeded = self.agent_metric("ycloud_cni_prober_succeeded_total");
                Ok(succeeded.is_ok_and(|succeeded| succeeded >= least))
            };
            match wait_until(Duration::from_secs(120), Duration::from_millis(50), done)? {
                true => Ok(age + begun.elapsed()),
                false => bail!("the agent asks nothing after its restart"),
            }
        };
        let first = asks(1.0)?;
        let all = asks(f64::from(probes))?;
        // Until everything that there is to say has been said.
        sleep(Duration::from_secs(30));
        let after = self.states()?;
        let flaps = after
            .iter()
            .filter(|(name, now)| before.get(*name) != Some(*now));
        Ok(vec![
            (
                "restart: from its start to the first round",
                format!("{:.2} s", first.as_secs_f32()),
                "2 s".into(),
            ),
            (
                "restart: as many rounds as there are probes",
                format!("{:.2} s", all.as_secs_f32()),
                String::new(),
            ),
            (
                "restart: probes whose state or prober changed",
                flaps.count().to_string(),
                "0".into(),
            ),
        ])
    }

    /// A figure of the node's agent.
    fn agent_metric(&self, name: &str) -> Result<f64> {
        let words = ["curl", "-sf", "-m", "2", "http://127.0.0.1:9440/metrics"];
        let text = run(&mut self.exec(NODE, words)?)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("the agent of {NODE} has no {name}"))
    }

    /// How many writes the API server had, by resource.
    fn api_writes(&self) -> Result<BTreeMap<String, f64>> {
        let text = run(&mut self.kubectl(["get", "--raw", "/metrics"])?)?;
        Ok(writes(&text))
    }
}

/// The NetworkProbes, as texts for kubectl processes that work at once.
fn manifests(probes: u32, targets: &[String]) -> Vec<String> {
    let mut texts = vec![String::new(); super::WRITERS];
    for n in 0..probes as usize {
        let text = &mut texts[n % super::WRITERS];
        let target = &targets[n % targets.len()];
        text.push_str(&format!(
            "---\napiVersion: iaas.yusur.io/v1\nkind: NetworkProbe\nmetadata: {{name: p{n}, namespace: {NAMESPACE}}}\n\
             spec: {{target: {{vpc: ovn-cluster, ip: {target}, port: 80}}, tcp: {{}}, periodSeconds: {PERIOD}, timeoutSeconds: 2}}\n"
        ));
    }
    texts
}

/// The writes in the API server's metrics, by resource.
fn writes(metrics: &str) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("apiserver_request_total{"));
    for line in lines {
        let Some((labels, count)) = line.rsplit_once("} ") else {
            continue;
        };
        let label = |name: &str| {
            let from = labels.split(&format!("{name}=\"")).nth(1)?;
            from.split('"').next()
        };
        let verb = label("verb").unwrap_or_default();
        if ["PATCH", "PUT", "POST", "APPLY", "DELETE"].contains(&verb)
            && let (Some(resource), Ok(count)) = (label(",resource"), count.parse::<f64>())
        {
            *counts.entry(resource.to_owned()).or_default() += count;
        }
    }
    counts
}

fn table(lines: &[Line]) -> Result<String> {
    let mut text = String::from("| what | value | bound |\n|---|---|---|\n");
    for (what, value, bound) in lines {
        writeln!(text, "| {what} | {value} | {bound} |")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_resource() {
        let line = |resource: &str, verb: &str, code: u32, count: u32| {
            format!(
                "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"g\",resource=\"{resource}\",\
                 scope=\"resource\",subresource=\"status\",verb=\"{verb}\",version=\"v1\"}} {count}\n"
            )
        };
        let text = line("networkprobes", "PATCH", 200, 7)
            + &line("networkprobes", "PATCH", 409, 2)
            + &line("networkprobes", "LIST", 200, 50)
            + &line("leases", "PUT", 200, 4);
        let expected = [
            ("leases".to_owned(), 4.0),
            ("networkprobes".to_owned(), 9.0),
        ];
        assert_eq!(writes(&text), expected.into());
    }
}
