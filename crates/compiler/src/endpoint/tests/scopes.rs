//! Whose Pods are backends: by scope, Vpc and namespace.

use super::*;

fn cluster() -> YusurService {
    ysvc(
        "{scope: cluster, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}",
    )
}

fn several() -> YusurService {
    ysvc(
        "{scope: multiVpc, type: LoadBalancer, ports: [{name: http, port: 80, targetPort: web}], backends: [
           {kind: Pod, vpc: vpc1, selector: {matchLabels: {app: web}}},
           {kind: Pod, vpc: vpc2, selector: {matchLabels: {app: web}}, ports: [{name: http, targetPort: 9090}]}]}",
    )
}

/// Two Vpcs with two Pods each, whose addresses are the same.
fn two_vpcs() -> World {
    let mut world = World::new()
        .other_pod("ns/a1 vpc1 10.0.0.2", "web")
        .other_pod("ns/a2 vpc1 10.0.0.3", "web")
        .other_pod("ns/b1 vpc2 10.0.0.2", "web")
        .other_pod("ns/b2 vpc2 10.0.0.3", "web");
    world.vpcs.push(vpc("vpc2", "{}"));
    world
}

/// Vpc, ports and addresses of each slice.
fn slices(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = (world.slices.iter())
        .map(|slice| {
            let label = slice.metadata.labels.as_ref().unwrap()[ycloud_api::key::VPC].clone();
            let annotations = slice.metadata.annotations.as_ref().unwrap();
            assert_eq!(annotations[ycloud_api::key::VPC], label);
            let ports = slice.ports.iter().flatten();
            let ports: Vec<_> = ports.map(|p| p.port.unwrap().to_string()).collect();
            let addresses = slice.endpoints.iter().flat_map(|e| e.addresses.clone());
            let addresses: Vec<_> = addresses.collect();
            format!("{label} {} {}", ports.join(","), addresses.join(","))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn scope_cluster_takes_pods_of_the_default_vpc_and_of_nodes() {
    let mut world = World::new()
        .other_pod("ns/a ovn-cluster 10.16.0.2", "web")
        .other_pod("ns/b node 192.168.5.11", "web")
        .other_pod("ns/c vpc1 10.0.0.2", "web");
    world.vpcs = vec![vpc("ovn-cluster", "{}")];
    let translation = world.translate(&cluster());
    assert_eq!(translation.accepted.status, Some(true));
    assert_eq!(
        endpoints(&translation),
        ["http=8080 10.16.0.2 rs", "http=8080 192.168.5.11 rs"]
    );
    said(
        &translation.resolved,
        true,
        reason::RESOLVED,
        "2 found; 1 selected but not in Vpc ovn-cluster: c (in vpc1)",
    );
    let service = translation.objects.unwrap().service.unwrap();
    let annotations = service.metadata.annotations.unwrap();
    assert_eq!(annotations["iaas.yusur.io/vpc"], "ovn-cluster");
    assert_eq!(annotations["iaas.yusur.io/scope"], "cluster");
    assert_eq!(service.spec.unwrap().type_.as_deref(), Some("ClusterIP"));

    let mut named = cluster();
    named.spec.vpc = Some("ovn-cluster".into());
    assert_eq!(world.translate(&named).accepted.status, Some(true));
    world.pods[1].0.status.as_mut().unwrap().pod_ip = None;
    said(
        &world.translate(&cluster()).resolved,
        true,
        reason::RESOLVED,
        "2 found; 1 without an address yet",
    );
}

#[test]
fn a_refused_edit_keeps_pods_on_the_nodes_network_as_endpoints() {
    let mut world = World::new().other_pod("ns/b node 192.168.5.11", "web");
    world.vpcs = vec![vpc("ovn-cluster", "{}")];
    world.settle(&cluster());
    let mut refused = cluster();
    refused.spec.health_check = Some(yaml("{udp: {}}"));
    assert_eq!(world.settle(&refused), 0);
    assert_eq!(slices(&world), ["ovn-cluster 8080 192.168.5.11"]);
}

#[test]
fn each_vpc_has_slices_of_its_own_though_addresses_are_the_same() {
    let mut world = two_vpcs();
    assert_eq!(world.settle(&several()), 2);
    assert_eq!(
        slices(&world),
        ["vpc1 8080 10.0.0.2,10.0.0.3", "vpc2 9090 10.0.0.2,10.0.0.3"]
    );
    let translation = world.translate(&several());
    assert_eq!(translation.counts.summary, "4/4");
    let service = translation.objects.unwrap().service.unwrap();
    let annotations = service.metadata.annotations.unwrap();
    assert_eq!(
        annotations,
        BTreeMap::from([("iaas.yusur.io/scope".to_owned(), "multiVpc".to_owned())]),
        "each slice names its own Vpc"
    );
}

#[test]
fn a_vpc_comes_and_goes_without_touching_the_slices_of_the_others() {
    let mut world = two_vpcs();
    let mut one = several();
    let second = one.spec.backends.pop().unwrap();
    assert_eq!(world.settle(&one), 1);
    let first = world.slices[0].clone();
    assert_eq!(world.settle(&several()), 1);
    assert!(world.slices.contains(&first));
    let mut other = several();
    other.spec.backends = vec![second];
    assert_eq!(world.settle(&other), 1, "the first Vpc's slice goes");
    assert_eq!(slices(&world), ["vpc2 9090 10.0.0.2,10.0.0.3"]);
    assert_eq!(world.settle(&other), 0);
}

#[test]
fn several_vpcs_each_must_permit_the_namespace() {
    let mut world = two_vpcs();
    world.settle(&several());
    let closed = vpc("vpc2", "{allowedNamespaces: {names: [x]}}");
    world.vpcs[1] = closed;
    let translation = world.translate(&several());
    said(
        &translation.accepted,
        false,
        reason::NOT_PERMITTED,
        "spec.backends[1].vpc vpc2: Vpc vpc2 does not permit namespace ns",
    );
    world.settle(&several());
    assert_eq!(
        slices(&world),
        ["vpc1 8080 10.0.0.2,10.0.0.3", "vpc2 9090 "],
        "the Vpc's own backends are taken out"
    );
}

#[test]
fn the_own_selector_goes_with_the_vpc_of_the_spec() {
    let mut world = two_vpcs().other_pod("ns/d ovn-cluster 10.16.0.9", "web");
    let mut both = several();
    both.spec.vpc = Some("vpc1".into());
    both.spec.selector = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    both.spec.backends.remove(0);
    world.settle(&both);
    assert_eq!(
        slices(&world),
        ["vpc1 8080 10.0.0.2,10.0.0.3", "vpc2 9090 10.0.0.2,10.0.0.3"]
    );
    said(
        &world.translate(&both).resolved,
        true,
        reason::RESOLVED,
        "4 found; 1 selected but not in the Vpc that the spec names for them: d (in ovn-cluster)",
    );
}

#[test]
fn pods_of_other_namespaces_are_named_with_theirs() {
    let mut world = World::new()
        .other_pod("ns/a vpc1 10.0.0.2", "web")
        .other_pod("other/a vpc2 10.0.0.2", "db");
    world.vpcs = vec![
        vpc("vpc1", "{allowedNamespaces: {names: [ns]}}"),
        vpc("vpc2", "{}"),
    ];
    let mut lent = ysvc(
        "{vpc: vpc1, ports: [{name: http, port: 80}], backends: [{kind: Pod, namespace: other, selector: {}}]}",
    );
    said(
        &world.translate(&lent).resolved,
        false,
        reason::NO_BACKENDS,
        "no backend: 1 selected but not in Vpc vpc1: other/a (in vpc2)",
    );
    lent.spec.backends[0].namespace = Some("third".into());
    said(
        &world.translate(&lent).resolved,
        false,
        reason::NO_BACKENDS,
        "in the namespace that it must be of",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whichever Pods of whichever Vpcs there are: each is in one slice, of its own Vpc, and slices of Vpcs in which
    /// nothing changed are not written.
    #[test]
    fn slices_never_mix_vpcs(rounds in proptest::collection::vec(
        proptest::collection::btree_map(0u16..40, 0u8..3, 0..40), 1..5))
    {
        let mut world = two_vpcs();
        let mut before: BTreeMap<u8, BTreeSet<u16>> = BTreeMap::new();
        for round in rounds {
            // A Pod that changes its Vpc is another Pod.
            let place = |(n, v): (&u16, &u8)| format!("ns/p{n}v{v} vpc{v} 10.0.0.{n}");
            world.pods = round.iter().map(|entry| other_pod(&place(entry), "web")).collect();
            let mut now: BTreeMap<u8, BTreeSet<u16>> = BTreeMap::new();
            for (number, vpc) in &round {
                now.entry(*vpc).or_default().insert(*number);
            }
            let changed = [1, 2].iter().filter(|vpc| before.get(vpc) != now.get(vpc)).count();
            let written = world.settle(&several());
            prop_assert_eq!(written, changed, "one slice of each Vpc that changed");
            for slice in &world.slices {
                let vpc = &slice.metadata.labels.as_ref().unwrap()[ycloud_api::key::VPC];
                for endpoint in &slice.endpoints {
                    let name = endpoint.target_ref.as_ref().unwrap().name.clone().unwrap();
                    prop_assert!(name.ends_with(&vpc.replace("vpc", "v")), "{} in {}", name, vpc);
                }
            }
            let total: usize = world.slices.iter().map(|slice| slice.endpoints.len()).sum();
            prop_assert_eq!(total, round.values().filter(|vpc| **vpc != 0).count());
            before = now;
            before.remove(&0);
        }
    }
}
