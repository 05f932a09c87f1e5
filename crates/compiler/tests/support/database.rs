//! A Northbound database in memory: rows, and the rules by which ovsdb-server commits operations (RFC 7047 §3.2, §5.2):
//! rows of non-root tables go when nothing refers to them, weak references to missing rows go, strong ones refuse the
//! commit, and so do two rows with one value of an index.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use uuid::Uuid;
use ycloud_compiler::row::TABLES;
use ycloud_ovsdb::{Atom, Columns, Datum, Mutation, Mutator, Operation, Schema, Snapshot, Where};

pub static SCHEMA: LazyLock<Arc<Schema>> =
    LazyLock::new(|| Arc::new(Schema::parse(SCHEMA_TEXT).expect("the vendored schema")));
static RULES: LazyLock<BTreeMap<String, Rules>> = LazyLock::new(read_rules);
const SCHEMA_TEXT: &str = include_str!("../../../ovsdb/schemas/ovn-nb.ovsschema");

struct Rules {
    root: bool,
    /// Columns that refer to other rows: name, table, strong.
    references: Vec<(String, String, bool)>,
    indexes: Vec<Vec<String>>,
}

fn read_rules() -> BTreeMap<String, Rules> {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).expect("JSON");
    let tables = schema["tables"].as_object().expect("tables");
    let rules = |table: &Value| {
        let columns = table["columns"].as_object().expect("columns");
        let references = columns.iter().filter_map(|(name, column)| {
            let key = &column["type"]["key"];
            let of = key["refTable"].as_str()?.to_owned();
            Some((name.clone(), of, key["refType"].as_str() != Some("weak")))
        });
        Rules {
            root: table["isRoot"].as_bool().unwrap_or(false),
            references: references.collect(),
            indexes: serde_json::from_value(table["indexes"].clone()).unwrap_or_default(),
        }
    };
    tables
        .iter()
        .map(|(name, table)| (name.clone(), rules(table)))
        .collect()
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Database {
    pub rows: BTreeMap<(&'static str, Uuid), Columns>,
}

impl Database {
    /// The replica of it.
    pub fn snapshot(&self) -> Snapshot {
        let rows = self
            .rows
            .iter()
            .map(|((table, uuid), columns)| (*table, *uuid, columns.clone()));
        Snapshot::of(&SCHEMA, rows).expect("rows that fit the schema")
    }

    /// Commits all operations or says why not.
    pub fn commit(&mut self, operations: &[Operation]) -> Result<(), String> {
        let mut next = self.clone();
        for operation in operations {
            next.execute(operation)?;
        }
        next.collect_garbage();
        next.check()?;
        *self = next;
        Ok(())
    }

    fn execute(&mut self, operation: &Operation) -> Result<(), String> {
        match operation {
            Operation::Insert {
                table,
                uuid,
                columns,
            } => {
                let uuid = uuid.ok_or("an insert without a UUID")?;
                let mut row: Columns = Columns::new();
                for (name, kind) in &SCHEMA.table(table).ok_or("no such table")?.columns {
                    row.set(intern(name), kind.default_datum());
                }
                for (name, value) in columns {
                    row.set(name, value.clone());
                }
                match self.rows.insert((table, uuid), row) {
                    None => Ok(()),
                    Some(_) => Err(format!("duplicate uuid {uuid} in {table}")),
                }
            }
            Operation::Update {
                table,
                rows,
                columns,
            } => self.each(table, rows, |row| {
                for (name, value) in columns {
                    row.set(name, value.clone());
                }
            }),
            Operation::Mutate {
                table,
                rows,
                mutations,
            } => self.each(table, rows, |row| {
                for mutation in mutations {
                    mutate(row, mutation);
                }
            }),
            Operation::Delete { table, rows } => {
                self.rows.remove(&(*table, by_uuid(rows)?));
                Ok(())
            }
            other => Err(format!("unexpected operation {other:?}")),
        }
    }

    fn each(
        &mut self,
        table: &'static str,
        rows: &Where,
        change: impl FnOnce(&mut Columns),
    ) -> Result<(), String> {
        if let Some(row) = self.rows.get_mut(&(table, by_uuid(rows)?)) {
            change(row);
        }
        Ok(())
    }

    fn collect_garbage(&mut self) {
        loop {
            let mut held: BTreeSet<Uuid> = BTreeSet::new();
            for ((table, _), row) in &self.rows {
                let strong = RULES[*table]
                    .references
                    .iter()
                    .filter(|(_, _, strong)| *strong);
                held.extend(strong.flat_map(|(column, _, _)| uuids(row, column)));
            }
            let before = self.rows.len();
            self.rows
                .retain(|(table, uuid), _| RULES[*table].root || held.contains(uuid));
            if self.rows.len() == before {
                break;
            }
        }
        let there: BTreeSet<(&str, Uuid)> = self.rows.keys().copied().collect();
        for ((table, _), row) in &mut self.rows {
            for (column, of, _) in RULES[*table]
                .references
                .iter()
                .filter(|(_, _, strong)| !strong)
            {
                let kept = uuids(row, column).filter(|uuid| there.contains(&(of.as_str(), *uuid)));
                let kept: BTreeSet<Uuid> = kept.collect();
                row.set(intern(column), kept);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let there: BTreeSet<(&str, Uuid)> = self.rows.keys().copied().collect();
        for ((table, uuid), row) in &self.rows {
            for (column, of, _) in &RULES[*table].references {
                for target in uuids(row, column) {
                    if !there.contains(&(of.as_str(), target)) {
                        return Err(format!(
                            "{table} {uuid}: {column} refers to {target}, missing in {of}"
                        ));
                    }
                }
            }
            for index in &RULES[*table].indexes {
                let values: Vec<_> = index
                    .iter()
                    .map(|column| row.get(column).cloned())
                    .collect();
                if !seen.insert((*table, index.clone(), values.clone())) {
                    return Err(format!("two rows of {table} have {values:?} in {index:?}"));
                }
            }
        }
        Ok(())
    }
}

fn mutate(row: &mut Columns, mutation: &Mutation) {
    let Some(Datum::Set(now)) = row.get(mutation.column).cloned() else {
        panic!("{mutation:?} of a column that is no set");
    };
    let mut now: BTreeSet<Atom> = now.iter().cloned().collect();
    let members = mutation.value.as_set().expect("a set").iter().cloned();
    match mutation.mutator {
        Mutator::Insert => now.extend(members),
        Mutator::Delete => members.for_each(|member| {
            now.remove(&member);
        }),
        other => panic!("unexpected mutator {other:?}"),
    }
    row.set(mutation.column, now);
}

pub fn uuids<'a>(row: &'a Columns, column: &str) -> impl Iterator<Item = Uuid> + 'a {
    let set = row.get(column).and_then(Datum::as_set);
    set.into_iter()
        .flat_map(|set| set.iter())
        .filter_map(Atom::as_uuid)
}

fn by_uuid(rows: &Where) -> Result<Uuid, String> {
    match rows.conditions() {
        [condition] if condition.column == "_uuid" => condition
            .value
            .as_uuid()
            .ok_or_else(|| "no UUID".to_owned()),
        other => Err(format!("not by UUID: {other:?}")),
    }
}

fn intern(name: &str) -> &'static str {
    static NAMES: LazyLock<BTreeMap<String, &'static str>> = LazyLock::new(|| {
        let tables = SCHEMA.tables.values();
        let names = tables.flat_map(|table| table.columns.keys());
        names
            .map(|name| (name.to_string(), &*String::leak(name.to_string())))
            .collect()
    });
    NAMES[name]
}

