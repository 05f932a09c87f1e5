//! Condition types, reasons, and how a condition is set without losing its transition time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The spec is valid and the named objects permit it.
pub const ACCEPTED: &str = "Accepted";
/// The same on Services and Pods, with the group in front, since these kinds are not ours: what ycloud-controller has against one.
pub const OURS_ACCEPTED: &str = "iaas.yusur.io/Accepted";
/// On a Service: fields of its spec that have no effect, as its EIP looks past them, or it gets none; the message names them.
pub const OURS_IGNORED: &str = "iaas.yusur.io/FieldsIgnored";
/// Every selector was resolved to backends; False where there are none.
pub const BACKENDS_RESOLVED: &str = "BackendsResolved";
/// Every living hypervisor has the state in its flow tables.
pub const PROGRAMMED: &str = "Programmed";
/// The object does what its spec asks: accepted, programmed, and (for a service) at least one healthy backend.
pub const READY: &str = "Ready";
/// A deletion waits for the users named in the message.
pub const IN_USE: &str = "InUse";

/// EndpointSlices that the message names are of somebody else's making, and nobody is sent to their endpoints. Missing
/// while there are none.
pub const FOREIGN_ENDPOINTS: &str = "ForeignEndpoints";

/// A VNic's device is on the integration bridge of its chassis.
pub const WIRED: &str = "Wired";

/// Condition reasons: machine-readable, CamelCase, stable.
pub mod reason {
    /// The spec is valid.
    pub const ACCEPTED: &str = "Accepted";
    /// A field's value is invalid; the message names field, value and cure.
    pub const INVALID: &str = "Invalid";
    /// An object that the spec names does not exist.
    pub const NOT_FOUND: &str = "NotFound";
    /// The feature is known but this release cannot do it.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// A Vpc does not permit this namespace.
    pub const NOT_PERMITTED: &str = "NotPermitted";
    /// A range overlaps another one.
    pub const OVERLAPS: &str = "Overlaps";
    /// The address is in use by another object.
    pub const ADDRESS_TAKEN: &str = "AddressTaken";
    /// The address lies outside the subnet, or is its gateway or excluded.
    pub const ADDRESS_NOT_IN_SUBNET: &str = "AddressNotInSubnet";
    /// The subnet or EipGateway has no free address.
    pub const EXHAUSTED: &str = "AddressesExhausted";
    /// The API server refused an object made for this one.
    pub const REFUSED: &str = "Refused";
    /// An object of the same name exists and belongs to somebody else.
    pub const CONFLICT: &str = "Conflict";
    /// Backends were found.
    pub const RESOLVED: &str = "Resolved";
    /// The selector matches nothing.
    pub const NO_BACKENDS: &str = "NoBackends";
    /// The hypervisors have not caught up.
    pub const PENDING: &str = "Pending";
    /// The hypervisors have it.
    pub const PROGRAMMED: &str = "Programmed";
    /// All is well.
    pub const READY: &str = "Ready";
    /// No node can carry the gateway.
    pub const NO_NODES: &str = "NoNodes";
    /// The EIPs and Vpcs of a Service hang on different EipGateways.
    pub const OTHER_GATEWAY: &str = "OtherGateway";
    /// The chassis has no such device.
    pub const DEVICE_NOT_FOUND: &str = "DeviceNotFound";
    /// An older VNic has the device, or the device is in use for something else.
    pub const DEVICE_TAKEN: &str = "DeviceTaken";
    /// The device is on the integration bridge.
    pub const WIRED: &str = "Wired";
    /// No living chassis can ask the target.
    pub const NO_PROBER: &str = "NoProber";
    /// What the message names is looked past.
    pub const IGNORED: &str = "Ignored";
    /// Still used by the objects named in the message.
    pub const IN_USE: &str = "InUse";
    /// It, or what it is to be in, is being deleted, and takes no newcomers.
    pub const DELETING: &str = "Deleting";
}

/// What a condition shall say. The transition time is worked out by [`set`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `True` or `False`; `None` is `Unknown`.
    pub status: Option<bool>,
    /// One of [`reason`].
    pub reason: &'static str,
    /// For people: what is wrong, where, and the cure. At most 32,768 bytes (apimachinery's limit).
    pub message: String,
}

impl Verdict {
    /// A condition that holds.
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Some(true),
            reason,
            message: message.into(),
        }
    }

    /// A condition that does not hold.
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Some(false),
            reason,
            message: message.into(),
        }
    }

    /// A condition of which nothing is known.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: None,
            reason,
            message: message.into(),
        }
    }

    fn status_text(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Sets condition `kind` to `verdict`; `now` becomes its transition time only when the status changes, so that
/// writing the same verdict again leaves `conditions` untouched.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    now: &Time,
) {
    let status = verdict.status_text();
    let message = verdict.message.chars().take(32_768).collect();
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(c) => {
            if c.status != status {
                c.last_transition_time = now.clone();
            }
            c.status = status.into();
            c.reason = verdict.reason.into();
            c.message = message;
            c.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: kind.into(),
            status: status.into(),
            reason: verdict.reason.into(),
            message,
            observed_generation: generation,
            last_transition_time: now.clone(),
        }),
    }
}

/// Whether condition `kind` is `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == kind && c.status == "True")
}
