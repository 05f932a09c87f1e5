//! What the generated tables are made of.
//!
//! Each table of a vendored schema is a struct with the same name that builds [`Columns`] to write, and a `…Row` that reads
//! them from a [`Row`] of the replica:
//!
//! ```
//! use ycloud_ovsdb::{Operation, nb};
//!
//! let switch = nb::LogicalSwitch::new().name("s1").other_config([("mcast_snoop", "true")]);
//! let insert = Operation::insert(nb::LogicalSwitch::TABLE, uuid::Uuid::from_u128(1), switch);
//! # drop(insert);
//! ```
//!
//! A column that is not monitored, or that the connected server lacks, reads as its type's default: empty, zero, false.
//! [`Row::get`] and [`Snapshot::has_column`](crate::Snapshot::has_column) tell the difference.

use std::marker::PhantomData;
use std::sync::Arc;

use uuid::Uuid;

use crate::replica::Row;
use crate::value::{Atom, AtomMap, AtomSet};

#[cfg(doc)]
use crate::operation::Columns;

/// A Rust type for atoms of one kind (or of one enumeration).
pub trait Element: 'static {
    /// How it is read.
    type Read<'a>;
    /// How it is written.
    type Write: Into<Atom>;
    /// The atom as this type; `None` if it is of another kind, or a name that the enumeration did not have when this crate
    /// was built.
    fn read(atom: &Atom) -> Option<Self::Read<'_>>;
    /// The value of `key` in a map.
    fn find<'m>(map: &'m AtomMap, key: Self::Read<'_>) -> Option<&'m Atom>;
}

/// Types that have a value for "absent".
pub trait Scalar: Element {
    /// The value, or else the default of RFC 7047 §5.2.1.
    fn or_absent(value: Option<Self::Read<'_>>) -> Self::Read<'_>;
}

/// `string` without an enumeration: read as `&str`, written as [`Text`].
#[derive(Debug)]
pub enum Str {}

/// A string to write; made from `&str`, `String` and `Arc<str>`.
#[derive(Clone, Debug)]
pub struct Text(Arc<str>);

macro_rules! text_from {
    ($($source:ty)+) => {$(
        impl From<$source> for Text {
            fn from(text: $source) -> Self {
                let text: &str = text.as_ref();
                Text(Arc::from(text))
            }
        }
    )+};
}

text_from! { &str &String String &Arc<str> }

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Text(text)
    }
}

impl From<Text> for Atom {
    fn from(text: Text) -> Self {
        Atom::String(text.0)
    }
}

impl Element for Str {
    type Read<'a> = &'a str;
    type Write = Text;
    fn read(atom: &Atom) -> Option<&str> {
        atom.as_str()
    }
    fn find<'m>(map: &'m AtomMap, key: &str) -> Option<&'m Atom> {
        map.get_by_str(key)
    }
}

impl Scalar for Str {
    fn or_absent(value: Option<Self::Read<'_>>) -> Self::Read<'_> {
        value.unwrap_or("")
    }
}

macro_rules! copied {
    ($($element:ty, $read:expr, $absent:expr;)+) => {$(
        impl Element for $element {
            type Read<'a> = $element;
            type Write = $element;
            fn read(atom: &Atom) -> Option<$element> {
                let read: fn(&Atom) -> Option<$element> = $read;
                read(atom)
            }
            fn find(map: &AtomMap, key: $element) -> Option<&Atom> {
                map.get(&key.into())
            }
        }

        impl Scalar for $element {
            fn or_absent(value: Option<Self::Read<'_>>) -> Self::Read<'_> {
                value.unwrap_or($absent)
            }
        }
    )+};
}

copied! {
    i64, Atom::as_integer, 0;
    f64, Atom::as_real, 0.0;
    bool, Atom::as_boolean, false;
    Uuid, Atom::as_uuid, Uuid::nil();
}

/// A map column of a row.
#[derive(Debug)]
pub struct Pairs<'a, K, V> {
    map: &'a AtomMap,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'a, K: Element, V: Element> Pairs<'a, K, V> {
    /// The value of a key.
    pub fn get(&self, key: K::Read<'_>) -> Option<V::Read<'a>> {
        K::find(self.map, key).and_then(V::read)
    }

    /// The pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (K::Read<'a>, V::Read<'a>)> + Clone + use<'a, K, V> {
        let pairs = self.map.as_slice().iter();
        pairs.filter_map(|(key, value)| Some((K::read(key)?, V::read(value)?)))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl<K, V> Clone for Pairs<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Pairs<'_, K, V> {}

static NO_MEMBERS: AtomSet = AtomSet::EMPTY;
static NO_PAIRS: AtomMap = AtomMap::EMPTY;

pub(crate) fn members<'a>(row: &'a Row, column: &str) -> &'a AtomSet {
    row.get(column)
        .and_then(|value| value.as_set())
        .unwrap_or(&NO_MEMBERS)
}

pub(crate) fn set<'a, T: Element>(
    row: &'a Row,
    column: &str,
) -> impl Iterator<Item = T::Read<'a>> + Clone + use<'a, T> {
    members(row, column).iter().filter_map(T::read)
}

