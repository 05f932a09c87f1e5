//! `cargo lab bench`: what the running system costs at scale. Figures of one run; nothing here passes or fails.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{run, wait_until};
use crate::lab::Lab;
use crate::layout::Machine;
use crate::progress::Progress;

mod fail_over;
mod network_probes;
mod probes;
mod process;

/// Namespace of what a benchmark makes.
const NAMESPACE: &str = "ycloud-bench";
/// kubectl processes at once: each keeps to 50 requests a second.
const WRITERS: usize = 8;

/// What [`Lab::bench`] shall measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Services, 1..=50000.
    pub services: u32,
    /// Endpoints of each, 1..=100.
    pub endpoints: u32,
    /// Pods started at once on one node, 1..=50.
    pub pods: u32,
}

impl Lab {
    /// Measures, on a lab with ycloud installed: how long Pods that start at once wait for their network, and what
    /// many Services cost ycloud-controller. Prints a table. Removes what it made.
    ///
    /// # Errors
    /// When the lab is not up, or does not converge within ten minutes.
    pub fn bench(&self, options: &BenchOptions) -> Result<()> {
        let progress = Progress::new();
        self.clear(&progress)?;
        run(&mut self.kubectl(["create", "namespace", NAMESPACE])?)?;
        let measured = self.measure(options, &progress);
        let cleared = self.clear(&progress);
        println!("{}", measured?);
        cleared
    }

    fn measure(&self, options: &BenchOptions, progress: &Progress) -> Result<String> {
        let mut table =
            String::from("measure                                              figure\n");
        let adds = progress.step(&format!("{} Pods at once on node-1", options.pods), |_| {
            self.pods_at_once(options.pods)
        })?;
        writeln!(
            table,
            "CNI ADD, {} Pods at once, slowest bucket           ≤ {adds}",
            options.pods
        )?;
        let before = self.process("ycloud-controller", None)?.resident()?;
        writeln!(
            table,
            "ycloud-controller RSS before                         {before} MiB"
        )?;
        let created = progress.step(&format!("{} Services created", options.services), |_| {
            self.services(options)
        })?;
        let converged = progress.step(
            "their load balancers stand in the Northbound database",
            |_| {
                let start = Instant::now();
                self.wait_load_balancers(options.services as usize)?;
                Ok(start.elapsed())
            },
        )?;
        writeln!(
            table,
            "{} Services × {} endpoints: created by kubectl in     {:.1} s",
            options.services,
            options.endpoints,
            created.as_secs_f32()
        )?;
        writeln!(
            table,
            "… the last one in NB, after the last create          {:.1} s",
            converged.as_secs_f32()
        )?;
        let after = self.process("ycloud-controller", None)?.resident()?;
        writeln!(
            table,
            "ycloud-controller RSS with them                      {after} MiB"
        )?;
        let one = progress.step("one endpoint more, until NB has it", |_| self.one_change())?;
        writeln!(
            table,
            "one endpoint's change until NB has it (polled)       {:.2} s",
            one.as_secs_f32()
        )?;
        Ok(table)
    }

    fn clear(&self, progress: &Progress) -> Result<()> {
        let words = [
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=600s",
        ];
        progress.step("clearing", |_| run(&mut self.kubectl(words)?))?;
        Ok(())
    }

