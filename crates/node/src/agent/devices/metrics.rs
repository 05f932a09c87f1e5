//! What is counted of devices.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use ycloud_api::condition::Verdict;

/// The metrics of [`Devices`](super::Devices). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    wired: Gauge,
    waiting: Gauge,
    failed: Gauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let gauges = [
            (
                "ycloud_cni_devices_wired",
                "Devices of VNics that are on the integration bridge",
                &metrics.wired,
            ),
            (
                "ycloud_cni_devices_waiting",
                "Devices of VNics that wait for Open vSwitch or OVN",
                &metrics.waiting,
            ),
            (
                "ycloud_cni_devices_failed",
                "Devices of VNics that are not there, are refused or cannot be set up; the VNic's condition Wired says why",
                &metrics.failed,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        metrics
    }

    /// Sets them to what is said of the VNics of the chassis.
    pub(super) fn observe<'a>(&self, verdicts: impl Iterator<Item = &'a Verdict>) {
        let (mut wired, mut waiting, mut failed) = (0, 0, 0);
        for verdict in verdicts {
            match verdict.status {
                Some(true) => wired += 1,
                Some(false) => failed += 1,
                None => waiting += 1,
            }
        }
        self.wired.set(wired);
        self.waiting.set(waiting);
        self.failed.set(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_one_of_three() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let verdicts = [
            Verdict::yes("Wired", "yes"),
            Verdict::yes("Wired", "yes"),
            Verdict::no("NotFound", "no"),
            Verdict::unknown("Pending", "who knows"),
        ];
        metrics.observe(verdicts.iter());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in ["wired 2", "waiting 1", "failed 1"] {
            assert!(
                text.contains(&format!("ycloud_cni_devices_{line}")),
                "{text}"
            );
        }
        metrics.observe(verdicts.iter().take(1));
        assert_eq!((metrics.wired.get(), metrics.failed.get()), (1, 0));
    }
}
