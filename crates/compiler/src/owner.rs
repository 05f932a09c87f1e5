//! Who a row belongs to, and the names and UUIDs that follow from it.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// `external_ids` key of every row that ycloud wrote: its [`Owner`], as [`Owner`]'s `Display` writes it.
pub const OWNER_KEY: &str = "iaas.yusur.io/owner";

/// `external_ids` key of every row that ycloud wrote: which of the owner's rows it is.
pub const ROLE_KEY: &str = "iaas.yusur.io/role";

/// Namespace of every UUIDv5 (RFC 9562 §5.5) that ycloud derives. Never changes: rows of running clusters carry it.
pub const UUID_NAMESPACE: Uuid = Uuid::from_u128(0x6a1f_0c52_93d4_5b0e_8c77_2f4e_9b1d_30a6);

/// Namespace and name of a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, at most 63 characters.
    pub namespace: String,
    /// Name, at most 253 characters.
    pub name: String,
}

impl ObjectKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An object whose rows are compiled, compared and written together. `Display` and `FromStr` are the form that stands
/// in `external_ids`: `<Kind>/<namespace>/<name>`, the namespace empty for cluster-scoped kinds.
///
/// The order is that of dependence: rows of a later kind are members of rows of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// An `EipGateway`.
    EipGateway(String),
    /// A `Vpc`.
    Vpc(String),
    /// A `Subnet`.
    Subnet(String),
    /// A `Node`.
    Node(String),
    /// A `VNic`.
    VNic(ObjectKey),
    /// An `Eip`.
    Eip(ObjectKey),
    /// A `Service`.
    Service(ObjectKey),
    /// A `NetworkProbe`. It has no rows: what its prober needs are rows of its Vpc.
    NetworkProbe(ObjectKey),
}

impl Owner {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Owner::EipGateway(_) => "EipGateway",
            Owner::Vpc(_) => "Vpc",
            Owner::Subnet(_) => "Subnet",
            Owner::Node(_) => "Node",
            Owner::VNic(_) => "VNic",
            Owner::Eip(_) => "Eip",
            Owner::Service(_) => "Service",
            Owner::NetworkProbe(_) => "NetworkProbe",
        }
    }

    /// The UUID of this owner's row of that role: UUIDv5 of [`UUID_NAMESPACE`] over owner, a space, and role.
    pub fn uuid(&self, role: &str) -> Uuid {
        Uuid::new_v5(&UUID_NAMESPACE, format!("{self} {role}").as_bytes())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::EipGateway(name)
            | Owner::Vpc(name)
            | Owner::Subnet(name)
            | Owner::Node(name) => {
                write!(f, "{}//{name}", self.kind())
            }
            Owner::VNic(key) | Owner::Eip(key) | Owner::Service(key) | Owner::NetworkProbe(key) => {
                write!(f, "{}/{key}", self.kind())
            }
        }
    }
}

/// A text is no [`Owner`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read {text:?} as an owner; the form is <Kind>/<namespace>/<name>")]
pub struct OwnerError {
    /// The text.
    pub text: String,
}

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let error = || OwnerError {
            text: text.to_owned(),
        };
        let mut parts = text.splitn(3, '/');
        let (Some(kind), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        if name.is_empty() || name.contains('/') {
            return Err(error());
        }
        match (kind, namespace.is_empty()) {
            ("EipGateway", true) => Ok(Owner::EipGateway(name.into())),
            ("Vpc", true) => Ok(Owner::Vpc(name.into())),
            ("Subnet", true) => Ok(Owner::Subnet(name.into())),
            ("Node", true) => Ok(Owner::Node(name.into())),
            ("VNic", false) => Ok(Owner::VNic(ObjectKey::new(namespace, name))),
            ("Eip", false) => Ok(Owner::Eip(ObjectKey::new(namespace, name))),
            ("Service", false) => Ok(Owner::Service(ObjectKey::new(namespace, name))),
            ("NetworkProbe", false) => Ok(Owner::NetworkProbe(ObjectKey::new(namespace, name))),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
    }

    pub fn owner() -> impl Strategy<Value = Owner> {
        prop_oneof![
            name().prop_map(Owner::EipGateway),
            name().prop_map(Owner::Vpc),
            name().prop_map(Owner::Subnet),
            name().prop_map(Owner::Node),
            (name(), name()).prop_map(|(ns, n)| Owner::VNic(ObjectKey::new(ns, n))),
            (name(), name()).prop_map(|(ns, n)| Owner::Eip(ObjectKey::new(ns, n))),
            (name(), name()).prop_map(|(ns, n)| Owner::Service(ObjectKey::new(ns, n))),
            (name(), name()).prop_map(|(ns, n)| Owner::NetworkProbe(ObjectKey::new(ns, n))),
        ]
    }

    proptest! {
        #[test]
        fn text_and_back(owner in owner()) {
            prop_assert_eq!(owner.to_string().parse::<Owner>(), Ok(owner));
        }

        #[test]
        fn anything_else_is_refused_or_comes_back_the_same(text in "[A-Za-z]{0,8}/{0,2}[a-z]{0,3}/?[a-z/]{0,4}") {
            if let Ok(owner) = text.parse::<Owner>() {
                prop_assert_eq!(owner.to_string(), text);
            }
        }

        #[test]
        fn owners_and_roles_do_not_share_uuids(a in owner(), b in owner()) {
            prop_assert_eq!(a == b, a.uuid("x") == b.uuid("x"));
            prop_assert_ne!(a.uuid("x"), a.uuid("y"));
        }
    }

    #[test]
    fn the_uuid_of_a_row_never_changes() {
        assert_eq!(
            Owner::Vpc("vpc1".into()).uuid("router").to_string(),
            Uuid::new_v5(&UUID_NAMESPACE, b"Vpc//vpc1 router").to_string()
        );
    }
}
