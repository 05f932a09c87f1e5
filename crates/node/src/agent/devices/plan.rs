//! Which devices shall be on the integration bridge, and what is said of each VNic: pure.

use std::collections::BTreeMap;

use ycloud_api::VNic;
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::vnic::{AttachmentKind, logical_port};
use ycloud_ovsdb::Uuid;

use super::super::mac::Mac;
use super::super::objects::Key;
use super::super::ovs::BRIDGE;
use super::super::ovs::device_port::{DevicePort, Interface};

/// A link of the chassis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// What else it is used for, in words that follow its name: `has address 192.0.2.7/24`.
    pub used: Option<String>,
}

/// The chassis as it is.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Its name.
    pub chassis: &'a str,
    /// Its links, by name.
    pub links: &'a BTreeMap<String, Device>,
    /// Open vSwitch's interfaces.
    pub interfaces: &'a [Interface],
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ports to take off the bridge.
    pub removed: Vec<Uuid>,
    /// Ports to put there once those are gone.
    pub added: Vec<DevicePort>,
    /// All that shall be there then.
    pub ports: Vec<DevicePort>,
    /// What each VNic's condition says; `None`: it has none.
    pub verdicts: BTreeMap<Key, Option<Verdict>>,
}

/// Compares VNics of the chassis, with what it has.
pub fn plan(vnics: &BTreeMap<Key, VNic>, machine: &Machine<'_>) -> Plan {
    let mut plan = Plan::default();
    let owners = owners(vnics);
    for (key, vnic) in vnics {
        let attachment = &vnic.spec.attachment;
        if matches!(attachment.kind, AttachmentKind::Pod | AttachmentKind::Node) {
            continue;
        }
        let device = attachment.device.as_ref().and_then(|device| device.name());
        let verdict = match device {
            None => twice(key, machine),
            Some(device) => Some(match owners.get(device) {
                Some(owner) if *owner != key => taken(format!(
                    "VNic {} has device {device} of chassis {}; name another device in spec.attachment.device of one of them, or delete one",
                    name(owner),
                    machine.chassis
                )),
                _ => match wanted(key, vnic, device, machine) {
                    Ok(port) => {
                        let verdict = verdict(&port, machine);
                        plan.ports.push(port);
                        verdict
                    }
                    Err(verdict) => verdict,
                },
            }),
        };
        plan.verdicts.insert(key.clone(), verdict);
    }
    for interface in machine.interfaces {
        let Some(own) = own(interface) else { continue };
        match plan.ports.iter().find(|port| port.name == own.name) {
            Some(port) if port == own => {}
            _ => plan.removed.push(interface.uuid),
        }
    }
    let there = |port: &&DevicePort| {
        let mut own = machine.interfaces.iter().filter_map(own);
        !own.any(|own| own == *port)
    };
    plan.added = plan.ports.iter().filter(there).cloned().collect();
    plan
}

/// The VNic that has each device: the oldest that names it.
fn owners(vnics: &BTreeMap<Key, VNic>) -> BTreeMap<&str, &Key> {
    let mut owners = BTreeMap::<&str, (_, &Key)>::new();
    for (key, vnic) in vnics {
        let device = vnic.spec.attachment.device.as_ref();
        let Some(device) = device.and_then(|device| device.name()) else {
            continue;
        };
        let created = vnic.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let this = (created, key);
        let owner = owners.entry(device).or_insert(this);
        *owner = (*owner).min(this);
    }
    owners
        .into_iter()
        .map(|(device, (_, key))| (device, key))
        .collect()
}

/// A port of ours on the integration bridge.
fn own(interface: &Interface) -> Option<&DevicePort> {
    let here = interface.bridge.as_deref() == Some(BRIDGE);
    interface.device.as_ref().filter(|_| here)
}

