//! One owner → the rows that it must have, or why it has none.

use crate::desired;
use crate::desired::attachment::Attachment;
use crate::eip::allocate_eip;
use crate::owner::{ObjectKey, Owner};
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
    /// True: the object's rows stay as they are, because others use them (an EipGateway with EIPs in use). False: the
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
        Owner::EipGateway(name) => match snapshot.eip_gateway(name) {
            Some(object) => {
                let gateway = validate::eip_gateway::check(snapshot, name)?;
                let Some(layout) = snapshot.settings().layout() else {
                    return Ok(Vec::new());
                };
                Ok(desired::eip_gateway::rows(
                    snapshot, name, object, gateway, layout,
                ))
            }
            None => Ok(Vec::new()),
        },
        Owner::Eip(key) => eip(snapshot, key),
        Owner::Vpc(name) => match snapshot.vpc(name) {
            Some(_) => Ok(desired::vpc::rows(snapshot, name)),
            None => Ok(Vec::new()),
        },
        Owner::Subnet(name) => match snapshot.subnet(name) {
            Some(_) => {
                let network = validate::subnet::check(snapshot, name)?;
                let attachment = Attachment::of(snapshot, &network.vpc);
                Ok(desired::subnet::rows(
                    snapshot.settings(),
                    name,
                    network,
                    attachment.as_ref(),
                ))
            }
            None => Ok(Vec::new()),
        },
        Owner::Node(name) => match snapshot.node(name) {
            Some(_) => Ok(desired::node::rows(snapshot, name)),
            None if snapshot.physical_networks(name).is_some() => {
                Ok(desired::node::rows_of_chassis(name))
            }
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
        Owner::NetworkProbe(key) => match snapshot.assignment(key) {
            Some(Err(rejection)) => Err(rejection.clone()),
            Some(Ok(_)) | None => Ok(Vec::new()),
        },
    }
}

/// Of `rows`, which are those that `owner` must have by its objects alone, makes what it must have where `observed` is what
/// it has: a Service's backends that leave, and live, keep their connections. Looking again after that took effect changes
/// nothing.
pub fn keep_connections(
    snapshot: &Snapshot,
    owner: &Owner,
    mut rows: Vec<Row>,
    observed: &ycloud_ovsdb::Snapshot,
) -> Vec<Row> {
    if let Owner::Service(key) = owner {
        desired::service::keep(snapshot, key, &mut rows, observed);
    }
    rows
}

fn eip(snapshot: &Snapshot, key: &ObjectKey) -> Result<Vec<Row>, Rejection> {
    let Some(object) = snapshot.eip(key) else {
        return Ok(Vec::new());
    };
    let Some(address) = validate::eip::check(snapshot, key, object)? else {
        return Ok(Vec::new());
    };
    let (name, gateway) = validate::eip::gateway(snapshot, key, object)?;
    let parts = snapshot.eip_gateway(name).zip(snapshot.settings().layout());
    let Some((object, layout)) = parts else {
        return Ok(Vec::new());
    };
    let of = desired::eip::Of {
        name,
        object,
        gateway,
        layout,
    };
    let binding = validate::eip::binding(snapshot, key);
    Ok(desired::eip::rows(snapshot, key, address, &binding, &of))
}

/// What keeps an accepted object from doing what its spec asks, although its rows are right: an EipGateway without nodes,
/// a Subnet whose spec was edited into something that cannot be and which stays as it was, a Vpc whose EipGateway is missing, an Eip that cannot have an address, a Service without its EIP. `None`: nothing.
pub fn hindrance(snapshot: &Snapshot, owner: &Owner) -> Option<Rejection> {
    match owner {
        Owner::EipGateway(name) => {
            validate::eip_gateway::hindrance(snapshot, name, snapshot.eip_gateway(name)?)
        }
        Owner::Vpc(name) => validate::vpc::hindrance(snapshot, name),
        Owner::Service(key) => validate::service::hindrance(snapshot, key),
        Owner::Eip(key) => allocate_eip(snapshot, snapshot.eip(key)?).err(),
        Owner::Subnet(name) => validate::subnet::hindrance(snapshot, name),
        Owner::Node(_) | Owner::VNic(_) | Owner::NetworkProbe(_) => None,
    }
}

/// The owners whose rows must be in the data plane before a Service's are of use: its Eip, EipGateway and Vpcs. Empty for
/// Services without an EIP and for other owners.
pub fn prerequisites(snapshot: &Snapshot, owner: &Owner) -> Vec<Owner> {
    let Owner::Service(key) = owner else {
        return Vec::new();
    };
    let Some((used, eip)) = snapshot.eip_use(key).zip(snapshot.eip_of_service(key)) else {
        return Vec::new();
    };
    let gateway = snapshot
        .eip(&eip)
        .and_then(|eip| snapshot.eip_gateway_of_eip(eip));
    let gateway = gateway.map(|name| Owner::EipGateway(name.to_owned()));
    let vpcs = used.vpcs.iter().cloned().map(Owner::Vpc);
    gateway
        .into_iter()
        .chain(vpcs)
        .chain([Owner::Eip(eip)])
        .collect()
}
