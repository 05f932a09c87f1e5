//! Which NetworkProbes a YusurService needs.

use ycloud_api::service::BackendState;

use super::*;

/// The probes, as text without their hashes.
fn probes(world: &World, ysvc: &YusurService) -> Vec<String> {
    let all = world.translate(ysvc).probes;
    all.iter()
        .map(|probe| {
            let value = serde_json::to_value(&probe.spec).unwrap();
            let target = &probe.spec.target;
            let check = value.as_object().unwrap().iter();
            let check = check.filter(|(key, _)| *key != "target");
            let check: Vec<String> = check.map(|(key, value)| format!("{key}={value}")).collect();
            let port = target.port.map(|port| port.to_string());
            format!(
                "{} {} {} {}",
                target.vpc,
                target.ip,
                port.unwrap_or_default(),
                check.join(" ")
            )
        })
        .collect()
}

#[test]
fn the_check_says_which_port_is_asked() {
    let world = World::new().pod(1, true);
    for (rest, expected) in [
        ("ports: [{port: 80, targetPort: web}]", "8080 tcp={}"),
        (
            "ports: [{port: 80}], healthCheck: {periodSeconds: 7}",
            "80 tcp={} periodSeconds=7",
        ),
        (
            "ports: [{name: d, port: 53, protocol: UDP}, {name: h, port: 80, targetPort: 81}]",
            "81 tcp={}",
        ),
        ("ports: [{port: 53, protocol: UDP}]", " icmp={}"),
        (
            "ports: [{port: 53, protocol: UDP}], healthCheck: {udp: {send: x}}",
            "53 udp={\"send\":\"x\"}",
        ),
        (
            "ports: [{port: 80}], healthCheck: {http: {port: 9}}",
            " http={\"port\":9}",
        ),
        ("ports: [{port: 80}], healthCheck: {icmp: {}}", " icmp={}"),
    ] {
        let ysvc = ysvc(&format!("{{vpc: vpc1, selector: {{app: web}}, {rest}}}"));
        let expected: BTreeSet<String> = format!("vpc1 10.0.0.3 {expected}")
            .split(' ')
            .map(str::to_owned)
            .collect();
        let found = probes(&world, &ysvc);
        let words: BTreeSet<String> = found[0].split(' ').map(str::to_owned).collect();
        assert_eq!((found.len(), words), (1, expected), "{rest}");
    }
}

#[test]
fn equal_probes_are_one_object_with_a_name_that_people_can_read() {
    let world = World::new().pod(1, true);
    let one = world.translate(&web()).probes.remove(0);
    let mut two = web();
    two.metadata.name = Some("two".into());
    two.metadata.uid = Some("uid-two".into());
    let two = world.translate(&two).probes.remove(0);
    assert_eq!(
        (&one.metadata.name, &one.spec),
        (&two.metadata.name, &two.spec)
    );
    let name = one.metadata.name.unwrap();
    assert!(name.starts_with("p0001-") && name.len() == 22, "{name}");
    let owner = &one.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), ("uid-svc", None));
    assert_eq!(one.metadata.labels.unwrap()["iaas.yusur.io/vpc"], "vpc1");

    let mut long = World::new().pod(1, true);
    long.pods[0].0.metadata.name = Some(format!("{}.{}", "a".repeat(39), "b".repeat(60)));
    let name = long
        .translate(&web())
        .probes
        .remove(0)
        .metadata
        .name
        .unwrap();
    assert_eq!(name.len(), 39 + 17, "{name}");
}

#[test]
fn pods_on_the_node_s_network_are_not_asked() {
    let mut world = World::new().other_pod("ns/p node 192.0.2.1", "web");
    world.vpcs.push(vpc("ovn-cluster", "{}"));
    world.made = false;
    let cluster = ysvc("{scope: cluster, selector: {app: web}, ports: [{name: http, port: 80}]}");
    let translation = world.translate(&cluster);
    assert_eq!(translation.probes, []);
    assert_eq!(endpoints(&translation), ["http=80 192.0.2.1 rs"]);
}

#[test]
fn machines_are_asked_at_ports_of_their_own() {
    let world = World::new().vnic("ns/n1 VM vm-1 10.0.0.11");
    let own = ysvc(
        "{vpc: vpc1, ports: [{name: http, port: 80, targetPort: web}],
          backends: [{kind: VM, name: vm-1, ports: [{name: http, targetPort: 8000}]}]}",
    );
    assert_eq!(probes(&world, &own), ["vpc1 10.0.0.11 8000 tcp={}"]);
    let target = &world.translate(&own).probes[0].spec.target;
    assert_eq!(target.name.as_deref(), Some("n1"));
    let none = ysvc(
        "{vpc: vpc1, ports: [{name: http, port: 80, targetPort: web}], backends: [{kind: VM, name: vm-1}]}",
    );
    assert_eq!(probes(&world, &none), [""; 0]);
}

#[test]
fn a_backend_without_the_port_to_ask_is_told_which() {
    let mut world = World::new().pod(1, true);
    world.made = false;
    let own = ysvc(
        "{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: admin}, {name: d, port: 53, protocol: UDP}]}",
    );
    let lacks = "cannot be checked: no TCP port of it is named admin; name one that it has in targetPort, or write its number there or in spec.healthCheck.tcp.port";
    let told = world.translate(&own);
    let item = &told.counts.items[0];
    assert_eq!(item.state, BackendState::NotReady);
    assert_eq!(item.message.as_deref(), Some(lacks));
    assert_eq!(
        (endpoints(&told), told.probes),
        (vec!["d=53 10.0.0.3 ".to_owned()], vec![])
    );

    // What serves is not taken away for it.
    let mut before = own.clone();
    before.spec.ports[0].target_port = None;
    world.made = true;
    world.settle(&before);
    let kept = world.translate(&own);
    assert_eq!(endpoints(&kept), ["d=53 10.0.0.3 rs"]);
    let item = &kept.counts.items[0];
    let expected = format!("{lacks}; until it is asked it stays an endpoint");
    assert_eq!(
        (item.state, item.message.clone()),
        (BackendState::Unknown, Some(expected))
    );
}

#[test]
fn without_a_check_readiness_decides() {
    let mut world = World::new()
        .pod(1, true)
        .pod(2, false)
        .vnic("ns/n1 VM vm-1 10.0.0.11");
    let mut own = web();
    own.spec.backends = yaml("[{kind: VM, name: vm-1}]");
    let checked = world.translate(&own).probes.len();
    assert_eq!(checked, 3);
    world.settle(&own);
    world.probed(&own, ProbeState::Unhealthy, "2026-01-01T00:00:00Z", "down");
    own.spec.health_check = Some(yaml("{disabled: true}"));
    let told = world.translate(&own);
    assert_eq!(told.probes, [], "those that there are go");
    assert_eq!(
        endpoints(&told).into_iter().collect::<BTreeSet<_>>(),
        [
            "http=8080 10.0.0.11 rs",
            "http=8080 10.0.0.3 rs",
            "http=8080 10.0.0.4 "
        ]
        .map(str::to_owned)
        .into()
    );
    assert_eq!(told.counts.items[0].message.as_deref(), Some("not ready"));
    own.spec.health_check = Some(yaml("{disabled: false, icmp: {}}"));
    assert_eq!(world.translate(&own).probes.len(), checked);
}