/// The port that the device of a VNic shall have, or why it has none.
fn wanted(
    key: &Key,
    vnic: &VNic,
    device: &str,
    machine: &Machine<'_>,
) -> Result<DevicePort, Verdict> {
    let chassis = machine.chassis;
    let status = vnic.status.as_ref();
    let addressed = status.filter(|status| status.ip.is_some() || status.ipv6.is_some());
    let mac = addressed.and_then(|status| status.mac.as_ref()?.parse::<Mac>().ok());
    let Some(mac) = mac else {
        return Err(Verdict::no(
            reason::PENDING,
            "it has no address yet; see its condition Ready",
        ));
    };
    let Some(link) = machine.links.get(device) else {
        return Err(Verdict::no(
            reason::DEVICE_NOT_FOUND,
            format!(
                "chassis {chassis} has no device {device}; make it there, or correct spec.attachment.chassis or spec.attachment.device"
            ),
        ));
    };
    let port = DevicePort {
        name: device.to_owned(),
        index: link.index,
        vnic: name(key),
        logical_port: logical_port(&key.0, &key.1),
        mac,
    };
    let interface = machine.interfaces.iter().find(|i| i.name == device);
    let ours = interface.and_then(own);
    if let (Some(interface), None) = (interface, ours) {
        let bridge = interface.bridge.as_deref().unwrap_or("no bridge");
        return Err(taken(format!(
            "device {device} of chassis {chassis} is a port of {bridge} that ycloud-cni did not make; take it off there (ovs-vsctl del-port {device}), or name another device in spec.attachment.device"
        )));
    }
    if let (Some(used), None) = (&link.used, ours) {
        return Err(taken(format!(
            "device {device} of chassis {chassis} {used}; take that away, or name another device in spec.attachment.device"
        )));
    }
    // One that is bound already is not torn off; the other one is told of all the same.
    let bound = ours.is_some_and(|ours| ours.logical_port == port.logical_port);
    if let (Some(other), false) = (others(&port.logical_port, device, machine).next(), bound) {
        return Err(both(&port.logical_port, device, &other.name, machine));
    }
    Ok(port)
}

/// What is said of a device whose port is there or about to be.
fn verdict(port: &DevicePort, machine: &Machine<'_>) -> Verdict {
    let (device, chassis) = (&port.name, machine.chassis);
    if let Some(other) = others(&port.logical_port, device, machine).next() {
        return both(&port.logical_port, device, &other.name, machine);
    }
    let mut interfaces = machine.interfaces.iter();
    let there = interfaces.find(|interface| own(interface) == Some(port));
    match there {
        Some(interface) if interface.installed => Verdict::yes(
            reason::WIRED,
            format!("device {device} is on {BRIDGE} of chassis {chassis}"),
        ),
        Some(Interface {
            error: Some(error), ..
        }) => Verdict::no(
            reason::PENDING,
            format!("Open vSwitch of chassis {chassis} cannot use device {device}: {error}"),
        ),
        Some(_) => Verdict::unknown(
            reason::PENDING,
            format!(
                "device {device} is on {BRIDGE} of chassis {chassis}, and ovn-controller has not reported ovn-installed yet"
            ),
        ),
        None => Verdict::unknown(
            reason::PENDING,
            format!("device {device} is being put on {BRIDGE} of chassis {chassis}"),
        ),
    }
}

/// What is said of a VNic without a device: who binds it is none of our business, unless two do.
fn twice(key: &Key, machine: &Machine<'_>) -> Option<Verdict> {
    let port = logical_port(&key.0, &key.1);
    let mut others = others(&port, "", machine);
    let (first, second) = (others.next()?, others.next()?);
    Some(both(&port, &first.name, &second.name, machine))
}

/// The interfaces of the integration bridge that others made and that claim a logical port, but for that of this device.
fn others<'a>(
    port: &'a str,
    device: &'a str,
    machine: &Machine<'a>,
) -> impl Iterator<Item = &'a Interface> {
    machine.interfaces.iter().filter(move |interface| {
        interface.logical_port.as_deref() == Some(port)
            && interface.name != device
            && interface.bridge.as_deref() == Some(BRIDGE)
            && own(interface).is_none()
    })
}

fn both(port: &str, first: &str, second: &str, machine: &Machine<'_>) -> Verdict {
    let chassis = machine.chassis;
    taken(format!(
        "interfaces {first} and {second} of chassis {chassis} both have iface-id {port}; take external_ids:iface-id off one of them"
    ))
}

fn taken(message: String) -> Verdict {
    Verdict::no(reason::DEVICE_TAKEN, message)
}

fn name((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests;
