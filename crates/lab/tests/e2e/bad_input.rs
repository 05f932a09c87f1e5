//! Each invalid object of `cases/invalid` is refused in words, at admission or by a condition, and nothing is lost.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::{SLOW, SOON, api, condition, eventually, get, kubectl_apply};

/// The first lines of a case: `# by: admission|condition`, `# expect: words`, `# object: kind/name` (condition only).
struct Case {
    file: String,
    yaml: String,
    by_admission: bool,
    expect: Vec<String>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new("../../cases/invalid");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("cases/invalid")
        .map(|f| f.expect("an entry").path())
        .collect();
    files.sort();
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .map(|path| {
            let yaml = std::fs::read_to_string(&path).expect("a readable case");
            let header = |key: &str| {
                yaml.lines()
                    .filter_map(|l| l.strip_prefix(&format!("# {key}: ")))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            Case {
                file: path
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                by_admission: header("by").first().is_some_and(|by| by == "admission"),
                expect: header("expect"),
                yaml,
            }
        })
        .collect()
}

#[test]
fn every_invalid_object_is_refused_in_words() {
    let mut failures = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 15, "only {} cases found", cases.len());
    for case in &cases {
        if let Err(words) = refused(case) {
            failures.push(format!("{}: {words}", case.file));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn refused(case: &Case) -> Result<(), String> {
    let printed = kubectl_apply(&case.yaml);
    let missing = |text: &str| {
        case.expect
            .iter()
            .find(|words| !text.contains(words.as_str()))
            .cloned()
    };
    let verdict = if case.by_admission {
        match (printed.ok, missing(&printed.err)) {
            (true, _) => Err("admitted".into()),
            (false, Some(words)) => Err(format!("refused, but without {words:?}: {}", printed.err)),
            (false, None) => Ok(()),
        }
    } else if printed.ok {
        std::panic::catch_unwind(|| {
            eventually("a condition that says so", SOON, || {
                // The object in question is the last one of the file.
                let objects: Vec<&str> = printed
                    .out
                    .lines()
                    .filter_map(|line| line.split_whitespace().next())
                    .collect();
                let object = objects.last().copied().unwrap_or_default();
                let found = get(&[object]);
                let all =
                    ["Accepted", "Ready", "BackendsResolved"].map(|kind| condition(&found, kind));
                match all
                    .iter()
                    .find(|(status, _, message)| status == "False" && missing(message).is_none())
                {
                    Some(_) => Ok(()),
                    None => Err(format!("{all:?}")),
                }
            });
        })
        .map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    } else {
        Err(format!("not admitted: {}", printed.err))
    };
    remove(&case.yaml);
    verdict
}

/// Takes away what was admitted, the last first: it may use the others.
fn remove(yaml: &str) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let documents = serde_yaml::Deserializer::from_str(yaml);
    let objects: Vec<Value> = documents
        .map(|one| Value::deserialize(one).expect("an object"))
        .collect();
    for object in objects.iter().rev() {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or("default");
        let (kind, name) = (text(&object["kind"]), text(&metadata["name"]));
        let version = text(&object["apiVersion"]);
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind = format!("{kind}.{group}");
        let gone = api()
            .delete(namespace, &kind, &name, None)
            .and_then(|_| api().wait_gone(namespace, &kind, &name, "", SLOW));
        gone.unwrap_or_else(|error| panic!("{kind} {name}: {error:#}"));
    }
}
