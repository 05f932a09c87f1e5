//! What the fuzz targets do with their input: what reads bytes from the network.

pub mod answer;
pub mod ovsdb;
