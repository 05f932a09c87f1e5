//! The golden cases: `cases/<name>/input.yaml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use ycloud_compiler::{Event, Object, Prober, Settings, Snapshot};

use super::objects::from;

pub fn folder() -> PathBuf {
    PathBuf::from("../../cases")
}

/// The folders of all cases.
pub fn names() -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("cases/")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("input.yaml").exists())
        .collect();
    names.sort();
    assert!(names.len() >= 9, "cases are missing: {names:?}");
    names
}

pub fn snapshot(case: &Path) -> Snapshot {
    let text = std::fs::read_to_string(case.join("input.yaml")).expect("input.yaml");
    let mut snapshot = Snapshot::new(Settings::default());
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).expect("YAML");
        snapshot.apply(Event::Apply(object(value)));
    }
    snapshot
}

fn object(value: Value) -> Object {
    match value["kind"].as_str().unwrap_or_default() {
        "Vpc" => Object::Vpc(from(value)),
        "Subnet" => Object::Subnet(from(value)),
        "VNic" => Object::VNic(from(value)),
        "Node" => Object::Node(from(value)),
        "Namespace" => Object::Namespace(from(value)),
        "Pod" => Object::Pod(from(value)),
        "Service" => Object::Service(from(value)),
        "EndpointSlice" => Object::EndpointSlice(from(value)),
        "EipGateway" => Object::EipGateway(from(value)),
        "Eip" => Object::Eip(from(value)),
        "NetworkProbe" => Object::NetworkProbe(from(value)),
        // Its name tells whose it is; one that is there holds.
        "Lease" => {
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            let chassis = name.strip_prefix("prober-").expect("a Lease of a prober");
            Object::Prober(Prober {
                chassis: chassis.to_owned(),
            })
        }
        "ServiceCIDR" => Object::ServiceCidr(from(value)),
        other => panic!("a case has no objects of kind {other:?}"),
    }
}
