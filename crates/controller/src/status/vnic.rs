//! The status of a `VNic`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ycloud_api::address::Family;
use ycloud_api::condition::{self, IN_USE, READY, Verdict, WIRED, reason};
use ycloud_api::vnic::{AttachmentKind, Phase, VNicIpv6};
use ycloud_api::{VNic, VNicStatus};
use ycloud_compiler::{Allocation, Rejection};

use super::RowState;

/// The status of a VNic that just got addresses. One that had some already goes on as it was, with its port.
pub fn addressed(vnic: &VNic, allocation: &Allocation, now: &Time) -> VNicStatus {
    let mut status = vnic.status.clone().unwrap_or_default();
    let had = status.links().next().is_some();
    if let Some(address) = allocation.of(Family::Ipv4) {
        status.ip = Some(address.ip.to_string());
        status.prefix_length = Some(i32::from(address.prefix_length));
        status.gateway = Some(address.gateway.to_string());
    }
    if let Some(address) = allocation.of(Family::Ipv6) {
        status.ipv6 = Some(VNicIpv6 {
            ip: address.ip.to_string(),
            prefix_length: i32::from(address.prefix_length),
            gateway: address.gateway.to_string(),
        });
    }
    status.mac = Some(allocation.mac.clone());
    status.vpc = Some(allocation.vpc.clone());
    if had {
        return status;
    }
    status.phase = Phase::Pending;
    let verdict = Verdict::no(reason::PENDING, "the logical port is being made");
    set_ready(vnic, &mut status, &verdict, now);
    status
}

/// The status of a VNic that gets no address.
pub fn refused(vnic: &VNic, rejection: &Rejection, now: &Time) -> VNicStatus {
    let mut status = vnic.status.clone().unwrap_or_default();
    status.phase = Phase::Pending;
    let verdict = Verdict::no(rejection.reason, &rejection.message);
    set_ready(vnic, &mut status, &verdict, now);
    status
}

/// Whether something is attached to the logical port of a VNic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// OVN has bound it (`Logical_Switch_Port:up`).
    Up,
    /// Not yet.
    Down,
    /// Nor will there be: its chassis is no Node, and has an address only for NetworkProbes to be asked from.
    OfNoNode,
    /// Nor can there be: OVN knows no such chassis, but those named here.
    OfNoChassis(Vec<String>),
}

/// The status of a VNic that has an address. `lack`: why it cannot have the address of another family that its Subnet has.
/// `users`: what a deletion waits for, as `<Kind> <namespace>/<name>`.
pub fn status(
    vnic: &VNic,
    state: &RowState,
    port: Port,
    lack: Option<&Rejection>,
    users: &[String],
    now: &Time,
) -> VNicStatus {
    let mut status = vnic.status.clone().unwrap_or_default();
    let attachment = &vnic.spec.attachment;
    let verdict = match (state, &port) {
        (RowState::Pending, _) => return status,
        (RowState::Settled, Port::Up) => {
            status.phase = Phase::Up;
            Verdict::yes(reason::READY, "its logical port is bound")
        }
        (RowState::Settled, Port::Down | Port::OfNoNode | Port::OfNoChassis(_)) => {
            status.phase = Phase::Bound;
            match (attachment.kind, &attachment.chassis) {
                (_, Some(chassis)) if matches!(port, Port::OfNoChassis(_)) => {
                    no_chassis(chassis, &port)
                }
                (AttachmentKind::None, _) => {
                    Verdict::yes(reason::READY, "it has a logical port; nothing is attached")
                }
                (_, Some(chassis)) if port == Port::OfNoNode => Verdict::yes(
                    reason::READY,
                    format!(
                        "chassis {chassis} is no Node: it has an address, and nothing is attached"
                    ),
                ),
                (_, Some(chassis)) => Verdict::no(
                    reason::PENDING,
                    format!("chassis {chassis} has not bound its logical port"),
                ),
                (_, None) => Verdict::no(
                    reason::PENDING,
                    "spec.attachment.chassis is not known; no chassis has bound its logical port",
                ),
            }
        }
        (RowState::Refused(_) | RowState::Failing(_) | RowState::Hindered(_), _) => {
            status.phase = Phase::Pending;
            match super::ready(state) {
                Some(verdict) => verdict,
                None => return status,
            }
        }
    };
    status.chassis = match status.phase {
        Phase::Up => attachment.chassis.clone(),
        Phase::Bound | Phase::Pending => None,
    };
    let lack = lack.map(|rejection| Verdict::no(rejection.reason, &rejection.message));
    let verdict = lack
        .filter(|_| matches!(state, RowState::Settled))
        .unwrap_or(verdict);
    set_ready(vnic, &mut status, &verdict, now);
    set_in_use(vnic, &mut status, users, now);
    if attachment.chassis.is_none() {
        // The agents' word, who look at VNics of their own chassis only.
        status.conditions.retain(|c| c.type_ != WIRED);
    }
    status
}

