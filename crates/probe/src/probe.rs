//! A probe, checked and ready to be asked, made from what a user wrote.

use std::net::IpAddr;
use std::time::Duration;

use ycloud_api::NetworkProbeSpec;
use ycloud_api::probe::HealthCheck;

use crate::kind::Check;
use crate::kind::https::Trust;

/// What is asked, how, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The target's address.
    pub address: IpAddr,
    /// How it is asked.
    pub check: Check,
    /// How often, and what counts.
    pub timing: Timing,
}

/// How often a target is asked, and how many answers in a row count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From the start of one round to the start of the next, 1 s to 1 h. Default 5 s.
    pub period: Duration,
    /// The one deadline of a round, at most `period`. Default 2 s.
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy target healthy, at least 1. Default 2.
    pub successes: u32,
    /// Failures in a row that make a target unhealthy, at least 1. Default 3.
    pub failures: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            successes: 2,
            failures: 3,
        }
    }
}

/// Why a spec cannot be carried out; a condition of the object that it stands in. Most of this the API server refuses
/// already. Paths are those of a NetworkProbe's spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {value}: {cure}")]
pub struct Invalid {
    /// The field, without `spec.`.
    pub field: String,
    /// What it holds, cut; or what is wrong with it.
    pub value: String,
    /// What to write instead.
    pub cure: &'static str,
}

impl Invalid {
    pub(crate) fn new(field: &str, value: impl std::fmt::Display, cure: &'static str) -> Self {
        Self {
            field: field.to_owned(),
            value: crate::failure::cut(value),
            cure,
        }
    }
}

impl Probe {
    /// The probe that a NetworkProbe asks for. `trust` keeps what equal CA bundles have in common.
    ///
    /// # Errors
    /// [`Invalid`] names field, value and cure.
    pub fn new(spec: &NetworkProbeSpec, trust: &mut Trust) -> Result<Self, Invalid> {
        let target = &spec.target;
        let address = target.ip.parse().map_err(|_| {
            Invalid::new(
                "target.ip",
                &target.ip,
                "write an address, for example 10.0.1.7 or fd00:1::7",
            )
        })?;
        let port = number(target.port, "target.port")?;
        Ok(Self {
            address,
            check: Check::new(&spec.check, port, trust)?,
            timing: Timing::new(&spec.check)?,
        })
    }
}

impl Timing {
    fn new(check: &HealthCheck) -> Result<Self, Invalid> {
        let period = within(check.period_seconds, 5, 3600, "periodSeconds")?;
        let timeout = within(check.timeout_seconds, 2, 300, "timeoutSeconds")?;
        if timeout > period {
            let value = format!("{timeout}, with a periodSeconds of {period}");
            let cure = "must not exceed periodSeconds";
            return Err(Invalid::new("timeoutSeconds", value, cure));
        }
        Ok(Self {
            period: Duration::from_secs(period.into()),
            timeout: Duration::from_secs(timeout.into()),
            successes: within(check.success_threshold, 2, 100, "successThreshold")?,
            failures: within(check.failure_threshold, 3, 100, "failureThreshold")?,
        })
    }
}

fn within(value: Option<i32>, default: u32, most: u32, field: &str) -> Result<u32, Invalid> {
    let Some(value) = value else {
        return Ok(default);
    };
    let number = u32::try_from(value).ok();
    number
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| {
            Invalid::new(
                field,
                value,
                "write a number of 1 or more, within its range",
            )
        })
}

fn number(port: Option<i32>, field: &str) -> Result<Option<u16>, Invalid> {
    let Some(port) = port else {
        return Ok(None);
    };
    match u16::try_from(port) {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(Invalid::new(field, port, "write a port, 1 to 65535")),
    }
}

/// The port of a check: its own, else the target's.
pub(crate) fn port(own: Option<i32>, target: Option<u16>, field: &str) -> Result<u16, Invalid> {
    let cure = "name a port there or in target.port";
    let port = number(own, field)?.or(target);
    port.ok_or_else(|| Invalid::new(field, "none", cure))
}
