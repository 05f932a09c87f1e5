//! What is counted of flushes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of [`CtFlush`](super::CtFlush). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Conversations with Open vSwitch in which connections were flushed.
    pub flushes: Counter,
    /// Requests in them: each makes Open vSwitch look through all connections.
    pub requests: Counter,
    /// Pairs of an address and a backend that they were for; each pair comes at least twice.
    pub pairs: Counter,
    /// Conversations that came to nothing, and requests that Open vSwitch refused.
    pub failed: Counter,
    /// TCP connections that were ended at their clients' sockets.
    pub ended: Counter,
    /// Pairs that are gone and wait to be flushed.
    pub waiting: Gauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let counters = [
            (
                "ycloud_cni_ct_flushes",
                "Times that connections of backends that are gone were flushed",
                &metrics.flushes,
            ),
            (
                "ycloud_cni_ct_flush_requests",
                "Requests to Open vSwitch in them, each of which looks through all connections",
                &metrics.requests,
            ),
            (
                "ycloud_cni_ct_flush_pairs",
                "Pairs of an address and a backend whose connections were flushed, each of which comes at least twice",
                &metrics.pairs,
            ),
            (
                "ycloud_cni_ct_flush_failed",
                "Flushes that Open vSwitch did not take, and requests that it refused",
                &metrics.failed,
            ),
            (
                "ycloud_cni_ct_flush_ended",
                "TCP connections to backends that are gone that were ended at the sockets of Pods or of the node",
                &metrics.ended,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "ycloud_cni_ct_flush_waiting",
            "Pairs of an address and a backend that are gone, whose connections are still to be flushed",
            metrics.waiting.clone(),
        );
        metrics
    }
}
