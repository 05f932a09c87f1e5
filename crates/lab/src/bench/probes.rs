//! `cargo lab bench --probes`: in which time each kind of probe finds each failure of each kind of backend, and its end.
//!
//! One YusurService for each kind of probe, all over the same four backends. What fails, fails for all of them at once:
//!
//! ```text
//!  strike ──► NetworkProbe Unhealthy ──► endpoint not ready ──► no client meets it      mend ──► endpoint ready
//!    └── noticed ──────┘                       │                      │                  └─ back ─────┘
//!    └── left ─────────────────────────────────┘                      │
//!    └── met ─────────────────────────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

use self::matrix::{Behind, Failure, named, strikes};
use self::scene::{Placement, VPC, yaml};
use self::table::{Figures, Spell};
use self::watch::{Cell, Watch, What};
use super::NAMESPACE;
use crate::ask::{Attempts, Protocol, Stream};
use crate::command::{run, succeeds, wait_until};
use crate::lab::Lab;
use crate::place::Place;
use crate::progress::Progress;
use crate::server::{self, Check, Order};

mod matrix;
mod scene;
mod table;
mod watch;

/// Between two questions of a client to each YusurService.
const PACE: Duration = Duration::from_millis(250);
/// How long is waited for what should happen within the bound.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long clients go on asking once all have left.
const AFTER: Duration = Duration::from_secs(1);

/// All that is measured, while it is there.
struct Stage<'a> {
    lab: &'a Lab,
    watch: Watch,
    client: Place,
    pod: Place,
    addresses: BTreeMap<Behind, IpAddr>,
    /// The cluster addresses of the YusurServices.
    services: Vec<(Check, SocketAddr)>,
    interrupted: Arc<AtomicBool>,
}

impl Lab {
    /// Measures, on a lab with ycloud installed, how long it takes until each kind of probe has found each failure of each kind of
    /// backend, and its end; `rounds` times each, and only failures with `part` in their names. Prints a table in Markdown. Removes
    /// what it made, also when it is interrupted.
    ///
    /// # Errors
    /// When no failure has such a name, the lab is not up, something does not work at first or does not come back, or it is interrupted.
    pub fn bench_probes(&self, rounds: u32, part: &str) -> Result<()> {
        let interrupted = hold_signals()?;
        let progress = Progress::new();
        let placement = self.placement()?;
        let strikes = named(strikes(placement.node), part)?;
        self.clear_probes(&progress)?;
        let mut figures = Figures::default();
        let measured = self
            .stage(placement, interrupted, &progress)
            .and_then(|stage| {
                for round in 1..=rounds {
                    for (failure, whose) in &strikes {
                        let names: Vec<&str> = whose.iter().map(|behind| behind.name()).collect();
                        let what =
                            format!("{failure}, {}; round {round} of {rounds}", names.join(", "));
                        progress.step(&what, |_| stage.measure(*failure, whose, &mut figures))?;
                    }
                }
                Ok(())
            });
        let cleared = self.clear_probes(&progress);
        println!("{}", figures.table());
        measured.and(cleared)
    }

    fn stage(
        &self,
        placement: Placement,
        interrupted: Arc<AtomicBool>,
        progress: &Progress,
    ) -> Result<Stage<'_>> {
        run(&mut self.kubectl(["create", "namespace", NAMESPACE])?)?;
        // Pods are refused before it is there.
        let account = ["-n", NAMESPACE, "get", "serviceaccount", "default"];
        wait_until(PATIENCE, Duration::from_millis(200), || {
            Ok(succeeds(&mut self.kubectl(account)?))
        })?;
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let file = folder.path().join("scene.yaml");
        fs::write(&file, yaml(placement, &server::authority()?)?)?;
        run(self.kubectl(["apply", "-f"])?.arg(&file))?;
        for behind in [Behind::Server, Behind::Address, Behind::Vm] {
            self.backend(NAMESPACE, behind.name())?.start()?;
        }
        progress.step("the Pods run", |_| {
            let wait = ["-n", NAMESPACE, "wait", "--timeout=120s"];
            let ready = ["--for=condition=Ready", "pods", "--all"];
            run(&mut self.kubectl([&wait[..], &ready].concat())?)
        })?;
        let addresses = self.addresses()?;
        let by_address = addresses
            .iter()
            .map(|(behind, ip)| (ip.to_string(), *behind));
        let stage = Stage {
            lab: self,
            watch: Watch::start(self, by_address.collect())?,
            client: self.pod(NAMESPACE, "client")?,
            pod: self.pod(NAMESPACE, Behind::Pod.name())?,
            addresses,
            services: self.services_of_checks()?,
            interrupted,
        };
        progress.step("all backends are healthy", |_| stage.all_well())?;
        Ok(stage)
    }

    fn clear_probes(&self, progress: &Progress) -> Result<()> {
        progress.step("clearing", |_| {
            for behind in [Behind::Server, Behind::Address, Behind::Vm] {
                let words = [
                    "-n",
                    NAMESPACE,
                    "get",
                    "vnic",
                    behind.name(),
                    "--ignore-not-found",
                ];
                if !run(&mut self.kubectl(words)?)?.is_empty() {
                    self.backend(NAMESPACE, behind.name())?.remove()?;
                }
            }
            for kind in ["namespace", "subnet", "vpc"] {
                let name = if kind == "namespace" { NAMESPACE } else { VPC };
                let words = ["delete", kind, name, "--ignore-not-found", "--timeout=120s"];
                run(&mut self.kubectl(words)?)?;
            }
            Ok(())
        })
    }
}

