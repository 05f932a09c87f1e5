//! Which write to the API server an object needs next: computed from what is known, without input or output.
//!
//! One write at a time: after each the object is looked at again, until it needs none.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};
use ycloud_api::address::Family;
use ycloud_api::condition::{self, READY};
use ycloud_api::subnet::SubnetIpv6;
use ycloud_api::{Subnet, SubnetSpec, Vpc, VpcSpec, key};
use ycloud_compiler::{Owner, Settings, users};

use crate::mergepatch;
use crate::state::State;
use crate::status::subnet::Figures;
use crate::status::{self, RowState};
use crate::write::{Action, Report};

/// How often the counters of a Vpc, Subnet or EipGateway are written at most.
pub(crate) const COUNTER_REST: Duration = Duration::from_millis(500);

/// A write that an object needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// The write.
    pub action: Action,
    /// What is to be said about it once it is done.
    pub report: Option<Report>,
    /// How long the object rests after it.
    pub rest: Option<Duration>,
}

impl From<Action> for Need {
    fn from(action: Action) -> Self {
        Self {
            action,
            report: None,
            rest: None,
        }
    }
}

impl State {
    /// The write that the object of `owner` needs next; `None`: it is as it should be. An address that this gives out
    /// is in the snapshot when this returns.
    pub fn next_write(&mut self, owner: &Owner, now: &Time) -> Option<Need> {
        match owner {
            Owner::Vpc(name) => self.vpc_write(name, owner, now),
            Owner::Subnet(name) => self.subnet_write(name, owner, now),
            Owner::VNic(key) => self.vnic_write(key, owner, now),
            Owner::Service(key) => self.service_write(key, owner, now),
            Owner::EipGateway(name) => self.eip_gateway_write(name, owner, now),
            Owner::Eip(key) => self.eip_write(key, owner, now),
            Owner::NetworkProbe(key) => self.probe_write(key, now),
            Owner::Node(_) => None,
        }
    }

    fn vpc_write(&mut self, name: &str, owner: &Owner, now: &Time) -> Option<Need> {
        let Some(vpc) = self.snapshot.vpc(name).cloned() else {
            return default_vpc(name).map(|vpc| Action::CreateVpc(Box::new(vpc)).into());
        };
        let deleting = vpc.metadata.deletion_timestamp.is_some();
        let users = match deleting {
            true => users(&self.snapshot, owner),
            false => Vec::new(),
        };
        if let Some(action) = finalizer(&vpc.metadata, !users.is_empty()) {
            return Some(action.into());
        }
        if gone(&vpc.metadata) {
            return None;
        }
        let state = self.said(owner);
        if matches!(state, RowState::Pending) && !deleting {
            return None;
        }
        let gateway = self.snapshot.eip_gateway_of(name);
        let gateway = gateway.filter(|name| self.snapshot.eip_gateway(name).is_some());
        let known = status::vpc::Knowledge {
            eip_gateway: gateway.map(str::to_owned),
            subnets: self.snapshot.accepted_subnets(name),
            closed: self.snapshot.permits_nobody(name),
            users,
        };
        let status = status::vpc::status(&vpc, &state, known, now);
        let former = vpc.status.clone().unwrap_or_default();
        let report = refusal(&*vpc, "Programming", &former.conditions, &status.conditions);
        status_patch(
            &vpc.metadata,
            vpc.status.as_ref(),
            &status,
            COUNTER_REST,
            report,
        )
    }

    fn subnet_write(&mut self, name: &str, owner: &Owner, now: &Time) -> Option<Need> {
        let Some(subnet) = self.snapshot.subnet(name).cloned() else {
            let subnet = default_subnet(self.snapshot.settings(), name)?;
            return Some(Action::CreateSubnet(Box::new(subnet)).into());
        };
        let deleting = subnet.metadata.deletion_timestamp.is_some();
        let users = match deleting {
            true => users(&self.snapshot, owner),
            false => Vec::new(),
        };
        if let Some(action) = finalizer(&subnet.metadata, !users.is_empty()) {
            return Some(action.into());
        }
        let figures = Figures::of(&self.snapshot, name);
        for family in Family::ALL {
            let counts = figures.addresses(family);
            self.metrics.subnet_addresses(name, family, counts);
        }
        if gone(&subnet.metadata) {
            return None;
        }
        if !deleting && let Some(action) = gain_ipv6(self.snapshot.settings(), &subnet) {
            return Some(action.into());
        }
        let state = self.said(owner);
        if matches!(state, RowState::Pending) && !deleting {
            return None;
        }
        let status = status::subnet::status(&subnet, &state, figures, &users, now);
        let former = subnet.status.clone().unwrap_or_default();
        let report = refusal(
            &*subnet,
            "Programming",
            &former.conditions,
            &status.conditions,
        );
        status_patch(
            &subnet.metadata,
            subnet.status.as_ref(),
            &status,
            COUNTER_REST,
            report,
        )
    }
}

