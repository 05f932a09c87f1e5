//! One owner → the rows that it must have, or why it has none.

use crate::desired;
use crate::owner::Owner;
use crate::row::Row;
use crate::snapshot::Snapshot;
use crate::validate;

/// Why an object is not done as its spec asks. It becomes a condition, and is not tried again until something that the
/// object depends on changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// One of [`ycloud_api::condition::reason`].
    pub reason: &'static str,
    /// For people: names object, field, value and cure.
    pub message: String,
    /// True: the object's rows stay as they are, because others use them (a Subnet with addresses in use). False: the
    /// object has no rows.
    pub keep: bool,
}

impl Rejection {
    /// A rejection that leaves the object without rows.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            keep: false,
        }
    }
}

/// The rows that `owner` must have, sorted so that a row stands after those it is a member of. An object that does not
/// exist has none.
///
/// # Errors
/// A [`Rejection`] if the object is invalid. Unless it says `keep`, the owner must have no rows.
pub fn compile(snapshot: &Snapshot, owner: &Owner) -> Result<Vec<Row>, Rejection> {
    match owner {
        Owner::EipGateway(_) | Owner::Eip(_) => Ok(Vec::new()),
        Owner::Vpc(name) => match snapshot.vpc(name) {
            Some(_) => Ok(desired::vpc::rows(snapshot, name)),
            None => Ok(Vec::new()),
        },
        Owner::Subnet(name) => match snapshot.subnet(name) {
            Some(_) => {
                let network = validate::subnet::check(snapshot, name)?;
                Ok(desired::subnet::rows(name, &network))
            }
            None => Ok(Vec::new()),
        },
        Owner::Node(name) => match snapshot.node(name) {
            Some(_) => Ok(desired::node::rows(snapshot, name)),
            None => Ok(Vec::new()),
        },
        Owner::VNic(key) => match snapshot.vnic(key) {
            Some(vnic) => match validate::vnic::check(snapshot, key, vnic)? {
                Some(address) => Ok(desired::vnic::rows(key, vnic, &address)),
                None => Ok(Vec::new()),
            },
            None => Ok(Vec::new()),
        },
        Owner::Service(key) => match snapshot.service(key) {
            Some(service) => {
                let vpc = validate::service::check(snapshot, key, service)?;
                Ok(desired::service::rows(snapshot, key, service, vpc))
            }
            None => Ok(Vec::new()),
        },
    }
}
