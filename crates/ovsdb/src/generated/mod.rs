//! Typed tables of the vendored schemas; see [`typed`](crate::typed) for how to use them.

pub mod nb;
pub mod sb;
pub mod vswitch;
