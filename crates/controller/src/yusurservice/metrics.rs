//! What `/metrics` of yusurservice-controller shows.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// `done`, `refused` or `failed`.
    pub outcome: String,
}

/// All figures. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// YusurServices that wait to be reconciled.
    pub queue: Gauge,
    /// YusurServices that exist.
    pub services: Gauge,
    /// Reconciles by outcome.
    pub reconciles: Family<Ended, Counter>,
    /// Seconds from taking a YusurService off the queue to the last answer of the API server.
    pub duration: Histogram,
    /// Services, EndpointSlices and NetworkProbes written.
    pub writes: Counter,
}

impl Metrics {
    /// Registers all figures.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            queue: Gauge::default(),
            services: Gauge::default(),
            reconciles: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            writes: Counter::default(),
        };
        registry.register(
            "queue_length",
            "YusurServices that wait to be reconciled",
            metrics.queue.clone(),
        );
        registry.register(
            "yusurservices",
            "YusurServices that exist",
            metrics.services.clone(),
        );
        registry.register(
            "reconciles",
            "Reconciles by outcome",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "Time of one reconcile with its writes",
            metrics.duration.clone(),
        );
        registry.register(
            "api_writes",
            "Services, EndpointSlices and NetworkProbes written",
            metrics.writes.clone(),
        );
        metrics
    }

    /// Counts one reconcile.
    pub fn ended(&self, outcome: &str) {
        let outcome = outcome.to_owned();
        self.reconciles.get_or_create(&Ended { outcome }).inc();
    }
}
