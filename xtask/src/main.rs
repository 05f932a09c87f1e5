//! `cargo xtask`: files that are generated, and the house's checks.

mod crds;
mod generated;
mod ovsdb;
mod tidy;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Generated files and the house's checks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Writes deploy/crds/*.yaml from the types in crates/api.
    Crds {
        /// Write nothing; fail if a file is stale, missing or left over.
        #[arg(long)]
        check: bool,
    },
    /// Writes the typed tables of crates/ovsdb from its vendored schemas.
    GenerateOvsdb {
        /// Write nothing; fail if a file is not what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Checks the house's rules: purity of the compiler, lengths of files, names, promises.
    Tidy,
}

fn main() -> Result<()> {
    // Of the checkout that cargo was started in, which another one, with the same build cache, may have compiled this for.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").context("run `cargo xtask`")?;
    let root = Path::new(&xtask)
        .parent()
        .context("xtask is not in the workspace")?;
    match Arguments::parse().task {
        Task::Tidy => tidy::run(root),
        Task::Crds { check } => crds::run(root, check),
        Task::GenerateOvsdb { check } => ovsdb::generate(root, check),
    }
}
