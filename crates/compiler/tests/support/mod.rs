//! What the tests of this folder share: a Northbound database that obeys the schema's rules, and objects to fill a
//! snapshot with.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod cases;
pub mod database;
pub mod nb;
pub mod objects;
pub mod scale;
pub mod world;
