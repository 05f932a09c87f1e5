//! The flows, and for which logical datapaths they are wanted: pure.

use std::collections::{BTreeMap, BTreeSet};

use ycloud_ovsdb::{Condition, Config, Row, Snapshot};

/// `Logical_Flow:external_ids` key of a flow's stage. Source: ovn-sb(5).
const STAGE_NAME: &str = "stage-name";

/// The OpenFlow table of the first logical ingress stage. Source: OVN's lib/ovn-util or controller/lflow.h,
/// `OFTABLE_LOG_INGRESS_PIPELINE`: 8 in all releases since 2.6.
pub(in crate::agent) const FIRST_INGRESS_TABLE: u8 = 8;

/// A kind of logical datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Datapath {
    Switch,
    Router,
}

impl Datapath {
    const ALL: [Self; 2] = [Self::Switch, Self::Router];

    /// The stage that learns which backend a client has, and drops the packet that it learned from.
    fn stage(self) -> &'static str {
        match self {
            Self::Switch => "ls_in_lb_aff_learn",
            Self::Router => "lr_in_lb_aff_learn",
        }
    }

    /// Key of `Datapath_Binding:external_ids` that tells it; its value is a Northbound row's UUID.
    fn key(self) -> &'static str {
        match self {
            Self::Switch => "logical-switch",
            Self::Router => "logical-router",
        }
    }
}

/// Which of a datapath's two flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// In the table after the stage: ends the first passage, which went through the stage to learn.
    Stop,
    /// In the stage's own table: sends a new connection's packet through it, and then on behind it.
    Pass,
}

/// A flow. In the order in which they are added: whole datapaths would see packets twice while only the second of a
/// pair stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Which of the two.
    pub kind: Kind,
    /// OpenFlow table.
    pub table: u8,
    /// `Datapath_Binding:tunnel_key`, which ovn-controller has in `metadata`.
    pub datapath: u64,
}

/// Adds what [`wanted`] reads of the Southbound database: the datapaths, and of the logical flows, which are many, those
/// of the two stages.
pub fn monitored(config: Config) -> Config {
    // A monitor takes the rows of which any condition holds: ovsdb-server(7), "Conditional Monitor".
    let stages = Datapath::ALL.map(|datapath| {
        let stage = BTreeMap::from([(STAGE_NAME.to_owned(), datapath.stage().to_owned())]);
        Condition::includes("external_ids", stage)
    });
    config
        .any_member()
        .monitor("Datapath_Binding", &["tunnel_key", "external_ids"])
        .monitor("Logical_Flow", &["table_id", "external_ids"])
        .only("Logical_Flow", stages.to_vec())
}

/// The flows that shall be in the bridge. Empty for a northd that has no such stages: it has no affinity either.
pub fn wanted(southbound: &Snapshot) -> BTreeSet<Flow> {
    let tables = tables(southbound);
    let mut flows = BTreeSet::new();
    for row in southbound.table("Datapath_Binding").iter() {
        let key = row.get("tunnel_key").and_then(|key| key.as_integer());
        let Some(datapath) = key.and_then(|key| u64::try_from(key).ok()) else {
            continue;
        };
        let kind = Datapath::ALL
            .into_iter()
            .find(|kind| external_id(row, kind.key()).is_some());
        let Some(&table) = kind.and_then(|kind| tables.get(&kind)) else {
            continue;
        };
        flows.extend(
            [(Kind::Stop, table + 1), (Kind::Pass, table)].map(|(kind, table)| Flow {
                kind,
                table,
                datapath,
            }),
        );
    }
    flows
}

/// The OpenFlow tables of the stages. They differ between OVN's releases.
fn tables(southbound: &Snapshot) -> BTreeMap<Datapath, u8> {
    let mut tables = BTreeMap::new();
    for row in southbound.table("Logical_Flow").iter() {
        let stage = external_id(row, STAGE_NAME);
        let datapath = Datapath::ALL
            .into_iter()
            .find(|datapath| stage == Some(datapath.stage()));
        let stage = row.get("table_id").and_then(|id| id.as_integer());
        let table = stage.and_then(|id| u8::try_from(id + i64::from(FIRST_INGRESS_TABLE)).ok());
        if let (Some(datapath), Some(table)) = (datapath, table.filter(|table| *table < u8::MAX)) {
            tables.insert(datapath, table);
        }
    }
    tables
}

fn external_id<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    row.get("external_ids")?.as_map()?.get_str(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use ycloud_ovsdb::{Columns, Schema, Uuid};

    const SCHEMA: &str = include_str!("../../../../ovsdb/schemas/ovn-sb.ovsschema");

    fn ids(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    /// A database of logical flows `(stage, table)` and datapaths `(tunnel key, key of external_ids)`.
    fn database(stages: &[(&str, i64)], datapaths: &[(i64, &str)]) -> Snapshot {
        let schema = Arc::new(Schema::parse(SCHEMA).unwrap());
        let flows = stages.iter().map(|(stage, table)| {
            let columns = Columns::new()
                .with("table_id", *table)
                .with("external_ids", ids(STAGE_NAME, stage));
            ("Logical_Flow", columns)
        });
        let datapaths = datapaths.iter().map(|(tunnel_key, key)| {
            let columns = Columns::new()
                .with("tunnel_key", *tunnel_key)
                .with("external_ids", ids(key, "7a3c"));
            ("Datapath_Binding", columns)
        });
        let rows = flows.chain(datapaths).enumerate();
        let rows = rows.map(|(n, (table, columns))| (table, Uuid::from_u128(n as u128), columns));
        Snapshot::of(&schema, rows.collect::<Vec<_>>()).unwrap()
    }

    fn told(stages: &[(&str, i64)], datapaths: &[(i64, &str)]) -> Vec<(Kind, u8, u64)> {
        let flows = wanted(&database(stages, datapaths)).into_iter();
        flows.map(|f| (f.kind, f.table, f.datapath)).collect()
    }

    #[test]
    fn each_datapath_has_its_pair_where_its_release_has_the_stage() {
        use Kind::{Pass, Stop};
        let (switch, router) = ("logical-switch", "logical-router");
        let (ls, lr) = ("ls_in_lb_aff_learn", "lr_in_lb_aff_learn");
        let cases = [
            ("nothing is known", vec![], vec![], vec![]),
            ("a release without them", vec![], vec![(1, switch)], vec![]),
            (
                "25.03",
                vec![(ls, 14), (ls, 14), (lr, 10)],
                vec![(7, switch), (2, router)],
                vec![(Stop, 19, 2), (Stop, 23, 7), (Pass, 18, 2), (Pass, 22, 7)],
            ),
            (
                "23.03",
                vec![(ls, 13), (lr, 8)],
                vec![(7, switch)],
                vec![(Stop, 22, 7), (Pass, 21, 7)],
            ),
            (
                "other stages",
                vec![("ls_in_lb", 12), (lr, 8)],
                vec![(7, switch)],
                vec![],
            ),
            (
                "neither switch nor router",
                vec![(ls, 14), (lr, 10)],
                vec![(7, "name")],
                vec![],
            ),
        ];
        for (name, stages, datapaths, flows) in cases {
            assert_eq!(told(&stages, &datapaths), flows, "{name}");
        }
    }
}
