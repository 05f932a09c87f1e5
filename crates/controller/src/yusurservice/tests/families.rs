//! Services of both families.

use super::*;

fn with(rest: &str) -> News {
    let text = format!(
        "{{metadata: {{name: svc, namespace: ns, uid: uid-svc, generation: 1}},
           spec: {{vpc: vpc1, selector: {{app: svc}}, ports: [{{name: http, port: 80}}]{rest}}}}}"
    );
    News::YusurService(Box::new(Change::Apply(yaml(&text))))
}

/// A world with one Pod of both families.
fn world(rest: &str) -> World {
    let mut world = World::default();
    world.apply(vpc());
    world.apply(with(rest));
    world.apply(pod_news(pod("p", "svc", true)));
    let both = "{ip: 10.0.0.9, vpc: vpc1, ipv6: {ip: 'fd00:1::9', prefixLength: 64, gateway: 'fd00:1::1'}}";
    world.apply(vnic("p", both));
    world
}

/// As the API server answers to a Service that asks for both families.
fn give_both(world: &mut World, plan: &Plan) {
    carry_out(world, plan);
    let mut service = world.service(&svc()).unwrap().clone();
    let spec = service.spec.as_mut().unwrap();
    spec.cluster_ips = Some(vec!["10.96.0.7".into(), "fd00:10:96::7".into()]);
    spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
    world.apply(News::Service(Change::Apply(service)));
}

#[test]
fn both_families_are_written_told_and_programmed() {
    let mut world = world(", ipFamilyPolicy: PreferDualStack");
    let first = plan(&world, &svc()).unwrap();
    let families: Vec<&str> = first
        .slices
        .iter()
        .map(|s| s.address_type.as_str())
        .collect();
    assert_eq!(
        BTreeSet::from_iter(families),
        BTreeSet::from(["IPv4", "IPv6"])
    );
    give_both(&mut world, &first);
    let second = plan(&world, &svc()).unwrap();
    assert!(!second.writes());
    let told = second.status(None, None, &now(1));
    assert_eq!(told.cluster_ip.as_deref(), Some("10.96.0.7"));
    assert_eq!(told.cluster_ips, ["10.96.0.7", "fd00:10:96::7"]);
    assert_eq!(told.backends.as_ref().unwrap().summary, "1/1");
    program(&mut world);
    let done = plan(&world, &svc())
        .unwrap()
        .status(None, Some(&told), &now(2));
    assert_eq!(
        state(&done)[2..],
        ["Programmed=True Programmed", "Ready=True Ready"]
    );

    let six = "{ip: 10.0.0.9, vpc: vpc1, ipv6: {ip: 'fd00:1::a', prefixLength: 64, gateway: 'fd00:1::1'}}";
    assert_eq!(concerned(&mut world, vnic("p", six)), ["ns/svc"]);
    let moved = plan(&world, &svc()).unwrap().slices;
    assert_eq!(moved.len(), 1, "that of IPv4 stays");
    assert_eq!(moved[0].endpoints[0].addresses, ["fd00:1::a"]);
}

#[test]
fn the_second_address_is_given_back_with_the_policy() {
    let mut world = world(", ipFamilyPolicy: RequireDualStack");
    let first = plan(&world, &svc()).unwrap();
    give_both(&mut world, &first);
    world.apply(with(""));
    let back = plan(&world, &svc()).unwrap();
    assert_eq!(back.surplus.len(), 1, "the slice of IPv6");
    let mut value = serde_json::to_value(world.service(&svc()).unwrap()).unwrap();
    crate::mergepatch::tests::apply(&mut value, &back.service_patch().unwrap());
    let patched: Service = serde_json::from_value(value).unwrap();
    let spec = patched.spec.as_ref().unwrap();
    assert_eq!(spec.ip_family_policy.as_deref(), Some("SingleStack"));
    assert_eq!(spec.ip_families.as_deref(), Some(&["IPv4".to_owned()][..]));
    assert_eq!(
        spec.cluster_ips.as_deref(),
        Some(&["10.96.0.7".to_owned()][..])
    );
    world.apply(News::Service(Change::Apply(patched)));
    assert!(plan(&world, &svc()).unwrap().service.is_none());
}

#[test]
fn a_pod_on_the_nodes_network_keeps_both_of_its_nodes_addresses() {
    let mut world = World::default();
    let text = "{metadata: {name: svc, namespace: ns, uid: uid-svc},
        spec: {scope: cluster, selector: {app: svc}, ports: [{port: 80}], ipFamilyPolicy: RequireDualStack}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(text)))));
    let default = "{metadata: {name: ovn-cluster}, spec: {}}";
    world.apply(News::Vpc(Change::Apply(yaml(default))));
    let mut on_node = pod("p", "svc", true);
    on_node.spec.as_mut().unwrap().host_network = Some(true);
    let status = on_node.status.as_mut().unwrap();
    status.pod_ip = Some("192.168.5.11".into());
    status.pod_ips = Some(yaml("[{ip: 192.168.5.11}, {ip: 'fd00:192::11'}]"));
    world.apply(pod_news(on_node));
    let slices = plan(&world, &svc()).unwrap().slices;
    let addresses = slices
        .iter()
        .flat_map(|s| s.endpoints.iter().flat_map(|e| e.addresses.clone()));
    let addresses: BTreeSet<String> = addresses.collect();
    assert_eq!(
        addresses,
        ["192.168.5.11", "fd00:192::11"].map(str::to_owned).into()
    );
}
