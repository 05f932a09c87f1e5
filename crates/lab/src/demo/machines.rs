//! The demo's backends of every kind: all answer, one fails and leaves, and returns.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, Result};

use super::scenarios::{answers, summary};
use crate::command::run;
use crate::lab::Lab;
use crate::progress::Progress;

/// The VNics of `examples/machines.yaml`; the virtual machine last, as it takes longest.
const VNICS: [&str; 3] = ["bm-1", "addr-1", "vm-1"];
/// Backends of ysvc5: what is behind those, and a Pod.
const BACKENDS: u64 = VNICS.len() as u64 + 1;
/// Which one fails.
const DOOMED: &str = "bm-1";

impl Lab {
    /// Makes a Pod, a virtual machine, a bare-metal server and a bare address, and a YusurService over them; kills the server
    /// of one and starts it again; says each time who answers.
    ///
    /// # Errors
    /// Names the step that failed and what was last seen.
    pub(super) fn demo_machines(&self, progress: &Progress) -> Result<()> {
        self.example("machines.yaml")?;
        for vnic in VNICS {
            self.backend("default", vnic)?.start()?;
        }
        progress.step("YusurService ysvc5, over backends of every kind", |_| {
            self.example("ysvc5.yaml")?;
            self.wait_ready("ysvc5", BACKENDS)
        })?;
        let mut lines = vec![format!("all of them: {}", self.ask_ysvc5()?)];
        let doomed = self.backend("default", DOOMED)?;
        let title = format!("the server of {DOOMED} is killed");
        progress.step(&title, |step| {
            doomed.stop()?;
            let killed = Instant::now();
            step.note("until its probe has found out, and every node knows");
            self.wait_ready("ysvc5", BACKENDS - 1)?;
            let took = killed.elapsed().as_secs_f32();
            lines.push(format!(
                "{DOOMED} killed, {took:.1} s later: {}",
                self.ask_ysvc5()?
            ));
            Ok(())
        })?;
        self.show("kubectl get ysvc ysvc5", &["get", "ysvc", "ysvc5"])?;
        let described = run(&mut self.kubectl(["describe", "ysvc", "ysvc5"])?)?;
        println!(
            "\n$ kubectl describe ysvc ysvc5\n{}",
            first_item(&described)
        );
        doomed.start()?;
        progress.step(&format!("{DOOMED} is back"), |_| {
            self.wait_ready("ysvc5", BACKENDS)
        })?;
        lines.push(format!("{DOOMED} started again: {}", self.ask_ysvc5()?));
        self.show("kubectl get ysvc ysvc5", &["get", "ysvc", "ysvc5"])?;
        println!("\nWho answered the client at ysvc5:");
        for line in lines {
            println!("  {line}");
        }
        Ok(())
    }

    fn ask_ysvc5(&self) -> Result<String> {
        let status = self.ysvc("ysvc5")?["status"].clone();
        let address = status["clusterIP"].as_str().unwrap_or_default();
        let address: IpAddr = address
            .parse()
            .with_context(|| format!("YusurService ysvc5: {address:?} is no address"))?;
        let replies = answers(
            &self.pod("default", "client")?,
            SocketAddr::new(address, 80),
        )?;
        Ok(summary(&replies, &self.vpcs_of_pods()?))
    }
}

/// Out of what `kubectl describe` prints, the first of the backends: one that is not healthy, if there is one.
fn first_item(described: &str) -> String {
    let lines: Vec<&str> = described.lines().collect();
    let Some(start) = lines.iter().position(|line| line.trim() == "Items:") else {
        return described.to_owned();
    };
    let depth = |line: &str| line.len() - line.trim_start().len();
    let field = lines.get(start + 1).map_or(0, |line| depth(line));
    let within = |line: &&&str| depth(line) >= field;
    // Fields are in the order of their names: the next item begins with the first field again.
    let name = |line: &str| line.trim().split(':').next().unwrap_or("").to_owned();
    let first = lines
        .get(start + 1)
        .map_or(String::new(), |line| name(line));
    let mut shown = vec!["  …", lines[start]];
    for (i, line) in lines[start + 1..].iter().take_while(within).enumerate() {
        if i > 0 && name(line) == first {
            break;
        }
        shown.push(line);
    }
    shown.push("  …");
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_first_backend() {
        let described = "Status:\n  Backends:\n    Items:\n      Address:  10.0.1.5\n      Name:     bm-1\n      State:    Unhealthy\n      Address:  10.0.1.6\n      Name:     vm-1\n    Summary:    3/4\n";
        assert_eq!(
            first_item(described),
            "  …\n    Items:\n      Address:  10.0.1.5\n      Name:     bm-1\n      State:    Unhealthy\n  …"
        );
        assert_eq!(first_item("nothing\n"), "nothing\n");
    }
}
