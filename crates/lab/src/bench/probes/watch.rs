//! When which NetworkProbe and which endpoint changed, as watches of the API server tell it.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Deserializer, Value};

use super::matrix::Behind;
use crate::bench::NAMESPACE;
use crate::lab::Lab;
use crate::server::Check;

/// A backend as one kind of probe asks it: one NetworkProbe, and one endpoint of one YusurService.
pub type Cell = (Check, Behind);

/// Whose state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// `NetworkProbe.status.state`: Healthy, Unhealthy; Unknown is neither.
    Probe,
    /// The endpoint's `ready`.
    Endpoint,
}

/// Since when, and what; `None`: not known.
type Change = (Instant, Option<bool>);

/// All changes of the cells' states, in their order.
#[derive(Debug, Default)]
struct History(BTreeMap<(Cell, What), Vec<Change>>);

/// Two watches, until dropped.
#[derive(Debug)]
pub struct Watch {
    history: Arc<Mutex<History>>,
    stop: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Child>>>,
}

impl Watch {
    /// Starts them. `addresses` says whose endpoint is whose.
    pub fn start(lab: &Lab, addresses: BTreeMap<String, Behind>) -> Result<Self> {
        let watch = Self {
            history: Arc::default(),
            stop: Arc::default(),
            children: Arc::default(),
        };
        watch.follow(lab, "networkprobes", |object| {
            probe(object).into_iter().collect()
        })?;
        watch.follow(lab, "endpointslices", move |object| {
            endpoints(object, &addresses)
        })?;
        Ok(watch)
    }

    /// A watch ends when the API server says so, after half an hour or more: then it is begun again.
    fn follow(
        &self,
        lab: &Lab,
        kind: &str,
        read: impl Fn(&Value) -> Vec<(Cell, What, Option<bool>)> + Send + 'static,
    ) -> Result<()> {
        let words = ["-n", NAMESPACE, "get", kind, "--watch", "-o", "json"];
        let mut kubectl = lab.kubectl(words)?;
        let (history, stop) = (Arc::clone(&self.history), Arc::clone(&self.stop));
        let children = Arc::clone(&self.children);
        let mut child = spawn(&mut kubectl)?;
        thread::spawn(move || {
            loop {
                let Some(output) = child.stdout.take() else {
                    return;
                };
                locked(&children).push(child);
                for object in Deserializer::from_reader(BufReader::new(output)).into_iter::<Value>()
                {
                    let Ok(object) = object else { break };
                    let now = Instant::now();
                    for (cell, what, state) in read(&object) {
                        locked(&history).note(cell, what, state, now);
                    }
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                child = match spawn(&mut kubectl) {
                    Ok(child) => child,
                    Err(_) => return,
                };
            }
        });
        Ok(())
    }

    /// The state of a cell now; `None` while it is neither or not known.
    pub fn now(&self, cell: Cell, what: What) -> Option<bool> {
        locked(&self.history).now(cell, what)
    }

    /// When a cell got into this state, and has stayed in it to this day, if that was `after`.
    pub fn since(&self, cell: Cell, what: What, state: bool, after: Instant) -> Option<Instant> {
        locked(&self.history).since(cell, what, state, after)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for child in locked(&self.children).iter_mut() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl History {
    fn note(&mut self, cell: Cell, what: What, state: Option<bool>, at: Instant) {
        let changes = self.0.entry((cell, what)).or_default();
        if changes.last().is_none_or(|(_, last)| *last != state) {
            changes.push((at, state));
        }
    }

    fn now(&self, cell: Cell, what: What) -> Option<bool> {
        self.0.get(&(cell, what))?.last()?.1
    }

    fn since(&self, cell: Cell, what: What, state: bool, after: Instant) -> Option<Instant> {
        let (at, last) = self.0.get(&(cell, what))?.last()?;
        (*last == Some(state) && *at >= after).then_some(*at)
    }
}

fn spawn(kubectl: &mut Command) -> Result<Child> {
    kubectl
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("failed to start kubectl")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn probe(object: &Value) -> Option<(Cell, What, Option<bool>)> {
    let spec = &object["spec"];
    let behind = Behind::of(spec["target"]["name"].as_str()?)?;
    let check = Check::ALL
        .into_iter()
        .find(|check| !spec[check.to_string()].is_null())?;
    let state = match object["status"]["state"].as_str() {
        Some("Healthy") => Some(true),
        Some("Unhealthy") => Some(false),
        _ => None,
    };
    Some(((check, behind), What::Probe, state))
}

fn endpoints(
    slice: &Value,
    addresses: &BTreeMap<String, Behind>,
) -> Vec<(Cell, What, Option<bool>)> {
    let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str();
    let Some(check) = Check::ALL
        .into_iter()
        .find(|check| service == Some(check.to_string().as_str()))
    else {
        return Vec::new();
    };
    let all = slice["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
    let ready: Vec<Behind> = all
        .iter()
        .filter(|endpoint| endpoint["conditions"]["ready"] != false)
        .filter_map(|endpoint| addresses.get(endpoint["addresses"][0].as_str()?).copied())
        .collect();
    let state = |behind| {
        (
            (check, behind),
            What::Endpoint,
            Some(ready.contains(&behind)),
        )
    };
    Behind::ALL.map(state).to_vec()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_that_is_not_there_is_not_ready() {
        let addresses = BTreeMap::from([
            ("10.0.1.2".to_owned(), Behind::Pod),
            ("10.0.1.3".to_owned(), Behind::Vm),
        ]);
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "grpc"}},
            "endpoints": [
                {"addresses": ["10.0.1.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.1.3"], "conditions": {"ready": false}},
            ],
        });
        let found = endpoints(&slice, &addresses);
        let expected = [true, false, false, false];
        for (state, (behind, ready)) in found.iter().zip(Behind::ALL.into_iter().zip(expected)) {
            assert_eq!(*state, ((Check::Grpc, behind), What::Endpoint, Some(ready)));
        }
        assert_eq!(endpoints(&json!({}), &addresses), []);
    }

    #[test]
    fn a_probe_is_known_by_its_check_and_target() {
        let object = json!({
            "spec": {"target": {"name": "bm"}, "https": {"port": 1}},
            "status": {"state": "Unhealthy"},
        });
        let cell = (Check::Https, Behind::Server);
        assert_eq!(probe(&object), Some((cell, What::Probe, Some(false))));
    }

    #[test]
    fn the_time_that_counts_is_that_of_the_last_change() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (cell, what) = ((Check::Tcp, Behind::Pod), What::Probe);
        for (seconds, state) in [(0, true), (1, false), (2, false), (3, true), (4, false)] {
            history.note(cell, what, Some(state), at(seconds));
        }
        assert_eq!(history.now(cell, what), Some(false));
        assert_eq!(history.since(cell, what, false, at(2)), Some(at(4)));
        assert_eq!(history.since(cell, what, false, at(5)), None);
        assert_eq!(history.since(cell, what, true, at(0)), None);
    }
}