pub(crate) fn optional<'a, T: Element>(row: &'a Row, column: &str) -> Option<T::Read<'a>> {
    members(row, column).iter().find_map(T::read)
}

pub(crate) fn one<'a, T: Scalar>(row: &'a Row, column: &str) -> T::Read<'a> {
    T::or_absent(optional::<T>(row, column))
}

pub(crate) fn pairs<'a, K, V>(row: &'a Row, column: &str) -> Pairs<'a, K, V> {
    let map = row
        .get(column)
        .and_then(|value| value.as_map())
        .unwrap_or(&NO_PAIRS);
    Pairs {
        map,
        types: PhantomData,
    }
}

/// One enumeration of strings.
macro_rules! enumeration {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
        }

        impl $name {
            /// The string in the database.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }

            /// The member with this string; `None` if the enumeration has none.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some($name::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl From<$name> for $crate::Atom {
            fn from(value: $name) -> Self {
                $crate::Atom::from(value.as_str())
            }
        }

        impl From<$name> for $crate::Datum {
            fn from(value: $name) -> Self {
                $crate::Datum::from(value.as_str())
            }
        }

        impl $crate::typed::Element for $name {
            type Read<'a> = $name;
            type Write = $name;
            fn read(atom: &$crate::Atom) -> Option<$name> {
                atom.as_str().and_then($name::parse)
            }
            fn find(map: &$crate::AtomMap, key: $name) -> Option<&$crate::Atom> {
                $crate::typed::Str::find(map, key.as_str())
            }
        }
    };
}

