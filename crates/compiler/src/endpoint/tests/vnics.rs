//! Machines and bare addresses as backends.

use super::*;

fn machines() -> World {
    World::new()
        .vnic("ns/n1 VM vm-1 10.0.0.11")
        .vnic("ns/n2 BM bm-1 10.0.0.12")
        .vnic("ns/n3 None any 10.0.0.13")
        .vnic("ns/n4 Pod p 10.0.0.14")
        .vnic("ns/n5 Node node-1 10.0.0.15")
}

fn backends(list: &str) -> YusurService {
    ysvc(&format!(
        "{{vpc: vpc1, backends: [{list}], ports: [{{name: http, port: 80}}]}}"
    ))
}

#[test]
fn each_kind_takes_vnics_of_its_own() {
    let all = "{matchLabels: {app: web}}";
    for (list, addresses) in [
        (format!("{{kind: VM, selector: {all}}}"), "11"),
        (format!("{{kind: BM, selector: {all}}}"), "12"),
        (format!("{{kind: VNicIP, selector: {all}}}"), "11 12 13"),
        ("{kind: VM, name: vm-1}".into(), "11"),
        ("{kind: VM, name: n1}".into(), ""),
        ("{kind: BM, name: vm-1}".into(), ""),
        ("{kind: VNicIP, name: n2}".into(), "12"),
        ("{kind: VNicIP, ip: 10.0.0.13}".into(), "13"),
        ("{kind: VNicIP, ip: 10.0.0.14}".into(), ""),
        (
            "{kind: VM, name: vm-1}, {kind: VNicIP, ip: 10.0.0.11}".into(),
            "11",
        ),
    ] {
        let lines = endpoints(&machines().translate(&backends(&list)));
        let wanted: Vec<String> = (addresses.split_whitespace())
            .map(|last| format!("http=80 10.0.0.{last} rs"))
            .collect();
        assert_eq!(lines, wanted, "{list}");
    }
}

#[test]
fn a_vnic_is_an_endpoint_with_its_uid_and_chassis() {
    let translation = machines().translate(&backends("{kind: VM, name: vm-1}"));
    let objects = translation.objects.unwrap();
    let endpoint = &objects.slices[0].endpoints[0];
    assert_eq!(endpoint.node_name.as_deref(), Some("c1"));
    let target = endpoint.target_ref.as_ref().unwrap();
    assert_eq!(target.kind.as_deref(), Some("VNic"));
    assert_eq!(target.api_version.as_deref(), Some("iaas.yusur.io/v1"));
    assert_eq!(target.uid.as_deref(), Some("uid-n1"));
    let item = &translation.counts.items[0];
    assert_eq!(
        (item.name.as_str(), item.address.as_deref()),
        ("n1", Some("10.0.0.11"))
    );
}

#[test]
fn a_chassis_that_no_node_could_be_is_not_named() {
    let mut world = machines();
    for (chassis, named) in [("bm-7.rack", true), ("BM_7", false), ("a..b", false)] {
        let status = world.vnics[0].status.as_mut().unwrap();
        status.chassis = Some(chassis.into());
        let objects = world.translate(&backends("{kind: VM, name: vm-1}")).objects;
        let endpoint = &objects.unwrap().slices[0].endpoints[0];
        assert_eq!(endpoint.node_name.is_some(), named, "{chassis}");
    }
}

#[test]
fn what_is_wrong_with_machines_is_said() {
    let named = ysvc(
        "{vpc: vpc1, backends: [{kind: VM, name: vm-1}, {kind: BM, name: bm-1, ports: [{name: b, targetPort: 9}]}],
          ports: [{name: a, port: 80}, {name: b, port: 81, targetPort: web}]}",
    );
    let translation = machines().translate(&named);
    said(
        &translation.resolved,
        false,
        reason::NOT_FOUND,
        "targetPort web: VM n1 has no ports with names; write a number in spec.backends[0].ports, for the port named b",
    );
    let mut lines = endpoints(&translation);
    lines.sort();
    assert_eq!(lines, ["a=80 10.0.0.11 rs", "a=80,b=9 10.0.0.12 rs"]);

    let mut world = machines();
    world.vpcs.push(vpc("vpc2", "{}"));
    let away = "{ip: 10.0.0.11, vpc: vpc2}";
    world.vnics[0].status = Some(yaml(away));
    let away = world.translate(&backends("{kind: VM, name: vm-1}"));
    let words = "no backend: 1 selected but not in Vpc vpc1: n1 (in vpc2)";
    said(&away.resolved, false, reason::NO_BACKENDS, words);
    assert_eq!(away.counts.items[0].message.as_deref(), Some("in Vpc vpc2"));
    let unheld = world.translate(&backends(
        "{kind: BM, name: bm-1}, {kind: VNicIP, ip: 10.0.0.11}",
    ));
    let words = "spec.backends[1].ip 10.0.0.11: no VNic of namespace ns in Vpc vpc1 holds it";
    said(&unheld.resolved, false, reason::NOT_FOUND, words);
    assert_eq!(endpoints(&unheld), ["http=80 10.0.0.12 rs"]);
    let none = world.translate(&backends("{kind: BM, name: bm-1}, {kind: VM, name: vm-9}"));
    let words = "1 found; spec.backends[1].name vm-9: there is no such VM";
    said(&none.resolved, true, reason::RESOLVED, words);
    let waiting = World::new().vnic("ns/n1 VM vm-1 -");
    let waiting = waiting.translate(&backends("{kind: VM, name: vm-1}"));
    said(
        &waiting.resolved,
        true,
        reason::RESOLVED,
        "1 found; 1 without an address yet",
    );
    assert_eq!(
        waiting.counts.items[0].message.as_deref(),
        Some("no address yet")
    );
}

#[test]
fn machines_of_other_namespaces_are_lent_like_pods() {
    let list = "{kind: VM, namespace: other, name: vm-2}";
    let mut world = machines().vnic("other/n9 VM vm-2 10.0.0.19");
    let refused = world.translate(&backends(list));
    said(
        &refused.accepted,
        false,
        reason::NOT_PERMITTED,
        "spec.backends[0].namespace other",
    );
    world.vpcs = vec![vpc("vpc1", "{allowedNamespaces: {names: [ns]}}")];
    assert_eq!(
        endpoints(&world.translate(&backends(list))),
        ["http=80 10.0.0.19 rs"]
    );
}

proptest! {
    #[test]
    fn the_order_of_vnics_does_not_matter_and_settled_is_settled(seed in 0usize..120, count in 1u8..6) {
        let list = "{kind: VNicIP, selector: {matchLabels: {app: web}}}, {kind: VM, name: m3}";
        let mut world = World::new();
        for n in 1..=count {
            let kind = ["VM", "BM", "None"][usize::from(n) % 3];
            world = world.vnic(&format!("ns/n{n} {kind} m{n} 10.0.1.{n}"));
        }
        let straight = world.translate(&backends(list));
        let mut turned = world.clone();
        let at = seed % turned.vnics.len();
        turned.vnics.rotate_left(at);
        turned.vnics.reverse();
        prop_assert_eq!(&turned.translate(&backends(list)), &straight);
        prop_assert_eq!(world.settle(&backends(list)), 1);
        prop_assert_eq!(world.settle(&backends(list)), 0);
    }
}
