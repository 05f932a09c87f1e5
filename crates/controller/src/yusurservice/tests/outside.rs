//! Services that take an EIP.

use super::*;

fn outside(rest: &str) -> News {
    News::YusurService(Box::new(Change::Apply(yaml(&format!(
        "{{metadata: {{name: svc, namespace: ns, uid: uid-svc, generation: 1}},
           spec: {{type: LoadBalancer, vpc: vpc1, ports: [{{name: http, port: 80}}]{rest}}}}}"
    )))))
}

fn eip(namespace: &str, name: &str) -> News {
    let text = format!("{{metadata: {{name: {name}, namespace: {namespace}}}, spec: {{}}}}");
    News::Eip(Change::Apply(yaml(&text)))
}

#[test]
fn the_status_shows_the_eip_once_the_service_has_it() {
    let mut world = World::default();
    world.apply(outside(""));
    world.apply(vpc());
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    program(&mut world);
    let waiting = plan(&world, &svc()).unwrap();
    assert!(!waiting.writes());
    let told = waiting.status(None, None, &now(1));
    assert_eq!(told.eip, None);
    assert_eq!(state(&told)[2], "Programmed=False Pending");
    assert!(told.conditions[2].message.contains("allocate an EIP"));

    let mut service = world.service(&svc()).unwrap().clone();
    service.status = Some(yaml(
        "{loadBalancer: {ingress: [{ip: 198.51.100.9, ipMode: VIP}]}}",
    ));
    world.apply(News::Service(Change::Apply(service)));
    program(&mut world);
    let done = plan(&world, &svc())
        .unwrap()
        .status(None, Some(&told), &now(2));
    assert_eq!(done.eip.as_deref(), Some("198.51.100.9"));
    assert_eq!(done.gateway_nodes, None);

    // The Eip says where it is.
    let mut eip = |status: &str| {
        let text =
            format!("{{metadata: {{name: svc, namespace: ns}}, spec: {{}}, status: {status}}}");
        assert_eq!(
            concerned(&mut world, News::Eip(Change::Apply(yaml(&text)))),
            ["ns/svc"]
        );
        let told = plan(&world, &svc()).unwrap().status(None, None, &now(2));
        told.gateway_nodes
    };
    assert_eq!(eip("{node: node-1}").as_deref(), Some("node-1"));
    let several = "{node: node-1, serviceGateways: 'node-2,node-3'}";
    assert_eq!(eip(several).as_deref(), Some("node-2,node-3"));
    assert_eq!(state(&done)[2], "Programmed=True Programmed");
}

#[test]
fn a_named_eip_is_waited_for() {
    let mut world = World::default();
    world.apply(outside(", eip: front"));
    world.apply(vpc());
    assert_eq!(concerned(&mut world, eip("other", "front")), [""; 0]);
    assert_eq!(concerned(&mut world, eip("ns", "back")), [""; 0]);
    let told = plan(&world, &svc()).unwrap().status(None, None, &now(1));
    assert_eq!(state(&told)[0], "Accepted=False NotFound");
    assert_eq!(concerned(&mut world, eip("ns", "front")), ["ns/svc"]);
    assert_eq!(
        concerned(&mut world, eip("ns", "front")),
        [""; 0],
        "only whether it exists matters"
    );
    assert!(plan(&world, &svc()).unwrap().service.is_some());
    let deleted = News::Eip(Change::Delete(gone("ns", "front")));
    assert_eq!(concerned(&mut world, deleted), ["ns/svc"]);
}

#[test]
fn an_edit_takes_back_all_that_it_leaves_out() {
    let mut world = World::default();
    world.apply(vpc());
    world.apply(eip("ns", "front"));
    let full =
        ", eip: front, eipGateway: gw, loadBalancerSourceRanges: [203.0.113.0/24, 10.0.0.0/8],
         sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}";
    world.apply(outside(full));
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    let inside = "{metadata: {name: svc, namespace: ns, uid: uid-svc, generation: 2},
        spec: {vpc: vpc1, ports: [{name: http, port: 80}]}}";
    let inside = || News::YusurService(Box::new(Change::Apply(yaml(inside))));
    for edit in [
        outside(""),
        outside(full),
        inside(),
        outside(full),
        inside(),
    ] {
        world.apply(edit);
        let edited = plan(&world, &svc()).unwrap();
        let wanted = edited.service.clone().unwrap();
        let mut value = serde_json::to_value(world.service(&svc()).unwrap()).unwrap();
        crate::mergepatch::tests::apply(&mut value, &edited.service_patch().unwrap());
        let patched: Service = serde_json::from_value(value).unwrap();
        let annotations = |service: &Service| service.metadata.annotations.clone();
        assert_eq!(annotations(&patched), annotations(&wanted));
        let spec = |service: &Service| {
            let mut spec = service.spec.clone().unwrap();
            spec.cluster_ip = None;
            spec
        };
        assert_eq!(spec(&patched), spec(&wanted));
        world.apply(News::Service(Change::Apply(patched)));
        assert!(!plan(&world, &svc()).unwrap().writes());
    }
}

#[test]
fn what_was_refused_before_an_edit_says_nothing_of_the_edit() {
    let mut world = World::default();
    world.apply(outside(""));
    world.apply(vpc());
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    let mut service = world.service(&svc()).unwrap().clone();
    service.status = Some(yaml(
        "{conditions: [{type: iaas.yusur.io/Accepted, status: 'False', reason: AddressesExhausted, message: no address is free, lastTransitionTime: 2026-01-01T00:00:00Z}]}",
    ));
    world.apply(News::Service(Change::Apply(service)));
    let told = plan(&world, &svc()).unwrap().status(None, None, &now(1));
    assert_eq!(state(&told)[0], "Accepted=False AddressesExhausted");
    world.apply(outside(", eip: 198.51.100.9"));
    let told = plan(&world, &svc()).unwrap().status(None, None, &now(2));
    assert_eq!(state(&told)[0], "Accepted=True Accepted");
}
