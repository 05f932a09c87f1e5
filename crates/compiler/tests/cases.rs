//! Golden cases: `cases/<name>/input.yaml` → the Northbound rows of `cases/<name>/nb.txt`.
//! `UPDATE_CASES=1 cargo test -p ycloud-compiler --test cases` writes what is now, for review as a diff.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use support::cases::{folder, names, snapshot};
use support::database::{Database, uuids};
use uuid::Uuid;
use ycloud_compiler::{
    Batch, Chassis, Event, Object, ObjectKey, Owner, OwnerIndex, Rejection, Snapshot, compile,
    hindrance,
};
use ycloud_ovsdb::{Atom, Columns, Datum};

#[test]
fn every_case_becomes_its_rows() {
    let update = std::env::var_os("UPDATE_CASES").is_some();
    let mut wrong = Vec::new();
    for case in names() {
        let text = rendered(&snapshot(&case));
        let golden = case.join("nb.txt");
        if update {
            std::fs::write(&golden, &text).expect("a writable case");
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}: now it is\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_forgets_connections_tells_answers_by_address_and_port() {
    let mut snapshot = snapshot(&folder().join("scenario-3-eip-default-vpc"));
    let by_connection = |snapshot: &Snapshot| {
        let text = rendered(snapshot);
        let ways = text.contains("Logical_Router back/node-1") && text.contains("100.85.0.2");
        let ports = text.contains("&& tcp.src == 8080");
        assert_ne!(ways, ports, "{text}");
        ways
    };
    assert!(by_connection(&snapshot));
    let chassis = |forgets_connections| {
        Event::Apply(Object::Chassis(Chassis {
            name: "node-9".to_owned(),
            forgets_connections,
            ..Chassis::default()
        }))
    };
    let concerned = snapshot.apply(chassis(true));
    assert!(!by_connection(&snapshot));
    let node = Owner::Node("node-1".to_owned());
    let service = Owner::Service(ObjectKey::new("default", "web"));
    assert!(concerned.is_superset(&[node, service].into()));
    snapshot.apply(chassis(false));
    assert!(by_connection(&snapshot));
}

/// The database that the snapshot becomes, and what is refused.
fn rendered(snapshot: &Snapshot) -> String {
    let mut database = Database::default();
    let empty = database.snapshot();
    let index = OwnerIndex::build(&empty);
    let mut batch = Batch::new(&empty, &index);
    let mut refused: Vec<(Owner, Rejection)> = Vec::new();
    let mut hindered: Vec<(Owner, Rejection)> = Vec::new();
    for owner in snapshot.owners() {
        match compile(snapshot, &owner) {
            Ok(rows) => {
                batch.add(&owner, &rows);
                hindered.extend(hindrance(snapshot, &owner).map(|why| (owner, why)));
            }
            Err(rejection) => refused.push((owner, rejection)),
        }
    }
    database
        .commit(&batch.into_operations())
        .expect("a transaction that commits");
    let mut text = render_rows(&database);
    for (key, _) in snapshot.probes() {
        if let Some(Ok(asked)) = snapshot.assignment(key) {
            let _ = writeln!(
                text,
                "asked NetworkProbe {key}: by {} from {}",
                asked.prober, asked.source
            );
        }
    }
    for (owner, rejection) in refused {
        let keep = if rejection.keep {
            ", rows stay as they were"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "refused {owner}: {}{keep}: {}",
            rejection.reason, rejection.message
        );
    }
    for (owner, rejection) in hindered {
        let _ = writeln!(
            text,
            "hindered {owner}: {}: {}",
            rejection.reason, rejection.message
        );
    }
    text
}

fn render_rows(database: &Database) -> String {
    let names: BTreeMap<Uuid, String> = database
        .rows
        .iter()
        .map(|((table, uuid), row)| (*uuid, name(table, row)))
        .collect();
    let mut blocks: Vec<String> = Vec::new();
    for ((table, uuid), row) in &database.rows {
        let mut block = format!("{table} {}\n", names[uuid]);
        for (column, value) in row {
            let shown = show(value, &names);
            if shown.is_empty() || *column == "external_ids" || *column == "name" {
                continue;
            }
            for line in shown {
                let _ = writeln!(block, "  {column}: {line}");
            }
        }
        let ids = row.get("external_ids").and_then(Datum::as_map);
        if let Some(ids) = ids {
            let mark = |key| ids.get_str(key).unwrap_or_default().to_owned();
            let _ = writeln!(
                block,
                "  owner: {} {}",
                mark("iaas.yusur.io/owner"),
                mark("iaas.yusur.io/role")
            );
        }
        blocks.push(block);
    }
    blocks.sort();
    let mut text = blocks.join("\n");
    text.push('\n');
    text
}

/// A row's name, or what it says if its table has no names.
fn name(table: &str, row: &Columns) -> String {
    let text = |column| row.get(column).and_then(Datum::as_str).unwrap_or_default();
    match table {
        "Logical_Router_Policy" => {
            let priority = row
                .get("priority")
                .and_then(Datum::as_integer)
                .unwrap_or_default();
            format!("{priority} {} {}", text("match"), text("action"))
        }
        "Chassis_Template_Var" => text("chassis").to_owned(),
        "Logical_Router_Static_Route" => format!("{} via {}", text("ip_prefix"), text("nexthop")),
        "NAT" => format!(
            "{} {} {}",
            text("type"),
            text("external_ip"),
            text("logical_ip")
        ),
        "HA_Chassis" => text("chassis_name").to_owned(),
        _ => text("name").to_owned(),
    }
}

/// One line a pair of a map, one line a set; references by name.
fn show(value: &Datum, names: &BTreeMap<Uuid, String>) -> Vec<String> {
    let atom = |atom: &Atom| match atom {
        Atom::Uuid(uuid) => names[uuid].clone(),
        Atom::String(text) => text.to_string(),
        Atom::Integer(number) => number.to_string(),
        Atom::Real(number) => number.to_string(),
        Atom::Boolean(truth) => truth.to_string(),
    };
    match value {
        Datum::Map(map) => map
            .iter()
            .map(|(key, value)| format!("{} = {}", atom(key), atom(value)))
            .collect(),
        Datum::Set(set) => {
            let mut all: Vec<String> = set
                .iter()
                .map(atom)
                .filter(|text| !text.is_empty())
                .collect();
            all.sort();
            if all.is_empty() {
                Vec::new()
            } else {
                vec![all.join(", ")]
            }
        }
    }
}

/// The rendered text names every row that a column refers to.
#[test]
fn references_are_shown_by_name() {
    let mut database = Database::default();
    let case = folder().join("cluster-vip");
    let rows = rendered(&snapshot(&case));
    assert!(
        rows.contains("  load_balancer: default/ysvc1:tcp\n"),
        "{rows}"
    );
    let row = Columns::new().with("ports", Uuid::from_u128(1));
    assert_eq!(uuids(&row, "ports").count(), 1);
    database
        .rows
        .insert(("Logical_Switch", Uuid::from_u128(2)), row);
    let hidden: Arc<str> = Arc::from("00000000-0000");
    assert!(!rows.contains(&*hidden));
}
