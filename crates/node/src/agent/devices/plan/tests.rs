use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use ycloud_api::vnic::{Attachment, Device as NamedDevice};
use ycloud_api::{VNicSpec, VNicStatus};

use super::*;

const MAC: &str = "0a:00:0a:00:01:07";

/// A VNic of namespace `ns` with an address, whose age is `created`; without device if its name is empty.
fn vnic(name: &str, device: &str, created: i64) -> (Key, VNic) {
    let device = (!device.is_empty()).then(|| NamedDevice {
        tap: Some(device.into()),
        ..Default::default()
    });
    let attachment = Attachment {
        kind: AttachmentKind::VM,
        name: Some(name.into()),
        uid: None,
        chassis: Some("node-2".into()),
        device,
    };
    let spec = VNicSpec {
        subnet: "s".into(),
        attachment,
        ..Default::default()
    };
    let mut vnic = VNic::new(name, spec);
    vnic.metadata.namespace = Some("ns".into());
    vnic.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
    vnic.status = Some(VNicStatus {
        ip: Some("10.0.1.7".into()),
        mac: Some(MAC.into()),
        ..Default::default()
    });
    (("ns".into(), name.into()), vnic)
}

fn port(device: &str, index: u32, vnic: &str) -> DevicePort {
    DevicePort {
        name: device.into(),
        index,
        vnic: format!("ns/{vnic}"),
        logical_port: format!("ns/{vnic}"),
        mac: MAC.parse().unwrap(),
    }
}

fn interface(name: &str, bridge: &str, logical_port: &str) -> Interface {
    Interface {
        uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        name: name.into(),
        bridge: Some(bridge.into()),
        logical_port: (!logical_port.is_empty()).then(|| logical_port.into()),
        device: None,
        installed: false,
        error: None,
    }
}

fn ours(port: &DevicePort, installed: bool) -> Interface {
    Interface {
        device: Some(port.clone()),
        installed,
        ..interface(&port.name, BRIDGE, &port.logical_port)
    }
}

/// What is done and said: names of what is removed and added, and each VNic's status, reason and message.
struct Outcome {
    removed: Vec<String>,
    added: Vec<String>,
    said: BTreeMap<String, String>,
}

fn outcome(
    vnics: &[(Key, VNic)],
    links: &[(&str, u32, Option<&str>)],
    interfaces: &[Interface],
) -> Outcome {
    let vnics: BTreeMap<Key, VNic> = vnics.iter().cloned().collect();
    let links = links.iter().map(|(name, index, used)| {
        let used = used.map(str::to_owned);
        (
            (*name).to_owned(),
            Device {
                index: *index,
                used,
            },
        )
    });
    let links = links.collect();
    let machine = Machine {
        chassis: "node-2",
        links: &links,
        interfaces,
    };
    let plan = plan(&vnics, &machine);
    let of = |uuid: &Uuid| interfaces.iter().find(|i| i.uuid == *uuid).unwrap();
    let said = plan.verdicts.iter().map(|((_, name), verdict)| {
        let text = match verdict {
            None => String::new(),
            Some(Verdict {
                status,
                reason,
                message,
            }) => format!("{status:?} {reason} {message}"),
        };
        (name.clone(), text)
    });
    Outcome {
        removed: plan
            .removed
            .iter()
            .map(|uuid| of(uuid).name.clone())
            .collect(),
        added: plan.added.iter().map(|port| port.name.clone()).collect(),
        said: said.collect(),
    }
}

#[test]
fn a_device_is_put_on_the_bridge_and_stays() {
    let vnics = [vnic("a", "tap7", 1)];
    let links = [("tap7", 9, None)];
    let first = outcome(&vnics, &links, &[]);
    assert_eq!(
        (first.removed, first.added),
        (vec![], vec!["tap7".to_owned()])
    );
    assert!(first.said["a"].starts_with("None Pending device tap7 is being put"));
    let port = port("tap7", 9, "a");
    let there = outcome(&vnics, &links, &[ours(&port, false)]);
    assert!(there.removed.is_empty() && there.added.is_empty());
    assert!(
        there.said["a"].contains("ovn-installed"),
        "{:?}",
        there.said
    );
    let installed = outcome(&vnics, &links, &[ours(&port, true)]);
    let wired = "Some(true) Wired device tap7 is on br-int of chassis node-2";
    assert_eq!(installed.said["a"], wired);
    let failed = Interface {
        error: Some("could not open network device tap7".into()),
        ..ours(&port, false)
    };
    let failed = outcome(&vnics, &links, &[failed]);
    assert!(failed.said["a"].contains("cannot use device tap7: could not open"));
}

