//! Conditions on their way to the API server: of each VNic the latest, however long that is away.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::sync::Notify;
use tokio::time::sleep;
use ycloud_client::Heartbeat;

use super::status::{self, Error, Report};
use crate::agent::objects::Key;

/// First and last wait after a write that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// What waits to be written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Reports(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    latest: Mutex<BTreeMap<Key, Report>>,
    news: Notify,
}

impl Reports {
    /// Puts a report in the place of what waits of the same VNic.
    pub fn put(&self, report: Report) {
        let key = (report.namespace.clone(), report.name.clone());
        self.latest().insert(key, report);
        self.0.news.notify_one();
    }

    /// Forgets what waits of the VNics of which `keep` does not hold.
    pub fn retain(&self, keep: impl Fn(&Key) -> bool) {
        self.latest().retain(|key, _| keep(key));
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.latest().len()
    }

    /// Waits for a report, and takes it: in turn, the first one after that of this VNic.
    pub async fn take(&self, after: &Key) -> Report {
        loop {
            if let Some(report) = self.next(after) {
                return report;
            }
            self.0.news.notified().await;
        }
    }

    fn next(&self, after: &Key) -> Option<Report> {
        let mut latest = self.latest();
        let mut later = latest.range((Bound::Excluded(after), Bound::Unbounded));
        let key = later.next().or_else(|| latest.first_key_value());
        let key = key.map(|(key, _)| key.clone())?;
        latest.remove(&key)
    }

    /// Puts back what was not written, unless something newer waits.
    fn restore(&self, report: Report) {
        let key = (report.namespace.clone(), report.name.clone());
        self.latest().entry(key).or_insert(report);
    }

    fn latest(&self) -> MutexGuard<'_, BTreeMap<Key, Report>> {
        let latest = self.0.latest.lock();
        latest.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes conditions to the API server as they are reported, for ever. A pass is a write.
pub async fn write(client: Client, reports: Reports, heartbeat: Heartbeat) {
    let write = |report: Report| {
        let (client, heartbeat) = (client.clone(), heartbeat.clone());
        async move {
            let _pass = heartbeat.pass();
            status::write(&client, &report).await
        }
    };
    write_by(reports, RETRY, write).await;
}

/// Writes by `write`. What fails is tried again after the others, and later each time.
async fn write_by<F>(
    reports: Reports,
    (first, last): (Duration, Duration),
    write: impl Fn(Report) -> F,
) where
    F: Future<Output = Result<(), Error>>,
{
    let (mut after, mut failures) = (Key::default(), 0_u32);
    loop {
        let report = reports.take(&after).await;
        after = (report.namespace.clone(), report.name.clone());
        let Err(error) = write(report.clone()).await else {
            if std::mem::take(&mut failures) > 0 {
                tracing::info!("conditions of VNics are written again");
            }
            continue;
        };
        if failures == 0 {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a VNic does not say how its device is; trying again");
        }
        reports.restore(report);
        sleep((first * 2_u32.pow(failures.min(5))).min(last)).await;
        failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, generation: i64) -> Report {
        let condition = serde_json::json!({
            "type": "Wired", "status": "True", "reason": "Wired", "message": "",
            "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": generation,
        });
        Report {
            namespace: "ns".into(),
            name: name.into(),
            conditions: vec![serde_json::from_value(condition).unwrap()],
        }
    }

    fn text(report: &Report) -> String {
        let generation = report.conditions[0].observed_generation.unwrap();
        format!("{}{generation}", report.name)
    }

    #[tokio::test]
    async fn the_latest_of_each_vnic_is_written_when_the_api_server_is_back() {
        let reports = Reports::default();
        // What was written, and whether the API server takes it.
        let written = Arc::new(Mutex::new((Vec::new(), false)));
        let (writer, of_writer) = (reports.clone(), written.clone());
        let running = tokio::spawn(async move {
            let write = |report: Report| {
                let mut state = of_writer.lock().unwrap();
                let vnic = text(&report);
                state.0.push(vnic.clone());
                let taken = state.1 && report.name != "bad";
                std::future::ready(taken.then_some(()).ok_or(Error::Silent { vnic }))
            };
            let retry = (Duration::from_millis(2), Duration::from_millis(80));
            write_by(writer, retry, write).await;
        });
        for generation in 1..=100 {
            for name in ["a", "bad", "c"] {
                reports.put(report(name, generation));
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert!(reports.waiting() <= 3);
        let attempts = {
            let mut state = written.lock().unwrap();
            state.1 = true;
            std::mem::take(&mut state.0).len()
        };
        assert!(attempts < 30, "{attempts} attempts for 300 reports");
        while reports.waiting() > 1 {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(300)).await;
        let said = written.lock().unwrap().0.clone();
        for name in ["a100", "c100"] {
            let times = said.iter().filter(|said| *said == name).count();
            assert_eq!(times, 1, "{said:?}");
        }
        assert!(said.iter().all(|said| said.ends_with("100")), "{said:?}");
        assert!(said.iter().any(|said| said == "bad100"), "{said:?}");
        running.abort();
        reports.put(report("bad", 100));
        reports.retain(|(_, name)| name != "bad");
        assert_eq!(reports.waiting(), 0);
    }
}
