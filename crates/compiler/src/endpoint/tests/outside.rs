//! Type LoadBalancer: what the Service says of clients outside.

use super::*;

fn outside(rest: &str) -> YusurService {
    ysvc(&format!(
        "{{type: LoadBalancer, vpc: vpc1, selector: {{app: web}}, ports: [{{name: http, port: 80}}]{rest}}}"
    ))
}

fn service(world: &World, ysvc: &YusurService) -> Service {
    let translation = world.translate(ysvc);
    assert_eq!(
        translation.accepted.status,
        Some(true),
        "{:?}",
        translation.accepted
    );
    translation.objects.unwrap().service.unwrap()
}

#[test]
fn a_load_balancer_asks_for_an_eip_by_its_class() {
    let made = service(&World::new(), &outside(""));
    let spec = made.spec.unwrap();
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(
        spec.load_balancer_class.as_deref(),
        Some("iaas.yusur.io/eip")
    );
    assert_eq!(spec.allocate_load_balancer_node_ports, Some(false));
    let annotations = made.metadata.annotations.unwrap();
    assert_eq!(annotations["iaas.yusur.io/vpc"], "vpc1");
    assert!(!annotations.contains_key("iaas.yusur.io/eip"));
}

#[test]
fn eip_gateway_and_ranges_are_handed_on() {
    let named = outside(
        ", eip: front, eipGateway: gw-a, loadBalancerSourceRanges: [203.0.113.0/24, 198.51.100.0/24]",
    );
    let mut world = World::new();
    world.eip = Some(yaml("{metadata: {name: front}, spec: {}}"));
    let made = service(&world, &named);
    let annotations = made.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["iaas.yusur.io/eip"], "front");
    assert_eq!(annotations["iaas.yusur.io/eip-gateway"], "gw-a");
    let mut spec = made.spec.clone().unwrap();
    let ranges = spec.load_balancer_source_ranges.as_mut().unwrap();
    assert_eq!(ranges[..], ["203.0.113.0/24", "198.51.100.0/24"]);

    ranges.reverse();
    let reordered = Service {
        spec: Some(spec),
        ..made
    };
    let objects = world.translate(&named).objects.unwrap();
    assert!(objects.writes(Some(&reordered), &[]).service.is_none());

    // An address needs no Eip of the name: one is made for it.
    let address = outside(", eip: 198.51.100.9");
    let annotations = service(&World::new(), &address)
        .metadata
        .annotations
        .unwrap();
    assert_eq!(annotations["iaas.yusur.io/eip"], "198.51.100.9");
}

#[test]
fn what_is_not_asked_for_any_more_is_a_difference() {
    let mut world = World::new();
    world.eip = Some(yaml("{metadata: {name: front}, spec: {}}"));
    let full = outside(", eip: front, loadBalancerSourceRanges: [203.0.113.0/24]");
    let present = service(&world, &full);
    for less in [
        outside(", eip: front"),
        outside(", loadBalancerSourceRanges: [203.0.113.0/24]"),
        web(),
    ] {
        let objects = world.translate(&less).objects.unwrap();
        assert!(objects.writes(Some(&present), &[]).service.is_some());
    }
    let objects = world.translate(&full).objects.unwrap();
    assert!(objects.writes(Some(&present), &[]).service.is_none());
}

#[test]
fn the_policy_local_is_accepted_with_a_note() {
    let translation = World::new().translate(&outside(", externalTrafficPolicy: Local"));
    said(
        &translation.accepted,
        true,
        reason::ACCEPTED,
        "backends always see the client's own address",
    );
    let spec = translation.objects.unwrap().service.unwrap().spec.unwrap();
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Cluster"));
}

#[test]
fn while_a_named_eip_is_missing_what_was_made_before_serves_on() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    let translation = world.translate(&outside(", eip: front"));
    said(
        &translation.accepted,
        false,
        reason::NOT_FOUND,
        "the Service serves by the spec that was accepted before",
    );
}

#[test]
fn the_default_vpc_is_reached_from_outside_too() {
    let mut world = World::new().other_pod("ns/a node 192.168.5.11", "web");
    world.vpcs = vec![vpc("ovn-cluster", "{}")];
    let both = ysvc(
        "{type: LoadBalancer, scope: cluster, selector: {app: web}, ports: [{name: http, port: 80}]}",
    );
    let made = service(&world, &both);
    let annotations = made.metadata.annotations.unwrap();
    assert_eq!(annotations["iaas.yusur.io/vpc"], "ovn-cluster");
    assert_eq!(made.spec.unwrap().type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(
        endpoints(&world.translate(&both)),
        ["http=80 192.168.5.11 rs"]
    );
}