/// That there is no such chassis, and which there are.
fn no_chassis(chassis: &str, port: &Port) -> Verdict {
    let known = match port {
        Port::OfNoChassis(known) => super::summary(known),
        _ => None,
    };
    Verdict::no(
        reason::NOT_FOUND,
        format!(
            "OVN knows no chassis {chassis}, but {}; correct spec.attachment.chassis, or see that ovn-controller runs there with \
             this name as its system-id",
            known.as_deref().unwrap_or("none at all")
        ),
    )
}

/// A VNic that is deleted while somebody uses it says that it waits for them.
fn set_in_use(vnic: &VNic, status: &mut VNicStatus, users: &[String], now: &Time) {
    let deleting = vnic.metadata.deletion_timestamp.is_some();
    let verdict = match vnic.spec.attachment.kind {
        AttachmentKind::Pod | AttachmentKind::Node => super::in_use(deleting, users),
        AttachmentKind::VM | AttachmentKind::BM | AttachmentKind::None => users
            .first()
            .filter(|_| deleting)
            .map(|_| Verdict::yes(reason::IN_USE, format!(
                "the deletion waits for connections to drain, for their spec.drainSeconds at most: {}",
                users.join(", ")
            ))),
    };
    match verdict {
        Some(verdict) => {
            let generation = vnic.metadata.generation;
            condition::set(&mut status.conditions, IN_USE, &verdict, generation, now);
        }
        None => status.conditions.retain(|c| c.type_ != IN_USE),
    }
}

fn set_ready(vnic: &VNic, status: &mut VNicStatus, verdict: &Verdict, now: &Time) {
    let generation = vnic.metadata.generation;
    condition::set(&mut status.conditions, READY, verdict, generation, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use ycloud_api::vnic::Attachment;

    fn now() -> Time {
        Time(Timestamp::from_second(1).unwrap())
    }

    fn vnic(kind: AttachmentKind, chassis: Option<&str>) -> VNic {
        let mut vnic = VNic::default();
        vnic.spec.attachment = Attachment {
            kind,
            chassis: chassis.map(str::to_owned),
            ..Attachment::default()
        };
        vnic
    }

    #[test]
    fn a_pod_s_port_is_ready_once_it_is_bound() {
        let mut vnic = vnic(AttachmentKind::Pod, Some("node-1"));
        let bound = status(&vnic, &RowState::Settled, Port::Down, None, &[], &now());
        assert_eq!(
            (bound.phase, bound.chassis.as_deref()),
            (Phase::Bound, None)
        );
        assert!(!condition::is_true(&bound.conditions, READY));
        assert!(bound.conditions[0].message.contains("node-1"));
        vnic.status = Some(bound);
        let up = status(&vnic, &RowState::Settled, Port::Up, None, &[], &now());
        assert_eq!(
            (up.phase, up.chassis.as_deref()),
            (Phase::Up, Some("node-1"))
        );
        assert!(condition::is_true(&up.conditions, READY));
        vnic.status = Some(up.clone());
        assert_eq!(
            status(&vnic, &RowState::Pending, Port::Down, None, &[], &now()),
            up
        );
    }

    #[test]
    fn what_an_agent_says_of_a_device_stays_while_there_is_a_chassis() {
        let wired = Verdict::yes(reason::WIRED, "device tap7 is on br-int of chassis node-2");
        for (chassis, stays) in [(Some("node-2"), true), (None, false)] {
            let mut vnic = vnic(AttachmentKind::VM, chassis);
            let conditions = &mut vnic.status.get_or_insert_default().conditions;
            condition::set(conditions, WIRED, &wired, Some(1), &now());
            let status = status(&vnic, &RowState::Settled, Port::Up, None, &[], &now());
            assert_eq!(condition::is_true(&status.conditions, WIRED), stays);
            assert!(condition::is_true(&status.conditions, READY));
        }
    }

    #[test]
    fn a_chassis_that_does_not_exist_is_named_with_those_that_do() {
        let vnic = vnic(AttachmentKind::BM, Some("dpu-9"));
        for (known, words) in [
            (&["dpu-1", "node-1"][..], "but dpu-1,node-1;"),
            (&[], "but none at all;"),
        ] {
            let known = known.iter().map(|&name| name.to_owned()).collect();
            let port = Port::OfNoChassis(known);
            let status = status(&vnic, &RowState::Settled, port, None, &[], &now());
            let ready = &status.conditions[0];
            assert_eq!(
                (ready.status.as_str(), ready.reason.as_str()),
                ("False", "NotFound")
            );
            assert!(
                ready.message.contains("no chassis dpu-9"),
                "{}",
                ready.message
            );
            assert!(ready.message.contains(words), "{}", ready.message);
        }
    }

    #[test]
    fn a_bare_address_is_ready_without_a_chassis_and_a_chassis_without_a_node() {
        for (kind, chassis, port, ready) in [
            (AttachmentKind::None, None, Port::Down, true),
            (AttachmentKind::Node, Some("dpu-1"), Port::OfNoNode, true),
            (AttachmentKind::Node, Some("node-1"), Port::Down, false),
        ] {
            let vnic = vnic(kind, chassis);
            let status = status(&vnic, &RowState::Settled, port, None, &[], &now());
            assert_eq!(condition::is_true(&status.conditions, READY), ready);
        }
    }
}
