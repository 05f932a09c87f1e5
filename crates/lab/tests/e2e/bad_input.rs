//! Each invalid object of `cases/invalid` is refused in words, at admission or by a condition, and nothing is lost.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::{SLOW, SOON, api, condition, kubectl_apply};

/// How many cases are tried at a time, besides one of an EIP and one that is refused at once.
const LANES: usize = 2;

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
    let cases = cases();
    assert!(cases.len() >= 15, "only {} cases found", cases.len());
    // What is refused at once has one name in all cases. What is admitted has names of its own, but what one says of an EipGateway or Eip
    // would fit another's.
    let (at_once, admitted): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.by_admission);
    let (of_eips, others): (Vec<_>, Vec<_>) = admitted
        .into_iter()
        .partition(|case| case.file.starts_with("eip"));
    let lanes = others.chunks(others.len().div_ceil(LANES));
    let lanes = lanes.chain([&of_eips[..], &at_once]);
    let failures: Vec<String> = thread::scope(|scope| {
        let lanes = lanes.map(|lane| scope.spawn(|| failures(lane)));
        let lanes: Vec<_> = lanes.collect();
        let ended = lanes
            .into_iter()
            .map(|lane| lane.join().expect("all tried"));
        ended.flatten().collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn failures(cases: &[&Case]) -> Vec<String> {
    let tried = cases.iter().filter_map(|case| {
        let words = refused(case).err()?;
        Some(format!("{}: {words}", case.file))
    });
    tried.collect()
}

fn refused(case: &Case) -> Result<(), String> {
    let missing = |text: &str| {
        let mut all = case.expect.iter();
        all.find(|words| !text.contains(words.as_str())).cloned()
    };
    let verdict = if case.by_admission {
        // What its user reads.
        let printed = kubectl_apply(&case.yaml);
        match (printed.ok, missing(&printed.err)) {
            (true, _) => Err("admitted".into()),
            (false, Some(words)) => Err(format!("refused, but without {words:?}: {}", printed.err)),
            (false, None) => Ok(()),
        }
    } else {
        told(case, missing)
    };
    remove(&case.yaml);
    verdict
}

/// The object in question is the last one of the file: a condition of it says so.
fn told(case: &Case, missing: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let applied = api().apply(&case.yaml);
    let applied = applied.map_err(|error| format!("not admitted: {error:#}"))?;
    let last = applied.last().ok_or("no object")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (
        text(&last["metadata"]["namespace"]),
        text(&last["metadata"]["name"]),
    );
    let (kind, start) = (text(&last["kind"]), Instant::now());
    loop {
        let found = api().get(&namespace, &kind, &name);
        let found = found
            .map_err(|error| format!("{error:#}"))?
            .unwrap_or_default();
        let all = ["Accepted", "Ready", "BackendsResolved"].map(|kind| condition(&found, kind));
        let says = |(status, _, message): &&(String, String, String)| {
            status == "False" && missing(message).is_none()
        };
        if all.iter().any(|one| says(&one)) {
            return Ok(());
        }
        if start.elapsed() > SOON {
            return Err(format!("not within {SOON:?}: {all:?}"));
        }
        thread::sleep(Duration::from_millis(100));
    }
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
