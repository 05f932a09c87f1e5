//! The two controllers of ycloud.
//!
//! `ycloud-controller` turns Kubernetes objects into OVN's Northbound database; `yusurservice-controller` turns
//! `YusurService`s into Services and EndpointSlices. What both need to be a well-behaved process stands in
//! [`runtime`], [`lease`], [`health`] and [`watch`].

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod apply;
pub mod chores;
mod eip;
pub mod events;
pub mod failover;
pub mod health;
pub mod intake;
pub mod lease;
pub mod mergepatch;
pub mod metrics;
mod networkpolicy;
pub mod objects;
mod observe;
pub mod ovn;
pub mod prober;
mod probing;
pub mod programmed;
pub mod queue;
pub mod reconcile;
mod refusal;
pub mod runtime;
mod service;
pub mod southbound;
pub mod state;
pub mod status;
mod unconfirmed;
mod vnic;
pub mod watch;
pub mod write;
pub mod yusurservice;