/// Rows that are not ycloud's, of every table in which it has rows, some of them tied to each other.
pub fn foreign() -> Database {
    let mut database = Database::default();
    let uuid = |n: u128| Uuid::from_u128(n);
    let mut add = |table: &'static str, n: u128, columns: Columns| {
        database.commit_row(table, uuid(n), columns);
    };
    add(
        "Logical_Switch_Port",
        1,
        Columns::new().with("name", "foreign-port"),
    );
    add(
        "Logical_Router_Port",
        2,
        Columns::new()
            .with("name", "foreign-lrp")
            .with("networks", "192.0.2.1/24"),
    );
    add(
        "Logical_Router_Policy",
        3,
        Columns::new().with("match", "1").with("action", "drop"),
    );
    add(
        "Logical_Router_Static_Route",
        4,
        Columns::new().with("ip_prefix", "192.0.2.0/24"),
    );
    add("Load_Balancer", 5, Columns::new().with("name", "ns1/a:tcp"));
    add(
        "Load_Balancer_Group",
        6,
        Columns::new()
            .with("name", "theirs")
            .with("load_balancer", uuid(5)),
    );
    let switch = Columns::new()
        .with("name", "a")
        .with("ports", uuid(1))
        .with("load_balancer_group", uuid(6));
    add("Logical_Switch", 7, switch);
    let router = Columns::new()
        .with("name", "v1")
        .with("ports", uuid(2))
        .with("policies", uuid(3))
        .with("static_routes", uuid(4));
    add("Logical_Router", 8, router);
    add(
        "Port_Group",
        9,
        Columns::new().with("name", "theirs").with("ports", uuid(1)),
    );
    add(
        "HA_Chassis",
        10,
        Columns::new().with("chassis_name", "theirs"),
    );
    add(
        "HA_Chassis_Group",
        11,
        Columns::new()
            .with("name", "theirs")
            .with("ha_chassis", uuid(10)),
    );
    let nat = Columns::new()
        .with("type", "snat")
        .with("external_ip", "192.0.2.1")
        .with("logical_ip", "192.0.2.0/24");
    add("NAT", 12, nat);
    let router = Columns::new()
        .with("name", "eipgw/g1")
        .with("nat", uuid(12))
        .with("load_balancer_group", uuid(6));
    add("Logical_Router", 13, router);
    database.collect_garbage();
    database.check().expect("consistent rows");
    assert_eq!(database.rows.len(), 13);
    assert!(
        database
            .rows
            .keys()
            .all(|(table, _)| TABLES.iter().any(|(name, _)| name == table))
    );
    database
}

impl Database {
    fn commit_row(&mut self, table: &'static str, uuid: Uuid, columns: Columns) {
        let insert = Operation::insert(table, uuid, columns);
        self.execute(&insert).expect("a row that fits");
    }
}