    /// Starts Pods and reads the agent's histogram of ADD: the bound of the highest bucket that one fell into.
    fn pods_at_once(&self, pods: u32) -> Result<String> {
        let mut yaml = String::new();
        for i in 0..pods {
            write!(
                yaml,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{i}, namespace: {NAMESPACE}}}\nspec: {{nodeName: node-1, \
                 terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'registry.k8s.io/pause:3.10.1'}}]}}\n"
            )?;
        }
        let before = self.add_buckets()?;
        self.create(&[yaml])?;
        run(&mut self.kubectl([
            "-n",
            NAMESPACE,
            "wait",
            "--for=condition=Ready",
            "pods",
            "--all",
            "--timeout=300s",
        ])?)?;
        let after = self.add_buckets()?;
        let total = |buckets: &[(String, u64)]| buckets.last().map_or(0, |(_, count)| *count);
        let new = total(&after) - total(&before);
        let slowest = after
            .iter()
            .zip(&before)
            .find(|((_, now), (_, then))| now - then >= new);
        run(&mut self.kubectl(["-n", NAMESPACE, "delete", "pods", "--all", "--timeout=120s"])?)?;
        Ok(slowest.map_or_else(
            || "?".into(),
            |((bound, _), _)| format!("{bound} s ({new} calls)"),
        ))
    }

    /// The agent's successful ADDs on node-1: (upper bound in seconds, calls up to it).
    fn add_buckets(&self) -> Result<Vec<(String, u64)>> {
        let text = run(&mut self.exec(
            Machine::Node(1),
            ["curl", "-sf", "http://127.0.0.1:9440/metrics"],
        )?)?;
        let mut buckets: Vec<(String, u64)> = text
            .lines()
            .filter(|line| {
                line.contains("_bucket{")
                    && line.contains(r#"command="ADD""#)
                    && line.contains("success")
            })
            .filter_map(|line| {
                let bound = line.split(r#"le=""#).nth(1)?.split('"').next()?;
                let count = line.rsplit(' ').next()?.parse().ok()?;
                Some((bound.to_owned(), count))
            })
            .collect();
        if buckets.is_empty() {
            let bounds = [
                "0.01", "0.05", "0.1", "0.25", "0.5", "1.0", "2.0", "5.0", "10.0", "30.0", "+Inf",
            ];
            buckets = bounds.map(|bound| (bound.to_owned(), 0)).to_vec();
        }
        Ok(buckets)
    }

    /// Creates Services without selector and their EndpointSlices; returns how long that took.
    fn services(&self, options: &BenchOptions) -> Result<Duration> {
        let mut chunks = vec![String::new(); WRITERS];
        for i in 0..options.services {
            let chunk = &mut chunks[i as usize % WRITERS];
            write!(
                chunk,
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{i}, namespace: {NAMESPACE}, labels: \
                 {{service.kubernetes.io/service-proxy-name: ycloud}}}}\nspec: {{ports: [{{port: 80}}]}}\n{}",
                slice(i, options.endpoints)
            )?;
        }
        let start = Instant::now();
        self.create(&chunks)?;
        Ok(start.elapsed())
    }

    /// `kubectl create -f` of each text, all at once.
    fn create(&self, texts: &[String]) -> Result<()> {
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        thread::scope(|scope| {
            let writers: Vec<_> = texts
                .iter()
                .enumerate()
                .map(|(i, text)| {
                    let file = folder.path().join(format!("{i}.yaml"));
                    scope.spawn(move || -> Result<()> {
                        fs::write(&file, text)?;
                        run(self
                            .kubectl(["create", "--validate=false", "-f"])?
                            .arg(&file))?;
                        Ok(())
                    })
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().unwrap_or_else(|_| bail!("a writer panicked")))
        })
    }

    fn wait_load_balancers(&self, wanted: usize) -> Result<()> {
        let mut seen = 0;
        let all = wait_until(Duration::from_secs(600), Duration::from_secs(1), || {
            let names =
                run(&mut self.ovn_nbctl(["--bare", "--columns=name", "list", "Load_Balancer"])?)?;
            seen = names
                .lines()
                .filter(|name| name.starts_with(NAMESPACE))
                .count();
            Ok(seen >= wanted)
        })?;
        if !all {
            bail!("{seen} of {wanted} load balancers after ten minutes");
        }
        Ok(())
    }

    /// From `kubectl replace` of one EndpointSlice until NB shows it.
    fn one_change(&self) -> Result<Duration> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("slice.yaml");
        fs::write(&file, slice(0, 1))?;
        let name = format!("name=\"{NAMESPACE}/s0:tcp\"");
        run(self.kubectl(["replace", "-f"])?.arg(&file))?;
        let start = Instant::now();
        let seen = wait_until(Duration::from_secs(60), Duration::from_millis(20), || {
            let words = ["--bare", "--columns=vips", "find", "Load_Balancer", &name];
            Ok(!run(&mut self.ovn_nbctl(words)?)?.contains(','))
        })?;
        if !seen {
            bail!("the changed endpoint is not in NB after a minute");
        }
        Ok(start.elapsed())
    }
}

/// The EndpointSlice of Service `i`, with addresses of the default Vpc's range.
fn slice(i: u32, endpoints: u32) -> String {
    let addresses: String = (0..endpoints)
        .map(|e| {
            let n = i * endpoints + e;
            format!("{{addresses: [10.16.{}.{}]}}, ", n / 250 % 256, n % 250 + 2)
        })
        .collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{i}, namespace: {NAMESPACE}, labels: \
         {{kubernetes.io/service-name: s{i}}}}}\naddressType: IPv4\nports: [{{name: '', port: 8080, protocol: TCP}}]\nendpoints: [{}]\n",
        addresses.trim_end_matches(", ")
    )
}
