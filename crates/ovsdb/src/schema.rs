//! Database schemas, RFC 7047 §3.2: what the connected server has, and whether an operation fits it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::value::{Atom, Datum};

mod check;
mod parse;

pub use check::Refusal;

/// `<database-schema>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Name of the database, for example `OVN_Northbound`.
    pub name: Arc<str>,
    /// Version in the form `x.y.z`; empty if the schema has none (ovsdb-server(7) §3.2 allows that).
    pub version: Arc<str>,
    /// Tables by name.
    pub tables: BTreeMap<Arc<str>, TableSchema>,
}

/// `<table-schema>`.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSchema {
    /// Columns by name, without `_uuid` and `_version`.
    pub columns: BTreeMap<Arc<str>, ColumnType>,
    /// False: the server deletes a row once no strong reference points to it.
    pub is_root: bool,
}

/// `<type>` of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnType {
    /// What the members, or a map's keys, are.
    pub key: BaseType,
    /// What a map's values are; `None` for sets and scalars.
    pub value: Option<BaseType>,
    /// Least number of members, 0 or 1.
    pub min: usize,
    /// Greatest number of members; [`usize::MAX`] for `unlimited`.
    pub max: usize,
}

/// `<base-type>`.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseType {
    /// Kind of atom.
    pub kind: Kind,
    /// The values allowed, if they are enumerated; sorted.
    pub allowed: Option<Arc<[Atom]>>,
    /// Least and greatest integer.
    pub integers: (i64, i64),
    /// Least and greatest real.
    pub reals: (f64, f64),
    /// Least and greatest length of a string, in Unicode characters.
    pub lengths: (usize, usize),
    /// For UUIDs: the table they refer to.
    pub ref_table: Option<Arc<str>>,
}

/// `<atomic-type>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 64-bit signed integer.
    Integer,
    /// Double.
    Real,
    /// Boolean.
    Boolean,
    /// UTF-8 string.
    String,
    /// UUID.
    Uuid,
}

impl Kind {
    /// The value a column of this kind has in a new row if none is given, RFC 7047 §5.2.1.
    pub fn default_atom(self) -> Atom {
        match self {
            Kind::Integer => Atom::Integer(0),
            Kind::Real => Atom::Real(0.0),
            Kind::Boolean => Atom::Boolean(false),
            Kind::String => Atom::String(Arc::default()),
            Kind::Uuid => Atom::Uuid(uuid::Uuid::nil()),
        }
    }

    fn of(atom: &Atom) -> Kind {
        match atom {
            Atom::Integer(_) => Kind::Integer,
            Atom::Real(_) => Kind::Real,
            Atom::Boolean(_) => Kind::Boolean,
            Atom::String(_) => Kind::String,
            Atom::Uuid(_) => Kind::Uuid,
        }
    }
}

/// As RFC 7047 §3.2 writes it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Integer => "integer",
            Kind::Real => "real",
            Kind::Boolean => "boolean",
            Kind::String => "string",
            Kind::Uuid => "uuid",
        })
    }
}

impl ColumnType {
    /// The type of the columns `_uuid` and `_version`.
    pub fn uuid() -> Self {
        ColumnType {
            key: BaseType::of(Kind::Uuid),
            value: None,
            min: 1,
            max: 1,
        }
    }

    /// The value of this column in a new row if none is given, RFC 7047 §5.2.1.
    pub fn default_datum(&self) -> Datum {
        match (&self.value, self.min) {
            (Some(_), _) => Datum::EMPTY_MAP,
            (None, 0) => Datum::EMPTY_SET,
            (None, _) => self.key.kind.default_atom().into(),
        }
    }

    /// True for at most one member: an `update2` difference then replaces the value.
    pub fn is_single(&self) -> bool {
        self.max <= 1
    }
}

impl BaseType {
    /// A kind without constraints.
    pub fn of(kind: Kind) -> Self {
        BaseType {
            kind,
            allowed: None,
            integers: (i64::MIN, i64::MAX),
            reals: (f64::NEG_INFINITY, f64::INFINITY),
            lengths: (0, usize::MAX),
            ref_table: None,
        }
    }
}

impl Schema {
    /// A table's schema.
    pub fn table(&self, table: &str) -> Option<&TableSchema> {
        self.tables.get(table)
    }

    /// A column's type; also of `_uuid` and `_version`, which every table has.
    pub fn column(&self, table: &str, column: &str) -> Option<ColumnType> {
        let table = self.table(table)?;
        match column {
            "_uuid" | "_version" => Some(ColumnType::uuid()),
            _ => table.columns.get(column).cloned(),
        }
    }

    /// True if the table has the column.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.table(table)
            .is_some_and(|table| table.columns.contains_key(column))
    }
}
