//! CustomResourceDefinitions from the types in `crates/api`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

const HEADER: &str =
    "# Generated from crates/api by `cargo xtask crds`; edit the types, not this file.\n";

/// Writes `deploy/crds`, or checks that it is fresh.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let files = files()?;
    crate::generated::sync(
        &root.join("deploy/crds"),
        "yaml",
        &files,
        check,
        "cargo xtask crds",
    )
}

/// File name → text. Keys are sorted by serde_json's map, so the text depends on the types alone.
fn files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for definition in ycloud_api::schema::definitions() {
        let name = definition.spec.names.plural.clone();
        let value = serde_json::to_value(&definition)
            .with_context(|| format!("failed to encode the definition of {name}"))?;
        let text = serde_yaml::to_string(&value)
            .with_context(|| format!("failed to encode the definition of {name}"))?;
        files.insert(format!("{name}.yaml"), format!("{HEADER}{text}"));
    }
    Ok(files)
}
