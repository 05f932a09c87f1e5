//! What processes of ycloud use, out of /proc.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::run;
use crate::lab::Lab;
use crate::layout::Machine;

/// Ticks a second of /proc's figures: `USER_HZ`, 100 wherever ycloud runs.
const TICKS: f64 = 100.0;

/// A process, and what it has used.
#[derive(Debug, Clone)]
pub(super) struct Running {
    folder: PathBuf,
    /// Its number.
    pub(super) pid: i32,
}

impl Lab {
    /// The process of a component, on a node or the one of several with most memory: the leading replica.
    pub(super) fn process(&self, component: &str, node: Option<Machine>) -> Result<Running> {
        let selector = format!("app.kubernetes.io/component={component}");
        let words = [
            "-n",
            "ycloud-system",
            "get",
            "pods",
            "-l",
            &selector,
            "-o",
            "json",
        ];
        let pods: Value = serde_json::from_str(&run(&mut self.kubectl(words)?)?)?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let here = |pod: &&Value| {
            node.is_none_or(|node| pod["spec"]["nodeName"].as_str() == Some(&node.to_string()))
        };
        let uids = pods
            .filter(here)
            .filter_map(|pod| pod["metadata"]["uid"].as_str());
        // The kubelet names a Pod's cgroup by its UID, with either separator.
        let uids: Vec<String> = uids
            .flat_map(|uid| [uid.to_owned(), uid.replace('-', "_")])
            .collect();
        let name: String = component.chars().take(15).collect();
        let entries = fs::read_dir("/proc").context("failed to list processes")?;
        let found = entries.flatten().filter_map(|entry| {
            let folder = entry.path();
            let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let is =
                read("comm").trim() == name && uids.iter().any(|uid| read("cgroup").contains(uid));
            is.then_some(Running { folder, pid })
        });
        let found = found.max_by_key(|process| process.resident().unwrap_or_default());
        found.with_context(|| format!("no process of {component} was found"))
    }
}

impl Running {
    fn read(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    /// Resident memory, MiB.
    pub(super) fn resident(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes: u64 = kibibytes.context("VmRSS is missing")?.trim().parse()?;
        Ok(kibibytes / 1024)
    }

    /// The numbers of /proc/<pid>/stat from the third on. Source: proc_pid_stat(5).
    fn stat(&self, number: usize) -> Result<f64> {
        let stat = self.read("stat")?;
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let field = after_name.split(' ').nth(number - 3);
        let ticks: f64 = field.context("/proc/<pid>/stat is short")?.parse()?;
        Ok(ticks / TICKS)
    }

    /// Processor time so far, user and system, seconds.
    pub(super) fn processor(&self) -> Result<f64> {
        Ok(self.stat(14)? + self.stat(15)?)
    }

    /// How long it has run.
    pub(super) fn age(&self) -> Result<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").context("failed to read /proc/uptime")?;
        let uptime: f64 = uptime.split(' ').next().unwrap_or_default().parse()?;
        Ok(Duration::from_secs_f64((uptime - self.stat(22)?).max(0.0)))
    }
}
