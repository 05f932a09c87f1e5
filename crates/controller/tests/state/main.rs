//! The state of ycloud-controller, over a real ovsdb-server with the Northbound schema.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod eip_edits;
mod flapping;
mod gateways;
mod northbound;
mod probing;
mod released;
mod support;