/// One table: the struct that builds columns to write, and the `…Row` that reads them.
macro_rules! table {
    (
        $(#[$doc:meta])* $name:ident, $row:ident, $table:literal;
        $($(#[$column_doc:meta])* $column:ident $constant:ident $text:literal $kind:ident $types:tt;)+
    ) => {
        $(#[$doc])*
        ///
        /// Collects values to write. A column that is not set keeps its value (update) or gets its default (insert).
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[must_use]
        pub struct $name($crate::Columns);

        impl $name {
            /// Name of the table.
            pub const TABLE: &'static str = $table;
            $(
                #[doc = concat!("Name of column `", $text, "`.")]
                pub const $constant: &'static str = $text;
            )+
            /// Names of all columns.
            pub const COLUMNS: &'static [&'static str] = &[$($text),+];

            /// No columns.
            pub fn new() -> Self {
                Self::default()
            }

            /// Reads the row's columns by name and type. The row should be one of this table.
            pub fn of(row: &$crate::Row) -> $row<'_> {
                debug_assert_eq!(&**row.table(), $table);
                $row(row)
            }

            /// The rows of this table in a snapshot.
            pub fn all(snapshot: &$crate::Snapshot) -> impl ExactSizeIterator<Item = $row<'_>> {
                snapshot.table($table).iter().map(|row| $row(row))
            }

            /// One row of this table in a snapshot.
            pub fn find(snapshot: &$crate::Snapshot, uuid: uuid::Uuid) -> Option<$row<'_>> {
                snapshot.row($table, uuid).map(|row| $row(row))
            }

            /// The columns that were set.
            pub fn into_columns(self) -> $crate::Columns {
                self.0
            }

            $($crate::typed::setter! { $(#[$column_doc])* $column $text $kind $types })+
        }

        impl From<$name> for $crate::Columns {
            fn from(row: $name) -> Self {
                row.0
            }
        }

        #[doc = concat!("A row of table `", $table, "`, read by column.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $row<'a>(&'a $crate::Row);

        impl<'a> $row<'a> {
            /// The row's identity, column `_uuid`.
            pub fn uuid(self) -> uuid::Uuid {
                self.0.uuid()
            }

            /// The row itself.
            pub fn row(self) -> &'a $crate::Row {
                self.0
            }

            $($crate::typed::getter! { $(#[$column_doc])* $column $text $kind $types })+
        }
    };
}

macro_rules! setter {
    ($(#[$doc:meta])* $column:ident $text:literal one ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(mut self, value: impl Into<<$element as $crate::typed::Element>::Write>) -> Self {
            self.0.set($text, $crate::Atom::from(value.into()));
            self
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal choice ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(mut self, value: $element) -> Self {
            self.0.set($text, $crate::Atom::from(value));
            self
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal optional ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(mut self, value: Option<impl Into<<$element as $crate::typed::Element>::Write>>) -> Self {
            self.0.set($text, value.map(|value| $crate::Atom::from(value.into())));
            self
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal set ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(
            mut self,
            values: impl IntoIterator<Item = impl Into<<$element as $crate::typed::Element>::Write>>,
        ) -> Self {
            let values: $crate::AtomSet = values.into_iter().map(|value| $crate::Atom::from(value.into())).collect();
            self.0.set($text, values);
            self
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal map ($key:ty, $value:ty)) => {
        $(#[$doc])*
        pub fn $column(
            mut self,
            pairs: impl IntoIterator<
                Item = (
                    impl Into<<$key as $crate::typed::Element>::Write>,
                    impl Into<<$value as $crate::typed::Element>::Write>,
                ),
            >,
        ) -> Self {
            let pair = |(key, value): (_, _)| -> ($crate::Atom, $crate::Atom) {
                let key: <$key as $crate::typed::Element>::Write = Into::into(key);
                let value: <$value as $crate::typed::Element>::Write = Into::into(value);
                (key.into(), value.into())
            };
            let pairs: $crate::AtomMap = pairs.into_iter().map(pair).collect();
            self.0.set($text, pairs);
            self
        }
    };
}

macro_rules! getter {
    ($(#[$doc:meta])* $column:ident $text:literal one ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(self) -> <$element as $crate::typed::Element>::Read<'a> {
            $crate::typed::one::<$element>(self.0, $text)
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal choice ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(self) -> Option<$element> {
            $crate::typed::optional::<$element>(self.0, $text)
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal optional ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(self) -> Option<<$element as $crate::typed::Element>::Read<'a>> {
            $crate::typed::optional::<$element>(self.0, $text)
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal set ($element:ty)) => {
        $(#[$doc])*
        pub fn $column(self) -> impl Iterator<Item = <$element as $crate::typed::Element>::Read<'a>> + Clone + use<'a> {
            $crate::typed::set::<$element>(self.0, $text)
        }
    };
    ($(#[$doc:meta])* $column:ident $text:literal map ($key:ty, $value:ty)) => {
        $(#[$doc])*
        pub fn $column(self) -> $crate::typed::Pairs<'a, $key, $value> {
            $crate::typed::pairs::<$key, $value>(self.0, $text)
        }
    };
}

pub(crate) use {enumeration, getter, setter, table};

#[cfg(test)]
mod tests {
    use crate::{Snapshot, Uuid, nb, sb, vswitch};

    #[test]
    fn vendored_schemas_are_what_was_generated_from() {
        for (schema, database, tables) in [
            (nb::schema(), nb::DATABASE, 34),
            (sb::schema(), sb::DATABASE, 38),
            (vswitch::schema(), vswitch::DATABASE, 19),
        ] {
            assert_eq!((&*schema.name, schema.tables.len()), (database, tables));
        }
        let columns = nb::schema()
            .table(nb::LoadBalancer::TABLE)
            .unwrap()
            .columns
            .keys();
        assert!(
            columns
                .map(|column| &**column)
                .eq(nb::LoadBalancer::COLUMNS.iter().copied())
        );
    }

    #[test]
    fn what_is_set_is_read() {
        let (id, port) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let balancer = nb::LoadBalancer::new()
            .name("a")
            .protocol(Some(nb::LoadBalancerProtocol::Sctp))
            .selection_fields([nb::LoadBalancerSelectionFields::IpSrc])
            .vips([("10.0.0.1:80", String::new())]);
        let acl = nb::Acl::new()
            .action(nb::AclAction::AllowRelated)
            .priority(1001)
            .match_("ip4")
            .tier(2);
        let switch = nb::LogicalSwitch::new()
            .name("s")
            .ports([port])
            .acls([port]);
        let rows = [
            ("Load_Balancer", id, balancer.into_columns()),
            ("ACL", id, acl.into_columns()),
            ("Logical_Switch", id, switch.into_columns()),
        ];
        let snapshot = Snapshot::of(nb::schema(), rows).unwrap_or_default();
        let balancer = nb::LoadBalancer::find(&snapshot, id).unwrap();
        assert_eq!((balancer.uuid(), balancer.name()), (id, "a"));
        assert_eq!(balancer.protocol(), Some(nb::LoadBalancerProtocol::Sctp));
        assert_eq!(
            balancer.selection_fields().collect::<Vec<_>>(),
            [nb::LoadBalancerSelectionFields::IpSrc]
        );
        assert_eq!(balancer.vips().get("10.0.0.1:80"), Some(""));
        assert_eq!(balancer.vips().get("10.0.0.2:80"), None);
        assert!(balancer.options().is_empty());
        let acl = nb::Acl::find(&snapshot, id).unwrap();
        assert_eq!(
            (acl.action(), acl.priority(), acl.match_(), acl.log()),
            (Some(nb::AclAction::AllowRelated), 1001, "ip4", false)
        );
        assert_eq!(
            acl.direction(),
            None,
            "an empty string is no member of the enumeration"
        );
        let switch = nb::LogicalSwitch::all(&snapshot).next().unwrap();
        assert_eq!(
            (switch.ports().collect::<Vec<_>>(), switch.copp()),
            (vec![port], None)
        );
    }
}
