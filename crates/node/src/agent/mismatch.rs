//! Pods whose interface has another address than their VNic says, as when somebody writes a status by hand or restores one: OVN
//! drops what they send, and nobody reaches them. An Event on the Pod and one on the VNic say so, as long as it is so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};
use ycloud_api::VNic;
use ycloud_api::vnic::logical_port;
use ycloud_client::Heartbeat;

use super::address;
use super::objects::{Key, Objects};
use super::ovs::{Ovs, Port};

/// How often ports and VNics are compared, besides each change of a VNic.
const PERIOD: Duration = Duration::from_secs(30);

/// How long after an Event the next one comes that says the same.
const REPEAT: Duration = Duration::from_secs(600);

/// Longest wait for the answer to one request.
const LIMIT: Duration = Duration::from_secs(10);

/// A Pod whose interface has other addresses than its VNic.
#[derive(Debug, Clone, PartialEq)]
struct Mismatch {
    pod: ObjectReference,
    vnic: ObjectReference,
    /// For people.
    message: String,
}

/// Compares the addresses of ports with those of the VNics that they are for, by logical port. Of a family that only one of both
/// has nothing is said: a Pod keeps the families with which its interface was configured.
fn mismatches(vnics: &BTreeMap<Key, VNic>, ports: &[Port]) -> BTreeMap<String, Mismatch> {
    let by_port: BTreeMap<String, &VNic> = vnics
        .iter()
        .map(|((namespace, name), vnic)| (logical_port(namespace, name), vnic))
        .collect();
    let found = ports.iter().filter_map(|port| {
        let facts = &port.facts;
        let vnic = by_port.get(&facts.logical_port)?;
        let said = address::of(vnic.status.as_ref()?)?;
        let other = |ip: IpAddr| {
            let mut same = said.ips().filter(|said| said.is_ipv4() == ip.is_ipv4());
            same.next().filter(|said| *said != ip)
        };
        let (has, says) = facts.addresses.ips().find_map(|ip| Some((ip, other(ip)?)))?;
        let reference = ObjectReference {
            resource_version: None,
            ..vnic.object_ref(&())
        };
        let message = format!(
            "interface {} of Pod {}/{} has address {has}, and status of VNic {}/{} says {says}: OVN lets nothing through; undo what \
             was written to the status, or delete the Pod to have it made anew",
            facts.id.ifname,
            facts.pod.namespace,
            facts.pod.name,
            facts.pod.namespace,
            reference.name.as_deref().unwrap_or_default(),
        );
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(facts.pod.namespace.clone()),
            name: Some(facts.pod.name.clone()),
            uid: facts.pod.uid.clone(),
            ..ObjectReference::default()
        };
        let mismatch = Mismatch {
            pod,
            vnic: reference,
            message,
        };
        Some((facts.logical_port.clone(), mismatch))
    });
    found.collect()
}

/// The task.
pub struct Watch {
    /// For Events.
    pub client: Client,
    /// Name of the node.
    pub node: String,
    /// VNics attached on this node.
    pub vnics: watch::Receiver<Objects<VNic>>,
    /// The switch.
    pub ovs: Ovs,
}

impl Watch {
    /// Compares for ever. A pass is a comparison.
    pub async fn run(mut self, heartbeat: Heartbeat) {
        let reporter = Reporter {
            controller: "ycloud-cni".to_owned(),
            instance: Some(self.node.clone()),
        };
        let mut period = interval(PERIOD);
        // What was said last of each logical port, when, and what counts its repetitions.
        let mut told: BTreeMap<String, (Mismatch, Instant, Recorder)> = BTreeMap::new();
        loop {
            tokio::select! {
                changed = self.vnics.changed() => if changed.is_err() { return },
                _ = period.tick() => {}
            }
            let found = {
                let _pass = heartbeat.pass();
                let objects = self.vnics.borrow_and_update();
                mismatches(&objects.by_key, &self.ovs.view().ports())
            };
            told.retain(|port, _| found.contains_key(port));
            for (port, mismatch) in found {
                let recorder = match told.get(&port) {
                    Some((said, at, _)) if *said == mismatch && at.elapsed() < REPEAT => continue,
                    Some((said, _, recorder)) if *said == mismatch => recorder.clone(),
                    _ => Recorder::new(self.client.clone(), reporter.clone()),
                };
                tracing::warn!(port, "{}", mismatch.message);
                let _pass = heartbeat.pass();
                // What is not published is tried again, and keeps nobody else's from it.
                if tell(&recorder, &mismatch).await {
                    told.insert(port, (mismatch, Instant::now(), recorder));
                }
            }
        }
    }
}

