//! Families of addresses: what the Service asks for, and a set of EndpointSlices each.

use super::*;

/// A YusurService of scope vpc with these fields more.
fn with(rest: &str) -> YusurService {
    ysvc(&format!(
        "{{vpc: vpc1, selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}], {rest}}}"
    ))
}

/// A Pod of [`World::pod`] that has an address of IPv6 as well.
fn dual_pod(number: u16) -> (Pod, Option<VNic>) {
    let (pod, mut vnic) = pod(number, true);
    let status = vnic.as_mut().and_then(|vnic| vnic.status.as_mut());
    let ipv6 = format!("{{ip: 'fd00:1::{number:x}', prefixLength: 64, gateway: 'fd00:1::1'}}");
    status.unwrap().ipv6 = Some(yaml(&ipv6));
    (pod, vnic)
}

fn world() -> World {
    let mut world = World::new();
    world.pods = vec![dual_pod(0x11), dual_pod(0x12)];
    world
}

/// Families, policy and addresses of the Service to be.
fn asked(world: &World, ysvc: &YusurService) -> String {
    let translation = world.translate(ysvc);
    let service = translation.objects.unwrap().service.unwrap();
    let spec = service.spec.unwrap();
    format!(
        "{} {} {} {}",
        spec.ip_family_policy.unwrap(),
        spec.ip_families.unwrap_or_default().join(","),
        spec.cluster_ip.as_deref().unwrap_or("-"),
        spec.cluster_ips.unwrap_or_default().join(",")
    )
}

/// As the API server would have it: `families` and `ips` with commas between.
fn fill_in(world: &mut World, families: &str, ips: &str) {
    let list = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
    let spec = world
        .service
        .as_mut()
        .and_then(|s| s.spec.as_mut())
        .unwrap();
    spec.ip_families = Some(list(families));
    spec.cluster_ips = Some(list(ips));
    spec.cluster_ip = list(ips).first().cloned();
}

/// Address type and addresses of each slice.
fn slices(world: &World) -> Vec<String> {
    let line = |slice: &EndpointSlice| {
        let addresses = slice.endpoints.iter().flat_map(|e| e.addresses.clone());
        format!(
            "{} {}",
            slice.address_type,
            addresses.collect::<Vec<_>>().join(",")
        )
    };
    let mut lines: Vec<String> = world.slices.iter().map(line).collect();
    lines.sort();
    lines
}

const IPV4: &str = "IPv4 10.0.0.19,10.0.0.20";
const IPV6: &str = "IPv6 fd00:1::11,fd00:1::12";

#[test]
fn the_service_asks_for_what_the_spec_says_of_families() {
    for (rest, expected) in [
        ("", "SingleStack IPv4 - "),
        ("ipFamilies: [IPv6]", "SingleStack IPv6 - "),
        (
            "clusterIP: 'fd00:10:96::7'",
            "SingleStack IPv6 fd00:10:96::7 ",
        ),
        ("ipFamilyPolicy: PreferDualStack", "PreferDualStack  - "),
        (
            "ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6]",
            "PreferDualStack IPv6 - ",
        ),
        ("ipFamilies: [IPv6, IPv4]", "RequireDualStack IPv6,IPv4 - "),
        (
            "clusterIPs: [10.96.0.7, 'fd00:10:96::7']",
            "RequireDualStack IPv4,IPv6 10.96.0.7 10.96.0.7,fd00:10:96::7",
        ),
        (
            "ipFamilyPolicy: RequireDualStack, clusterIP: 10.96.0.7",
            "RequireDualStack IPv4 10.96.0.7 ",
        ),
    ] {
        let translation = world().translate(&with(rest));
        assert_eq!(translation.accepted.status, Some(true), "{rest}");
        assert_eq!(asked(&world(), &with(rest)), expected, "{rest}");
    }
}

#[test]
fn each_family_has_slices_of_its_own() {
    for (rest, expected) in [
        ("", vec![IPV4]),
        ("ipFamilies: [IPv6]", vec![IPV6]),
        ("ipFamilyPolicy: RequireDualStack", vec![IPV4, IPV6]),
        // Until the API server has decided.
        ("ipFamilyPolicy: PreferDualStack", vec![IPV4, IPV6]),
    ] {
        let mut world = world();
        world.settle(&with(rest));
        assert_eq!(slices(&world), expected, "{rest}");
        assert_eq!(world.settle(&with(rest)), 0, "{rest}");
        assert_eq!(
            world.translate(&with(rest)).counts.summary,
            "2/2",
            "{rest}: Pods are counted"
        );
    }
}

