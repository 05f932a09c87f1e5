//! A small schema with one column of each shape.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub const DATABASE: &str = "Shapes";

/// Names of the columns of table `Shape`.
pub const COLUMNS: [&str; 9] = [
    "flag", "ids", "map", "maybe", "name", "number", "numbers", "peers", "ratio",
];

const SCHEMA: &str = r#"{"name":"Shapes","version":"1.0.0","tables":{
  "Shape":{"isRoot":true,"indexes":[["name"]],"columns":{
    "name":{"type":"string"},
    "number":{"type":{"key":{"type":"integer","minInteger":-100,"maxInteger":100}}},
    "ratio":{"type":"real"},
    "flag":{"type":"boolean"},
    "maybe":{"type":{"key":"string","min":0,"max":1}},
    "numbers":{"type":{"key":"integer","min":0,"max":"unlimited"}},
    "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
    "ids":{"type":{"key":"string","value":"integer","min":0,"max":"unlimited"}},
    "peers":{"type":{"key":{"type":"uuid","refTable":"Shape","refType":"weak"},"min":0,"max":"unlimited"}}}},
  "Other":{"isRoot":true,"columns":{"name":{"type":"string"}}}}}"#;

/// Writes the schema into a folder.
pub fn write(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("shapes.ovsschema");
    fs::write(&path, SCHEMA)?;
    Ok(path)
}
