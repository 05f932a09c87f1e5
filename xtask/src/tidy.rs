//! The house's rules that no other tool checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// No file of ours is longer, in lines; generated ones are not written by hand.
const MAX_LINES: usize = 800;

/// What the pure crate must not pull in: no runtime, no network, no client of the API server, no log.
const IMPURE: [&str; 7] = [
    "hyper",
    "kube-client",
    "kube-runtime",
    "rustls",
    "tokio",
    "tower",
    "tracing-subscriber",
];

/// What the pure crate's source must not read or write: clock, environment, randomness, files, log.
const IMPURE_CODE: [&str; 9] = [
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "SystemTime",
    "Instant::now",
    "Timestamp::now",
    "Uuid::new_v4",
    "tracing::",
    "println!",
];

/// Words that say nothing about what a thing is. Written in halves, so that this file keeps the rule too.
const EMPTY_NAMES: [&str; 4] = [
    concat!("Man", "ager"),
    concat!("Hel", "per"),
    concat!("Ut", "ils"),
    concat!("Ut", "il "),
];

/// Files and folders that are named by no noun.
const EMPTY_FILES: [&str; 5] = ["common", "util", "utils", "helper", "helpers"];

/// Promises that a reader cannot hold anybody to.
const PROMISES: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("for ", "now"),
];

/// Keywords after which a name is declared.
const DECLARATIONS: [&str; 6] = ["struct ", "enum ", "trait ", "type ", "mod ", "union "];

/// Checks everything; the error lists all that is wrong.
pub fn run(root: &Path) -> Result<()> {
    let mut wrong = impure_dependencies(root)?;
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    files.sort();
    for path in &files {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(path);
        wrong.extend(of_file(shown, &text));
    }
    if !wrong.is_empty() {
        bail!(
            "{} against the house's rules:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
    println!("{} files keep the house's rules", files.len());
    Ok(())
}

/// What `ycloud-compiler` pulls in that it must not, by Cargo's own account.
fn impure_dependencies(root: &Path) -> Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = "tree --package ycloud-compiler --edges normal --prefix none --format {p}";
    let output = Command::new(cargo)
        .args(arguments.split(' '))
        .current_dir(root)
        .output()
        .context("failed to run cargo tree")?;
    if !output.status.success() {
        bail!(
            "cargo tree failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: BTreeSet<&str> = text.lines().filter_map(|l| l.split(' ').next()).collect();
    let impure = IMPURE.iter().filter(|name| names.contains(*name));
    Ok(impure
        .map(|name| {
            format!("crates/compiler depends on {name} (see: cargo tree -p ycloud-compiler -e normal -i {name})")
        })
        .collect())
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                rust_files(&path, files)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong with one file.
fn of_file(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut wrong = Vec::new();
    let generated = path
        .components()
        .any(|part| part.as_os_str() == "generated");
    let lines = text.lines().count();
    if lines > MAX_LINES && !generated {
        wrong.push(format!("{shown}: {lines} lines; at most {MAX_LINES}"));
    }
    for part in path.components() {
        let name = part.as_os_str().to_string_lossy();
        let name = name.strip_suffix(".rs").unwrap_or(&name);
        if EMPTY_FILES.contains(&name) {
            wrong.push(format!(
                "{shown}: {name:?} says nothing; name it by what it holds"
            ));
        }
    }
    let pure = path.starts_with("crates/compiler/src");
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let declared = DECLARATIONS.iter().filter_map(|word| declared(line, word));
        for name in declared {
            let spaced = format!("{name} ");
            if EMPTY_NAMES.iter().any(|word| spaced.contains(word)) {
                wrong.push(format!(
                    "{shown}:{number}: {name} says nothing; name it by what it does"
                ));
            }
        }
        if let Some(word) = PROMISES.iter().find(|word| contains_word(line, word)) {
            wrong.push(format!(
                "{shown}:{number}: {word:?}: do it, or say in words why not"
            ));
        }
        if pure && let Some(word) = IMPURE_CODE.iter().find(|word| line.contains(**word)) {
            wrong.push(format!("{shown}:{number}: {word} in the pure crate"));
        }
    }
    wrong
}

/// The name that `line` declares by `keyword`.
fn declared<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let code = line.trim_start();
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let code = code.strip_prefix("pub(crate) ").unwrap_or(code);
    let name = code.strip_prefix(keyword)?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
    name.get(..end.unwrap_or(name.len()))
}

fn contains_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word).any(|(at, _)| {
        edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_breach_and_nothing_else() {
        let good = "/// A FieldManager is no declaration.\npub struct Queue;\nlet todo_list = 1;\n";
        assert_eq!(of_file(Path::new("crates/a/src/queue.rs"), good), [""; 0]);
        let cases = [
            (
                "crates/a/src/x.rs",
                format!("pub struct Vpc{};", EMPTY_NAMES[0]),
                "says nothing",
            ),
            (
                "crates/a/src/x.rs",
                format!("// {}: more", PROMISES[0]),
                "do it",
            ),
            (
                "crates/a/src/x.rs",
                format!("// good enough {}", PROMISES[3]),
                "do it",
            ),
            ("crates/a/src/utils.rs", String::new(), "says nothing"),
            (
                "crates/a/src/x.rs",
                "\n".repeat(MAX_LINES + 1),
                "at most 800",
            ),
            (
                "crates/compiler/src/x.rs",
                "let t = Instant::now();".to_owned(),
                "pure crate",
            ),
        ];
        for (path, text, words) in cases {
            let wrong = of_file(Path::new(path), &text);
            assert_eq!(wrong.len(), 1, "{path}: {wrong:?}");
            assert!(wrong[0].contains(words), "{wrong:?}");
        }
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(
            of_file(Path::new("crates/ovsdb/src/generated/nb.rs"), &long),
            [""; 0]
        );
    }
}