#[test]
fn a_second_family_comes_and_goes_and_the_first_keeps_its_slices() {
    let mut world = world();
    world.settle(&with(""));
    fill_in(&mut world, "IPv4", "10.96.0.7");
    let first = world.slices.clone();
    let prefer = with("ipFamilyPolicy: PreferDualStack");
    assert_eq!(world.settle(&prefer), 1);
    assert_eq!(slices(&world), [IPV4, IPV6]);
    assert!(world.slices.contains(&first[0]));

    // A cluster of one family stays with it, and no slice of the other is left.
    fill_in(&mut world, "IPv4", "10.96.0.7");
    assert_eq!(world.settle(&prefer), 1);
    assert_eq!(slices(&world), [IPV4]);
    // One of both adds the second address.
    fill_in(&mut world, "IPv4,IPv6", "10.96.0.7,fd00:10:96::7");
    assert_eq!(world.settle(&prefer), 1);
    assert_eq!(slices(&world), [IPV4, IPV6]);
    fill_in(&mut world, "IPv4,IPv6", "10.96.0.7,fd00:10:96::7");
    let objects = world.translate(&prefer).objects.unwrap();
    let present: Vec<&EndpointSlice> = world.slices.iter().collect();
    assert!(objects.writes(world.service.as_ref(), &present).is_empty());

    let back = asked(&world, &with(""));
    assert_eq!(
        back, "SingleStack IPv4 - 10.96.0.7",
        "the second address is given back"
    );
    assert_eq!(world.settle(&with("")), 1);
    assert_eq!(world.slices, first);
}

/// A Service's primary family cannot change, so what was IPv6 first goes back to IPv6.
#[test]
fn what_has_an_ipv6_address_first_keeps_that() {
    let mut world = world();
    world.settle(&with("ipFamilies: [IPv6, IPv4]"));
    fill_in(&mut world, "IPv6,IPv4", "fd00:10:96::7,10.96.0.7");
    assert_eq!(asked(&world, &with("")), "SingleStack IPv6 - fd00:10:96::7");
    world.settle(&with(""));
    assert_eq!(slices(&world), [IPV6]);
}

#[test]
fn a_dual_stack_service_that_somebody_deleted_comes_back_under_its_addresses() {
    let status = "{clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, 'fd00:10:96::7'], conditions: []}";
    for (rest, expected) in [
        (
            "ipFamilyPolicy: PreferDualStack",
            "PreferDualStack  10.96.0.7 10.96.0.7,fd00:10:96::7",
        ),
        (
            "ipFamilyPolicy: RequireDualStack, clusterIP: 10.96.0.7",
            "RequireDualStack IPv4 10.96.0.7 10.96.0.7,fd00:10:96::7",
        ),
        ("clusterIP: 10.96.0.8", "SingleStack IPv4 10.96.0.8 "),
        ("", "SingleStack IPv4 10.96.0.7 "),
        ("ipFamilies: [IPv6]", "SingleStack IPv6 - "),
    ] {
        let mut known = with(rest);
        known.status = Some(yaml(status));
        assert_eq!(asked(&world(), &known), expected, "{rest}");
    }
}

#[test]
fn a_second_address_may_come_but_not_change() {
    let mut world = world();
    world.settle(&with("ipFamilyPolicy: RequireDualStack"));
    fill_in(&mut world, "IPv4,IPv6", "10.96.0.7,fd00:10:96::7");
    let other = with("clusterIPs: [10.96.0.7, 'fd00:10:96::8']");
    said(
        &world.translate(&other).accepted,
        false,
        reason::REFUSED,
        "spec.clusterIPs[1] fd00:10:96::8: the Service already has fd00:10:96::7",
    );
    fill_in(&mut world, "IPv4", "10.96.0.7");
    assert_eq!(world.translate(&other).accepted.status, Some(true));
}

#[test]
fn pods_without_an_address_of_a_family_are_counted_and_serve_in_the_other() {
    let mut world = world();
    world.pods.push(pod(0x13, true));
    let both = with("ipFamilyPolicy: RequireDualStack");
    let translation = world.translate(&both);
    assert_eq!(translation.counts.summary, "3/3");
    said(
        &translation.resolved,
        true,
        reason::RESOLVED,
        "3 found; 1 without an IPv6 address",
    );
    world.settle(&both);
    assert_eq!(slices(&world), ["IPv4 10.0.0.19,10.0.0.20,10.0.0.21", IPV6]);
    let six = world.translate(&with("ipFamilies: [IPv6]"));
    said(
        &six.resolved,
        true,
        reason::RESOLVED,
        "3 found; 1 without an address yet",
    );
}

