//! EipGateways, Eips, and what the data plane says of chassis: how their changes concern others.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ycloud_api::{Eip, EipGateway};

use super::apply::{Owners, put};
use super::{Age, Snapshot};
use crate::owner::{ObjectKey, Owner};

/// The chassis that holds the chassisredirect ports of an `HA_Chassis_Group`: `Port_Binding:chassis`, ovn-sb(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of the `HA_Chassis_Group`.
    pub group: String,
    /// Name of the chassis, which is its node's.
    pub chassis: String,
}

/// What is kept of a chassis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chassis {
    /// Its name, which is its node's.
    pub name: String,
    /// The physical networks that it has a bridge for: `Chassis:other_config:ovn-bridge-mappings`, ovn-sb(5).
    pub physical_networks: BTreeSet<String>,
}

/// Order of EipGateways: by creation time (whole seconds since 1970; 0 if unknown), then by name.
fn created(name: &str, meta: &ObjectMeta) -> Age {
    let created = meta.creation_timestamp.as_ref();
    (created.map_or(0, |t| t.0.as_second()), name.to_owned())
}

impl Snapshot {
    /// An EipGateway.
    pub fn eip_gateway(&self, name: &str) -> Option<&Arc<EipGateway>> {
        self.eip_gateways.get(name)
    }

    /// All EipGateways by name.
    pub fn eip_gateways(&self) -> impl Iterator<Item = (&str, &Arc<EipGateway>)> {
        self.eip_gateways.iter().map(|(name, g)| (name.as_str(), g))
    }

    /// The default EipGateway: the oldest that is marked; if none is, the only one there is.
    pub fn default_eip_gateway(&self) -> Option<&str> {
        let marked = self.eip_gateways.iter().filter(|(_, g)| g.spec.default);
        let oldest = marked.min_by_key(|(name, g)| created(name, &g.metadata));
        let only = || (self.eip_gateways.len() == 1).then(|| self.eip_gateways.first_key_value());
        oldest.or_else(|| only()?).map(|(name, _)| name.as_str())
    }

    /// The EipGateway that a Vpc names, or else the default one; it need not exist or be accepted.
    pub fn eip_gateway_of(&self, vpc: &str) -> Option<&str> {
        let vpc = self.vpcs.get(vpc)?;
        let named = vpc.spec.eip_gateway.as_deref();
        named.or_else(|| self.default_eip_gateway())
    }

    /// An Eip.
    pub fn eip(&self, key: &ObjectKey) -> Option<&Arc<Eip>> {
        self.eips.get(key)
    }

    /// All Eips by key.
    pub fn eips(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Eip>)> {
        self.eips.iter()
    }

    /// The chassis that holds the ports of an `HA_Chassis_Group`.
    pub fn claim(&self, group: &str) -> Option<&str> {
        self.active_chassis.get(group).map(String::as_str)
    }

    pub(super) fn set_eip_gateway(
        &mut self,
        name: String,
        gateway: Option<Arc<EipGateway>>,
    ) -> Owners {
        put(&mut self.eip_gateways, &name, gateway);
        Owners::from([Owner::EipGateway(name)])
    }

    pub(super) fn set_eip(&mut self, key: ObjectKey, eip: Option<Arc<Eip>>) -> Owners {
        put(&mut self.eips, &key, eip);
        Owners::from([Owner::Eip(key)])
    }

    pub(super) fn set_claim(&mut self, group: String, chassis: Option<String>) -> Owners {
        let new = chassis.clone();
        if put(&mut self.active_chassis, &group, chassis) == new {
            return Owners::new();
        }
        let all = self.eip_gateways.keys().cloned();
        all.map(Owner::EipGateway).collect()
    }

    pub(super) fn set_chassis(
        &mut self,
        name: String,
        networks: Option<BTreeSet<String>>,
    ) -> Owners {
        let new = networks.clone();
        if put(&mut self.chassis, &name, networks) == new {
            return Owners::new();
        }
        let all = self.eip_gateways.keys().cloned();
        all.map(Owner::EipGateway).collect()
    }
}
