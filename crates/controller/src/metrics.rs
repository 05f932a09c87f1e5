//! What `/metrics` of ycloud-controller shows.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use ycloud_api::address;
use ycloud_api::subnet::Addresses;

/// Label of the queue gauge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabels {
    /// `rows`: owners whose rows are to be compared; `objects`: objects whose status is.
    pub queue: Word,
}

/// Label of counters by outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How it ended, lower case.
    pub outcome: Word,
}

/// Labels of writes to the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Kind of object.
    pub kind: Word,
    /// How it ended, lower case.
    pub outcome: Word,
}

/// Labels of address counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AddressLabels {
    /// Name of the Subnet.
    pub subnet: String,
    /// `IPv4` or `IPv6`.
    pub family: Word,
    /// `used` or `free`.
    pub state: Word,
}

/// A label value that is known when the program is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

/// A gauge that is shown while there is something to tell. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<i64>>>);

impl Told {
    fn set(&self, value: Option<i64>) {
        *self.value() = value;
    }

    fn value(&self) -> MutexGuard<'_, Option<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Told {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        match *self.value() {
            Some(value) => encoder.encode_gauge(&value),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.value().is_none()
    }
}

/// All figures. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Not shown while this replica stands by: what waits there waits for it to lead.
    queue: Family<QueueLabels, Gauge>,
    /// Seconds from taking owners off the queue to having their operations.
    pub compile: Histogram,
    /// Seconds from sending a transaction to its outcome.
    pub transaction: Histogram,
    transactions: Family<OutcomeLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    addresses: Family<AddressLabels, Gauge>,
    /// Rows of the Northbound database that belong to ycloud.
    pub owned_rows: Gauge,
    /// Objects that are refused.
    pub refused: Gauge,
    /// Owners whose rows the Northbound database refuses.
    pub failing: Gauge,
    nb_cfg: Told,
    reached: Told,
    unprogrammed: Told,
    /// Chassis that ask NetworkProbes.
    pub probers: Gauge,
    /// Seconds from taking the lead to the first comparison of everything.
    pub first_pass: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Makes the figures and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        let metrics = Self {
            queue: Family::default(),
            compile: seconds(),
            transaction: seconds(),
            transactions: Family::default(),
            writes: Family::default(),
            addresses: Family::default(),
            owned_rows: Gauge::default(),
            refused: Gauge::default(),
            failing: Gauge::default(),
            nb_cfg: Told::default(),
            reached: Told::default(),
            unprogrammed: Told::default(),
            probers: Gauge::default(),
            first_pass: Gauge::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "queue_length",
            "Owners or objects that wait; of the leader",
            self.queue.clone(),
        );
        registry.register(
            "compile_seconds",
            "Time from a batch of owners to its operations",
            self.compile.clone(),
        );
        registry.register(
            "transaction_seconds",
            "Time of a transaction of the Northbound database",
            self.transaction.clone(),
        );
        registry.register(
            "transactions",
            "Transactions of the Northbound database",
            self.transactions.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the API server",
            self.writes.clone(),
        );
        registry.register(
            "subnet_addresses",
            "Addresses of each Subnet; those that are free only where they can run out",
            self.addresses.clone(),
        );
        registry.register(
            "owned_rows",
            "Rows of the Northbound database that belong to ycloud",
            self.owned_rows.clone(),
        );
        registry.register(
            "refused_objects",
            "Objects that are refused",
            self.refused.clone(),
        );
        registry.register(
            "failing_owners",
            "Owners whose rows the Northbound database refuses",
            self.failing.clone(),
        );
        registry.register(
            "nb_cfg",
            "NB_Global:nb_cfg; of the leader",
            self.nb_cfg.clone(),
        );
        registry.register(
            "chassis_nb_cfg",
            "Lowest Chassis_Private:nb_cfg of the living chassis, if one lives; of the leader",
            self.reached.clone(),
        );
        registry.register(
            "unprogrammed_services",
            "Services whose rows wait for chassis; of the leader",
            self.unprogrammed.clone(),
        );
        registry.register(
            "probers",
            "Chassis that ask NetworkProbes",
            self.probers.clone(),
        );
        registry.register(
            "first_pass_seconds",
            "Time from taking the lead to the first comparison of everything",
            self.first_pass.clone(),
        );
    }

    /// Shows what only who leads can say: a standby compares nothing, and its figures would look like a fault. `nb_cfg` is
    /// `NB_Global`'s, `reached` the lowest one of the living chassis, `unprogrammed` the number of Services whose rows wait for chassis.
    pub fn progress(&self, nb_cfg: i64, reached: Option<i64>, unprogrammed: usize) {
        self.nb_cfg.set(Some(nb_cfg));
        self.reached.set(reached);
        self.unprogrammed.set(Some(count(unprogrammed)));
    }

    /// Sets the length of a queue.
    pub fn queue_length(&self, queue: &'static str, length: usize) {
        let labels = QueueLabels { queue: Word(queue) };
        self.queue.get_or_create(&labels).set(count(length));
    }

    /// Counts a transaction.
    pub fn transaction_ended(&self, outcome: &'static str) {
        let labels = OutcomeLabels {
            outcome: Word(outcome),
        };
        self.transactions.get_or_create(&labels).inc();
    }

    /// Counts a write to the API server.
    pub fn write_ended(&self, kind: &'static str, outcome: &'static str) {
        let labels = WriteLabels {
            kind: Word(kind),
            outcome: Word(outcome),
        };
        self.writes.get_or_create(&labels).inc();
    }

    /// Sets the address counts of a Subnet in a family; `None`: there is no such Subnet, or it has no range of it. Where more are free
    /// than are told ([`Addresses`]), there is no such figure.
    pub fn subnet_addresses(
        &self,
        subnet: &str,
        family: address::Family,
        counts: Option<Addresses>,
    ) {
        let labels = |state| AddressLabels {
            subnet: subnet.to_owned(),
            family: Word(family.name()),
            state: Word(state),
        };
        let used = counts.map(|counts| counts.used);
        let free = counts.and_then(|counts| counts.free);
        for (state, count) in [("used", used), ("free", free)] {
            match count {
                Some(count) => {
                    self.addresses.get_or_create(&labels(state)).set(count);
                }
                None => {
                    self.addresses.remove(&labels(state));
                }
            }
        }
    }
}