#[test]
fn pods_on_the_nodes_network_have_the_nodes_addresses() {
    let mut world = World::new().other_pod("ns/b node 192.168.5.11", "web");
    world.vpcs = vec![vpc("ovn-cluster", "{}")];
    let status = world.pods[0].0.status.as_mut().unwrap();
    status.pod_ips = Some(yaml("[{ip: 192.168.5.11}, {ip: 'fd00:192::11'}]"));
    let cluster = ysvc(
        "{scope: cluster, selector: {app: web}, ports: [{port: 80}], ipFamilyPolicy: RequireDualStack}",
    );
    world.settle(&cluster);
    assert_eq!(slices(&world), ["IPv4 192.168.5.11", "IPv6 fd00:192::11"]);
}

#[test]
fn a_refused_edit_takes_gone_pods_out_of_both_families() {
    let mut world = world();
    let both = with("ipFamilyPolicy: RequireDualStack");
    world.settle(&both);
    let mut refused = both.clone();
    refused.spec.health_check = Some(yaml("{udp: {}}"));
    assert_eq!(world.settle(&refused), 0);
    world.pods.remove(0);
    assert_eq!(world.settle(&refused), 2);
    assert_eq!(slices(&world), ["IPv4 10.0.0.20", "IPv6 fd00:1::12"]);
}

#[test]
fn what_is_behind_an_eip_is_ipv4() {
    let several = |rest: &str| {
        ysvc(&format!(
            "{{scope: multiVpc, vpc: vpc1, type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80}}]{rest}}}"
        ))
    };
    assert_eq!(world().translate(&several("")).accepted.status, Some(true));
    for (rest, words) in [
        (
            ", ipFamilies: [IPv6]",
            "spec.ipFamilies IPv6 with scope multiVpc",
        ),
        (
            ", ipFamilyPolicy: PreferDualStack",
            "spec.ipFamilyPolicy PreferDualStack with scope multiVpc",
        ),
        (
            ", clusterIP: 'fd00::7'",
            "the cluster address fd00::7 with scope multiVpc",
        ),
    ] {
        let accepted = world().translate(&several(rest)).accepted;
        said(&accepted, false, reason::NOT_SUPPORTED, words);
    }
    let six = world().translate(&with("type: LoadBalancer, ipFamilies: [IPv6]"));
    let words = "spec.ipFamilies IPv6 alone with type LoadBalancer";
    said(&six.accepted, false, reason::NOT_SUPPORTED, words);
    let both = world().translate(&with("type: LoadBalancer, ipFamilyPolicy: PreferDualStack"));
    assert_eq!(both.accepted.status, Some(true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the Pods and the policy: each family that the Service has holds exactly the Pods that have an
    /// address of it, a slice is of one family for life, and those of IPv4 are what they were without the other.
    #[test]
    fn slices_of_ipv4_do_not_depend_on_those_of_ipv6(
        rounds in proptest::collection::vec((proptest::collection::btree_map(1u16..200, any::<bool>(), 0..150), any::<bool>()), 1..5))
    {
        let (mut both, mut single) = (World::new(), World::new());
        for (pods, dual) in rounds {
            let of = |(number, dual): (&u16, &bool)| if *dual { dual_pod(*number) } else { pod(*number, true) };
            both.pods = pods.iter().map(of).collect();
            single.pods = both.pods.clone();
            let before: BTreeMap<_, _> = both.slices.iter()
                .map(|s| (s.metadata.name.clone(), s.address_type.clone())).collect();
            let rest = if dual { "ipFamilyPolicy: RequireDualStack" } else { "" };
            both.settle(&with(rest));
            single.settle(&with(""));
            for slice in &both.slices {
                let former = before.get(&slice.metadata.name);
                prop_assert!(former.is_none_or(|former| *former == slice.address_type));
            }
            let of = |family: &str| {
                let mut all: Vec<_> = both.slices.iter().filter(|s| s.address_type == family).cloned().collect();
                all.sort_by_key(|slice| slice.metadata.name.clone());
                all
            };
            single.slices.sort_by_key(|slice| slice.metadata.name.clone());
            prop_assert_eq!(&of("IPv4"), &single.slices);
            let ipv6: usize = of("IPv6").iter().map(|slice| slice.endpoints.len()).sum();
            prop_assert_eq!(ipv6, pods.values().filter(|is| dual && **is).count());
            both.pods.reverse();
            prop_assert_eq!(both.settle(&with(rest)), 0);
        }
    }
}