#[test]
fn a_port_goes_with_its_reason() {
    let (there, link) = (ours(&port("tap7", 9, "a"), true), [("tap7", 9, None)]);
    let gone = outcome(&[], &link, std::slice::from_ref(&there));
    assert_eq!(
        (gone.removed, gone.added),
        (vec!["tap7".to_owned()], vec![])
    );
    // The device went.
    let gone = outcome(&[vnic("a", "tap7", 1)], &[], std::slice::from_ref(&there));
    assert_eq!(
        (gone.removed, gone.added),
        (vec!["tap7".to_owned()], vec![])
    );
    let said = "Some(false) DeviceNotFound chassis node-2 has no device tap7; ";
    assert!(gone.said["a"].starts_with(said), "{:?}", gone.said);
    // The VNic's device is another one; the device is another VNic's; it was made anew.
    for (vnic, links) in [
        (
            vnic("a", "tap8", 1),
            vec![("tap7", 9, None), ("tap8", 10, None)],
        ),
        (vnic("b", "tap7", 1), vec![("tap7", 9, None)]),
        (vnic("a", "tap7", 1), vec![("tap7", 10, None)]),
    ] {
        let moved = outcome(&[vnic], &links, std::slice::from_ref(&there));
        assert_eq!((moved.removed.len(), moved.added.len()), (1, 1));
    }
    let (_, mut without) = vnic("a", "tap7", 1);
    without.status = None;
    let bare = outcome(&[(("ns".into(), "a".into()), without)], &link, &[]);
    assert!(bare.added.is_empty() && bare.said["a"].contains("no address yet"));
}

#[test]
fn of_two_vnics_the_older_has_the_device() {
    let vnics = [
        vnic("a", "tap7", 2),
        vnic("b", "tap7", 1),
        vnic("c", "tap7", 2),
    ];
    let result = outcome(&vnics, &[("tap7", 9, None)], &[]);
    assert_eq!(result.added, ["tap7"]);
    for name in ["a", "c"] {
        let said = "Some(false) DeviceTaken VNic ns/b has device tap7 of chassis node-2; ";
        assert!(result.said[name].starts_with(said), "{:?}", result.said);
    }
    assert!(result.said["b"].contains("Pending"));
    let of_an_age = outcome(
        &[vnic("b", "t", 1), vnic("a", "t", 1)],
        &[("t", 9, None)],
        &[],
    );
    assert!(
        of_an_age.said["b"].contains("VNic ns/a has"),
        "{:?}",
        of_an_age.said
    );
}

#[test]
fn what_others_made_is_left_alone() {
    let vnics = [vnic("a", "tap7", 1)];
    let cases = [
        (interface("tap7", BRIDGE, ""), "is a port of br-int"),
        (interface("tap7", BRIDGE, "ns/a"), "is a port of br-int"),
        (interface("tap7", "br-ex", ""), "is a port of br-ex"),
        (
            Interface {
                bridge: Some("br-ex".into()),
                ..ours(&port("tap7", 9, "a"), true)
            },
            "is a port of br-ex",
        ),
    ];
    for (interface, said) in cases {
        let result = outcome(&vnics, &[("tap7", 9, None)], &[interface]);
        assert!(result.removed.is_empty() && result.added.is_empty());
        let text = &result.said["a"];
        assert!(
            text.starts_with("Some(false) DeviceTaken") && text.contains(said),
            "{text}"
        );
    }
    let used = [(
        "tap7",
        9,
        Some("has address 192.0.2.7/24 of the machine itself"),
    )];
    let result = outcome(&vnics, &used, &[]);
    assert!(result.added.is_empty());
    assert!(result.said["a"].contains("device tap7 of chassis node-2 has address"));
}

#[test]
fn two_interfaces_of_one_vnic_are_told_of() {
    let (foreign, link) = (interface("vnet0", BRIDGE, "ns/a"), [("tap7", 9, None)]);
    let both = "Some(false) DeviceTaken interfaces tap7 and vnet0 of chassis node-2 both have iface-id ns/a; ";
    let late = outcome(
        &[vnic("a", "tap7", 1)],
        &link,
        std::slice::from_ref(&foreign),
    );
    assert!(
        late.added.is_empty() && late.said["a"].starts_with(both),
        "{:?}",
        late.said
    );
    let early = [ours(&port("tap7", 9, "a"), true), foreign.clone()];
    let early = outcome(&[vnic("a", "tap7", 1)], &link, &early);
    assert!(early.removed.is_empty() && early.said["a"].starts_with(both));
    // Bound by hand.
    let bare = outcome(&[vnic("a", "", 1)], &link, std::slice::from_ref(&foreign));
    assert_eq!(bare.said["a"], "");
    let elsewhere = interface("vnet1", "br-ex", "ns/a");
    let bare = outcome(&[vnic("a", "", 1)], &link, &[foreign.clone(), elsewhere]);
    assert_eq!(bare.said["a"], "");
    let second = interface("vnet1", BRIDGE, "ns/a");
    let bare = outcome(&[vnic("a", "", 1)], &link, &[foreign, second]);
    assert!(
        bare.said["a"].contains("interfaces vnet0 and vnet1"),
        "{:?}",
        bare.said
    );
}