/// A length as a gauge has it.
pub fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use ycloud_api::subnet::Addresses;

    #[test]
    fn a_standby_shows_no_queue_and_no_numbers_of_chassis() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let figures = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let of_leader = |line: &&str| {
                let names = [
                    "queue_length",
                    "nb_cfg",
                    "chassis_nb_cfg",
                    "unprogrammed_services",
                ];
                let name = line.split(['{', ' ']).next();
                name.is_some_and(|name| names.contains(&name))
            };
            lines
                .filter(of_leader)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(figures(), [""; 0]);
        metrics.queue_length("rows", 0);
        metrics.progress(7, Some(6), 2);
        let expected = [
            "queue_length{queue=\"rows\"} 0",
            "nb_cfg 7",
            "chassis_nb_cfg 6",
            "unprogrammed_services 2",
        ];
        assert_eq!(figures(), expected);
        // No chassis lives: there is no number that could be the lowest.
        metrics.progress(7, None, 2);
        assert!(!figures().iter().any(|line| line.starts_with("chassis")));
    }

    #[test]
    fn figures_are_shown_and_those_of_a_deleted_subnet_are_not() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.queue_length("rows", 3);
        metrics.transaction_ended("committed");
        let counts = Addresses::new(3, 250);
        metrics.subnet_addresses("s1", address::Family::Ipv6, Some(counts));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let before = text();
        assert!(
            before.contains("queue_length{queue=\"rows\"} 3"),
            "{before}"
        );
        assert!(before.contains("transactions_total{outcome=\"committed\"} 1"));
        assert!(
            before.contains("subnet_addresses{subnet=\"s1\",family=\"IPv6\",state=\"free\"} 250")
        );
        let endless = Addresses::new(3, (1 << 64) - 4);
        metrics.subnet_addresses("s1", address::Family::Ipv6, Some(endless));
        let endless = text();
        assert!(endless.contains("state=\"used\"} 3") && !endless.contains("state=\"free\""));
        metrics.subnet_addresses("s1", address::Family::Ipv6, None);
        assert!(!text().contains("s1"));
    }
}