/// Adds the in-use finalizer to an object that lives and lacks it; takes it from one that is deleted and unused.
pub(crate) fn finalizer(metadata: &ObjectMeta, used: bool) -> Option<Action> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|name| name == key::IN_USE_FINALIZER);
    match (metadata.deletion_timestamp.is_some(), has) {
        (false, false) => finalizers.push(key::IN_USE_FINALIZER.to_owned()),
        (true, true) if !used => finalizers.retain(|name| name != key::IN_USE_FINALIZER),
        _ => return None,
    }
    Some(Action::Patch {
        patch: json!({"metadata": {"finalizers": finalizers}}),
        subresource: None,
        version: metadata.resource_version.clone(),
    })
}

/// Whether the finalizer was given up: the object is about to vanish, and its status matters to nobody.
pub(crate) fn gone(metadata: &ObjectMeta) -> bool {
    let finalizers = metadata.finalizers.iter().flatten();
    let mut ours = finalizers.filter(|name| *name == key::IN_USE_FINALIZER);
    metadata.deletion_timestamp.is_some() && ours.next().is_none()
}

/// The write that makes `status` the object's; `None`: it is.
pub(crate) fn status_patch<S: Serialize>(
    metadata: &ObjectMeta,
    former: Option<&S>,
    status: &S,
    rest: Duration,
    report: Option<Report>,
) -> Option<Need> {
    // Serializing these types cannot fail: they are plain structs with string keys.
    let old = former.and_then(|s| serde_json::to_value(s).ok());
    let new = serde_json::to_value(status).ok()?;
    let patch = mergepatch::between(&old.unwrap_or(Value::Null), &new)?;
    let action = Action::Patch {
        patch: json!({"status": patch}),
        subresource: Some("status"),
        version: metadata.resource_version.clone(),
    };
    Some(Need {
        action,
        report,
        rest: Some(rest),
    })
}

/// What to tell if `new` says that the object is not ready for another reason than `old` does: a warning, unless it is just on
/// its way.
pub(crate) fn refusal<K: Resource<DynamicType = ()>>(
    object: &K,
    action: &'static str,
    old: &[Condition],
    new: &[Condition],
) -> Option<Report> {
    let verdict = |all: &[Condition]| {
        let ready = all.iter().find(|c| c.type_ == READY && c.status == "False");
        ready.map(|c| (c.reason.clone(), c.message.clone()))
    };
    let (reason, message) = verdict(new).filter(|new| verdict(old).as_ref() != Some(new))?;
    Some(Report {
        regarding: object.object_ref(&()),
        // Its own end is no fault; that of what it would be in is one.
        warning: match reason.as_str() {
            condition::reason::PENDING => false,
            condition::reason::DELETING => object.meta().deletion_timestamp.is_none(),
            _ => true,
        },
        reason,
        action,
        message,
    })
}

/// The default objects, which are made where they are missing.
pub fn default_owners() -> [Owner; 3] {
    [
        Owner::Vpc(key::DEFAULT_VPC.to_owned()),
        Owner::Subnet(key::JOIN_SUBNET.to_owned()),
        Owner::Subnet(key::DEFAULT_SUBNET.to_owned()),
    ]
}

fn default_vpc(name: &str) -> Option<Vpc> {
    (name == key::DEFAULT_VPC).then(|| Vpc::new(name, VpcSpec::default()))
}

fn default_subnet(settings: &Settings, name: &str) -> Option<Subnet> {
    let cidr = match name {
        key::JOIN_SUBNET => settings.join_cidr(),
        key::DEFAULT_SUBNET => settings.default_subnet_cidr,
        _ => return None,
    };
    let spec = SubnetSpec {
        vpc: key::DEFAULT_VPC.to_owned(),
        cidr: Some(cidr.to_string()),
        ipv6: default_ipv6(settings, name),
        ..SubnetSpec::default()
    };
    Some(Subnet::new(name, spec))
}

/// The IPv6 side of a default Subnet, where the default Vpc has IPv6.
fn default_ipv6(settings: &Settings, name: &str) -> Option<SubnetIpv6> {
    let default = settings.default_subnet_ipv6_cidr?;
    let cidr = match name {
        key::JOIN_SUBNET => settings.join_ipv6_cidr(),
        key::DEFAULT_SUBNET => default,
        _ => return None,
    };
    Some(SubnetIpv6 {
        cidr: cidr.to_string(),
        gateway: None,
    })
}

/// Gives a default Subnet that was made before the default Vpc had IPv6 its IPv6 side.
fn gain_ipv6(settings: &Settings, subnet: &Subnet) -> Option<Action> {
    if subnet.spec.vpc != key::DEFAULT_VPC || subnet.spec.ipv6.is_some() {
        return None;
    }
    let ipv6 = default_ipv6(settings, subnet.metadata.name.as_deref()?)?;
    Some(Action::Patch {
        patch: json!({"spec": {"ipv6": ipv6}}),
        subresource: None,
        version: subnet.metadata.resource_version.clone(),
    })
}