/// Publishes the Events, and says whether both are; a failure is logged.
async fn tell(recorder: &Recorder, mismatch: &Mismatch) -> bool {
    let event = Event {
        type_: EventType::Warning,
        reason: "AddressDiffers".to_owned(),
        note: Some(mismatch.message.clone()),
        action: "Comparing".to_owned(),
        secondary: None,
    };
    for regarding in [&mismatch.pod, &mismatch.vnic] {
        let error = match timeout(LIMIT, recorder.publish(&event, regarding)).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        tracing::warn!(error, "failed to publish an Event");
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ovs::Facts;
    use crate::protocol::{AttachmentId, PodRef};
    use ycloud_api::{VNicSpec, VNicStatus};

    fn vnic(ip: &str, ipv6: Option<&str>) -> BTreeMap<Key, VNic> {
        let mut vnic = VNic::new("web-aaaaaaaa", VNicSpec::default());
        vnic.metadata.namespace = Some("ns".into());
        vnic.status = Some(VNicStatus {
            ip: Some(ip.into()),
            prefix_length: Some(24),
            gateway: Some("10.0.1.1".into()),
            ipv6: ipv6.map(|ip| ycloud_api::vnic::VNicIpv6 {
                ip: ip.into(),
                prefix_length: 64,
                gateway: "fd00::1".into(),
            }),
            ..VNicStatus::default()
        });
        [(("ns".to_owned(), "web-aaaaaaaa".to_owned()), vnic)].into()
    }

    fn port(vnics: &BTreeMap<Key, VNic>, logical_port: &str) -> Port {
        let status = vnics.values().next().unwrap().status.as_ref().unwrap();
        Port {
            interface: uuid::Uuid::nil(),
            name: "yc1".into(),
            facts: Facts {
                id: AttachmentId {
                    container: "c".into(),
                    ifname: "eth0".into(),
                },
                logical_port: logical_port.into(),
                netns: "/run/netns/a".into(),
                pod: PodRef {
                    namespace: "ns".into(),
                    name: "web".into(),
                    uid: Some("aaaaaaaa-1".into()),
                },
                mac: "0a:00:0a:00:01:05".parse().unwrap(),
                addresses: address::of(status).unwrap(),
                vpc: "v".into(),
                host_ports: Vec::new(),
            },
            installed: true,
            error: None,
        }
    }

    #[test]
    fn another_address_than_the_vnic_s_is_noticed() {
        let as_wired = vnic("10.0.1.5", Some("fd00::5"));
        let ports = [port(&as_wired, "ns/web-aaaaaaaa")];
        assert_eq!(mismatches(&as_wired, &ports), BTreeMap::new());
        let found = mismatches(&vnic("10.0.1.9", Some("fd00::5")), &ports);
        let mismatch = &found["ns/web-aaaaaaaa"];
        for words in [
            "eth0 of Pod ns/web has address 10.0.1.5",
            "VNic ns/web-aaaaaaaa says 10.0.1.9",
        ] {
            assert!(mismatch.message.contains(words), "{}", mismatch.message);
        }
        assert_eq!(mismatch.pod.kind.as_deref(), Some("Pod"));
        assert_eq!(mismatch.vnic.kind.as_deref(), Some("VNic"));
        let of_ipv6 = mismatches(&vnic("10.0.1.5", Some("fd00::9")), &ports);
        assert_eq!(of_ipv6.len(), 1);
        // Another family than the interface has, and another Pod's port.
        assert!(mismatches(&vnic("10.0.1.5", None), &ports).is_empty());
        let former = [port(&as_wired, "ns/web-bbbbbbbb")];
        assert!(mismatches(&vnic("10.0.1.9", None), &former).is_empty());
    }
}
