//! Asks addresses whether they serve, and tells when that changes.
//!
//! ```text
//!  NetworkProbeSpec ──► Probe ──► Handle::set ──► Schedule ──► ask ──► kind/*.rs ──► Sockets ──► the target
//!                      (probe.rs)  (prober.rs)    (pure) ▲      │
//!                                                        └──────┘ Outcome
//!                       Report ◄── on a change, or the heartbeat
//! ```
//!
//! This crate knows no API server and no Open vSwitch: who uses it hands in targets and a way to make sockets, and gets
//! reports. A target's answer is never trusted: each kind reads a bounded number of bytes, all of a round ends at one
//! deadline, and what a target said is escaped and cut before it appears in words.
//!
//! # A new kind of probe
//! A field of [`HealthCheck`](ycloud_api::probe::HealthCheck), a file in `kind/`, a variant of [`Check`].

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod failure;
pub mod health;
pub mod kind;
pub mod probe;
pub mod prober;
pub mod round;
pub mod schedule;
pub mod socket;
mod stream;
pub mod suspicion;

pub use failure::{Failure, Origin};
pub use health::State;
pub use kind::Check;
pub use kind::https::Trust;
pub use probe::{Probe, Timing};
pub use prober::{Handle, Options, Prober};
pub use schedule::{Known, Report, Role, Target};
pub use socket::{Shape, Sockets, Way};
