//! What the prober counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Prober;

/// The prober's metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    targets: Gauge,
    running: Gauge,
    devices: Gauge,
    waiting: Gauge,
    able: Gauge,
    succeeded: Counter,
    failed: Counter,
    late: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let gauges = [
            (
                "ycloud_cni_prober_targets",
                "Addresses that this node asks: NetworkProbes, and a router for each of their Vpcs and families",
                &metrics.targets,
            ),
            (
                "ycloud_cni_prober_running",
                "Rounds of probes that run now",
                &metrics.running,
            ),
            (
                "ycloud_cni_prober_devices",
                "Vpcs from inside which this node asks",
                &metrics.devices,
            ),
            (
                "ycloud_cni_prober_reports_waiting",
                "Reports that are not in the API server yet",
                &metrics.waiting,
            ),
            (
                "ycloud_cni_prober_able",
                "Whether this node can ask NetworkProbes, and so renews its prober's Lease",
                &metrics.able,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters = [
            (
                "ycloud_cni_prober_succeeded",
                "Rounds that succeeded",
                &metrics.succeeded,
            ),
            (
                "ycloud_cni_prober_failed",
                "Rounds that failed",
                &metrics.failed,
            ),
            (
                "ycloud_cni_prober_late",
                "Rounds that started more than a second after they were due: too few sockets, or too little processor",
                &metrics.late,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        metrics
    }

    /// Sets them to what is now.
    pub fn observe(&self, prober: &Prober) {
        let (figures, progress) = (prober.figures(), prober.progress());
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.targets.set(gauge(figures.targets));
        self.running.set(gauge(figures.running));
        self.devices.set(count(progress.devices));
        self.waiting.set(count(progress.waiting));
        self.able.set(progress.able.into());
        for (counter, now) in [
            (&self.succeeded, figures.succeeded),
            (&self.failed, figures.failed),
            (&self.late, figures.late),
        ] {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}
