//! Every row of the Northbound database, of every table that its schema has: what tests compare and
//! search.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::asking::ROUTED_GATEWAY;
use crate::cluster::{SLOW, api, eventually, on};

/// The database's server, from the machine that it runs on.
const SERVER: &str = "tcp:127.0.0.1:6641";

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its table.
    pub table: String,
    /// Changes whenever anything writes the row (RFC 7047 §3.2).
    pub version: String,
    /// All other columns, as OVSDB's JSON.
    pub columns: BTreeMap<String, Value>,
}

impl Row {
    /// Whether any column has this text in it.
    pub fn mentions(&self, text: &str) -> bool {
        self.columns
            .values()
            .any(|column| column.to_string().contains(text))
    }
}

/// The whole database, by the rows' UUIDs.
#[track_caller]
pub fn rows() -> BTreeMap<String, Row> {
    let ask = |words: &str| -> Value {
        let printed = on("control", &format!("ovsdb-client {words}")).must();
        serde_json::from_str(&printed).expect("ovsdb-client prints JSON")
    };
    let schema = ask(&format!("get-schema {SERVER} OVN_Northbound"));
    let tables: Vec<&String> = schema["tables"]
        .as_object()
        .expect("tables")
        .keys()
        .collect();
    let mut request = vec![json!("OVN_Northbound")];
    request.extend(
        tables
            .iter()
            .map(|table| json!({"op": "select", "table": table, "where": []})),
    );
    let answers = ask(&format!("transact {SERVER} '{}'", Value::from(request)));
    let mut rows = BTreeMap::new();
    for (table, answer) in tables.iter().zip(answers.as_array().expect("answers")) {
        for row in answer["rows"].as_array().expect("rows") {
            let mut columns: BTreeMap<String, Value> =
                serde_json::from_value(row.clone()).expect("columns");
            let mut uuid = |column: &str| {
                let value = columns.remove(column).expect("every row has it");
                value[1].as_str().expect("a UUID").to_owned()
            };
            let (id, version) = (uuid("_uuid"), uuid("_version"));
            let table = (*table).clone();
            rows.insert(
                id,
                Row {
                    table,
                    version,
                    columns,
                },
            );
        }
    }
    assert!(rows.len() > 50, "the database has {} rows", rows.len());
    rows
}

/// Those rows that one has and the other has not, or in another version: whatever anything wrote in
/// between. The server's own records of its connections are left out.
pub fn written(before: &BTreeMap<String, Row>, after: &BTreeMap<String, Row>) -> Vec<String> {
    differences(before, after, |one, other| one.version == other.version)
}

/// Those rows that one has and the other has not, or with other columns than those that northd
/// tells of the world below: whether a port is up, and how far chassis have come.
pub fn changed(before: &BTreeMap<String, Row>, after: &BTreeMap<String, Row>) -> Vec<String> {
    differences(before, after, |one, other| ours(one) == ours(other))
}

/// The columns that northd does not write.
fn ours(row: &Row) -> BTreeMap<String, Value> {
    let mut columns = row.columns.clone();
    match row.table.as_str() {
        "NB_Global" => columns.retain(|name, _| !name.contains("cfg")),
        "Logical_Switch_Port" => columns.retain(|name, _| name != "up"),
        "Logical_Router_Port" => columns.retain(|name, _| name != "status"),
        _ => {}
    }
    columns
}

fn differences(
    before: &BTreeMap<String, Row>,
    after: &BTreeMap<String, Row>,
    same: impl Fn(&Row, &Row) -> bool,
) -> Vec<String> {
    let known = |row: &&Row| row.table != "Connection";
    let gone = before.iter().filter(|(id, _)| !after.contains_key(*id));
    let gone = gone
        .map(|(_, row)| row)
        .filter(known)
        .map(|row| format!("gone: {row:?}"));
    let other = after.iter().filter_map(|(id, row)| match before.get(id) {
        _ if !known(&row) => None,
        None => Some(format!("new: {row:?}")),
        Some(old) if same(old, row) => None,
        Some(old) => Some(format!("was {old:?}, is {row:?}")),
    });
    gone.chain(other).collect()
}

/// The namespaces, Vpcs and Subnets of all scenes that there are, by kind and name.
#[track_caller]
pub fn scenes() -> Vec<(&'static str, String)> {
    let of_kind = |kind: &'static str| {
        let list = api().list("", kind, "").expect("the API server answers");
        let names =
            list.into_iter()
                .map(move |mut object| match object["metadata"]["name"].take() {
                    Value::String(name) => (kind, name),
                    other => panic!("a {kind} is named {other}"),
                });
        names.filter(|(_, name)| name.starts_with("e2e-"))
    };
    ["namespace", "subnet", "vpc"]
        .into_iter()
        .flat_map(of_kind)
        .collect()
}

/// What there is of any scene, but of those whose names begin so: objects, and rows of whatever table.
#[track_caller]
pub fn left_of(kept: &[&str]) -> Vec<String> {
    let kept = |name: &str| kept.iter().any(|kept| name.starts_with(kept));
    let objects = scenes().into_iter().filter(|(_, name)| !kept(name));
    let mut left: Vec<String> = objects
        .map(|(kind, name)| format!("{kind} {name}"))
        .collect();
    left.extend(rows().values().filter_map(|row| {
        let text = format!("{:?}", row.columns);
        let mut names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        // The suite's own EipGateways stay.
        names
            .find(|name| name.starts_with("e2e-") && *name != ROUTED_GATEWAY && !kept(name))
            .map(|_| format!("{} {text}", row.table))
    }));
    left
}

/// Waits until nothing is left of scenes that were told to go but what tests share, and this one. For
/// who runs alone and compares all rows, or measures time.
#[track_caller]
pub fn others_gone(own: &str) {
    // Those of a run that was killed stay until their own test runs again.
    let list = api().list("", "namespace", "");
    let mut stay = list.expect("the API server answers");
    stay.retain(|namespace| namespace["metadata"]["deletionTimestamp"].is_null());
    let names = stay
        .iter()
        .filter_map(|one| one["metadata"]["name"].as_str());
    let mut kept: Vec<&str> = names.filter(|name| name.starts_with("e2e-")).collect();
    kept.extend(["e2e-shared-", own]);
    eventually("the scenes of earlier tests are gone", SLOW, || {
        let mut left = left_of(&kept);
        let pods = api().list("", "pod", "").expect("the API server answers");
        let has_pods = |name: &str| pods.iter().any(|pod| pod["metadata"]["namespace"] == name);
        // Kubernetes takes seconds to see that one is empty that was told to go.
        left.retain(|what| what.strip_prefix("namespace ").is_none_or(has_pods));
        left.is_empty().then_some(()).ok_or_else(|| left.join("\n"))
    });
}

/// [`rows`], once [`others_gone`].
#[track_caller]
pub fn rows_at_rest() -> BTreeMap<String, Row> {
    others_gone("e2e-shared-");
    rows()
}