impl Stage<'_> {
    /// Lets something fail and mends it, and adds what that took.
    fn measure(&self, failure: Failure, whose: &[Behind], figures: &mut Figures) -> Result<()> {
        self.all_well()?;
        let cells: Vec<Cell> = Check::ALL
            .into_iter()
            .filter(|check| failure.concerns(*check))
            .flat_map(|check| whose.iter().map(move |behind| (check, *behind)))
            .collect();
        let streams = self.services.iter();
        let streams: Vec<Stream> = streams
            .map(|(_, to)| Stream::start(&self.client, Protocol::Tcp, *to, PACE))
            .collect();
        thread::sleep(AFTER);
        let began: Vec<Duration> = streams.iter().map(Stream::elapsed).collect();
        let struck = Instant::now();
        let left = self
            .set(failure, whose, true)
            .and_then(|()| self.wait_for(&cells, false));
        if left.is_ok() {
            thread::sleep(AFTER);
            figures.strangers.extend(self.strangers(failure, &cells));
        }
        let attempts = streams.into_iter().map(Stream::finish);
        let asked: BTreeMap<Check, (Attempts, Duration)> = self
            .services
            .iter()
            .zip(attempts.zip(began))
            .map(|((check, _), asked)| (*check, asked))
            .collect();
        let spells = cells.iter().map(|cell| {
            let took = |what| Some(self.watch.since(*cell, what, false, struck)? - struck);
            Spell {
                noticed: took(What::Probe),
                left: took(What::Endpoint),
                met: asked
                    .get(&cell.0)
                    .map_or(Duration::ZERO, |asked| last_met(asked, cell.1)),
                back: None,
            }
        });
        let spells: Vec<Spell> = spells.collect();
        self.set(failure, whose, false)
            .with_context(|| format!("failed to mend: {failure}"))?;
        let mended = Instant::now();
        left?;
        self.wait_for(&cells, true)?;
        for (cell, mut spell) in cells.into_iter().zip(spells) {
            let at = self.watch.since(cell, What::Endpoint, true, struck);
            spell.back = at.map(|at| at.saturating_duration_since(mended));
            figures.add(failure, cell, spell);
        }
        Ok(())
    }

    /// Lets it fail, or mends it.
    fn set(&self, failure: Failure, whose: &[Behind], fails: bool) -> Result<()> {
        if let Failure::Chassis(machine) = failure {
            return match fails {
                true => self.lab.isolate(machine),
                false => self.lab.rejoin(machine),
            };
        }
        for behind in whose {
            let backend = || self.lab.backend(NAMESPACE, behind.name());
            match (failure, behind) {
                (Failure::Told(order), _) => {
                    let order = if fails { order } else { Order::Well };
                    server::tell(&self.client, self.addresses[behind], order)?;
                }
                (Failure::Cable, Behind::Pod) => self.pod.set_cable(!fails)?,
                (Failure::Cable, _) => backend()?.set_cable(!fails)?,
                (_, _) if fails => backend()?.stop()?,
                (_, _) => backend()?.start()?,
            }
        }
        Ok(())
    }

    /// Waits until all endpoints and NetworkProbes are as they should be.
    fn all_well(&self) -> Result<()> {
        let cells = Check::ALL.into_iter();
        let cells = cells.flat_map(|check| Behind::ALL.map(|behind| (check, behind)));
        let cells: Vec<Cell> = cells.collect();
        self.wait_for(&cells, true)?;
        match cells.iter().find(|cell| !self.is(**cell, true)) {
            None => Ok(()),
            Some((check, behind)) => bail!(
                "{} is not healthy by {check} after {PATIENCE:?}; kubectl -n {NAMESPACE} get networkprobes -o wide says why",
                behind.name()
            ),
        }
    }

    /// Waits until all of these have left, or returned, or patience is over.
    fn wait_for(&self, cells: &[Cell], healthy: bool) -> Result<()> {
        wait_until(PATIENCE, Duration::from_millis(20), || {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            Ok(cells.iter().all(|cell| self.is(*cell, healthy)))
        })?;
        Ok(())
    }

    fn is(&self, cell: Cell, healthy: bool) -> bool {
        let state = |what| self.watch.now(cell, what) == Some(healthy);
        state(What::Probe) && state(What::Endpoint)
    }

    /// Whose endpoints left with these.
    fn strangers(&self, failure: Failure, cells: &[Cell]) -> Vec<String> {
        let all = Check::ALL.into_iter();
        let all = all.flat_map(|check| Behind::ALL.map(|behind| (check, behind)));
        all.filter(|cell| !cells.contains(cell))
            .filter(|cell| self.watch.now(*cell, What::Endpoint) == Some(false))
            .map(|(check, behind)| format!("{failure}: {} left by {check} too", behind.name()))
            .collect()
    }
}

/// How long after `began` the last question began that this backend answered, or nobody.
fn last_met((attempts, began): &(Attempts, Duration), behind: Behind) -> Duration {
    let answers = attempts.0.iter().filter(|attempt| {
        let reply = attempt.result.as_ref();
        reply.is_ok_and(|reply| reply.backend == behind.name())
    });
    let signs = answers.chain(attempts.failures());
    let last = signs.map(|attempt| attempt.at).max().unwrap_or_default();
    last.saturating_sub(*began)
}

/// From now on an interrupt only sets what is returned, so that all is mended and cleared first.
fn hold_signals() -> Result<Arc<AtomicBool>> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // Before there is a thread that would not hold them back. What is started from here on gets them as ever.
    signals
        .thread_block()
        .context("failed to hold signals back")?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    thread::spawn(move || {
        while signals.wait().is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    Ok(interrupted)
}
