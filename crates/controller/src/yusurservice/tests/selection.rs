//! Whom a change concerns where backends are of several Vpcs, namespaces and nodes.

use super::*;

/// The names of the Pods that the plan's slices hold, by Vpc.
fn backends(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = (plan.slices.iter())
        .map(|slice| {
            let vpc = &slice.metadata.labels.as_ref().unwrap()[key::VPC];
            let targets = slice.endpoints.iter().flat_map(|e| e.target_ref.clone());
            let names: Vec<String> = targets.flat_map(|target| target.name).collect();
            format!("{vpc}: {}", names.join(" "))
        })
        .collect();
    lines.sort();
    lines
}

fn pod_of(namespace: &str, name: &str, app: &str) -> News {
    let mut pod = pod(name, app, true);
    pod.metadata.namespace = Some(namespace.into());
    pod_news(pod)
}

fn vnic_of(namespace: &str, pod: &str, vpc: &str) -> News {
    let name = pod_vnic_name(pod, &format!("uid-{pod}"));
    News::VNic(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: {namespace}}}, status: {{ip: 10.0.0.9, vpc: {vpc}}},
           spec: {{subnet: s, attachment: {{kind: Pod, name: {pod}, uid: uid-{pod}, chassis: node-1}}}}}}"
    ))))
}

fn vpc_with(name: &str, spec: &str) -> News {
    News::Vpc(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}}}, spec: {spec}}}"
    ))))
}

fn spread(backends: &str) -> News {
    News::YusurService(Box::new(Change::Apply(yaml(&format!(
        "{{metadata: {{name: svc, namespace: ns, uid: uid-svc, generation: 1}},
           spec: {{scope: multiVpc, type: LoadBalancer, ports: [{{name: http, port: 80}}], backends: [{backends}]}}}}"
    )))))
}

const BOTH: &str = "{kind: Pod, vpc: vpc1, selector: {matchLabels: {app: svc}}},
    {kind: Pod, vpc: vpc2, namespace: other, selector: {matchLabels: {app: svc}}}";

/// The spec of a Vpc that permits every namespace.
const OPEN: &str = "{allowedNamespaces: {selector: {}}}";

#[test]
fn pods_and_vpcs_of_other_namespaces_concern_who_looks_at_them() {
    let mut world = World::default();
    assert_eq!(concerned(&mut world, spread(BOTH)), ["ns/svc"]);
    assert_eq!(concerned(&mut world, vpc_with("vpc1", OPEN)), ["ns/svc"]);
    let lent = "{allowedNamespaces: {names: [ns]}}";
    assert_eq!(concerned(&mut world, vpc_with("vpc2", lent)), ["ns/svc"]);
    assert_eq!(concerned(&mut world, vpc_with("vpc3", "{}")), [""; 0]);
    for (namespace, pod, vpc) in [("ns", "p", "vpc1"), ("other", "q", "vpc2")] {
        let news = pod_of(namespace, pod, "svc");
        assert_eq!(concerned(&mut world, news), ["ns/svc"]);
        let news = vnic_of(namespace, pod, vpc);
        assert_eq!(concerned(&mut world, news), ["ns/svc"]);
    }
    assert_eq!(
        concerned(&mut world, pod_of("third", "r", "svc")),
        [""; 0],
        "nobody looks there"
    );
    let first = plan(&world, &svc()).unwrap();
    assert_eq!(backends(&first), ["vpc1: p", "vpc2: q"]);
    carry_out(&mut world, &first);

    // Nobody looks at the other namespace any more.
    let one = "{kind: Pod, vpc: vpc1, selector: {matchLabels: {app: svc}}}";
    world.apply(spread(one));
    let less = plan(&world, &svc()).unwrap();
    assert_eq!((less.slices.len(), less.surplus.len()), (0, 1));
    assert_eq!(
        concerned(&mut world, pod_of("other", "s", "svc")),
        [""; 0],
        "it was left"
    );
    world.apply(News::YusurService(Box::new(Change::Delete(gone(
        "ns", "svc",
    )))));
    assert_eq!(concerned(&mut world, pod_of("ns", "t", "svc")), [""; 0]);
}

#[test]
fn a_grant_taken_back_concerns_a_refused_spec_that_names_the_vpc_no_more() {
    let mut world = World::default();
    let lent = "{allowedNamespaces: {names: [ns]}}";
    for news in [
        spread(BOTH),
        vpc_with("vpc1", OPEN),
        vpc_with("vpc2", lent),
        pod_of("ns", "p", "svc"),
        pod_of("other", "q", "svc"),
        vnic_of("ns", "p", "vpc1"),
        vnic_of("other", "q", "vpc2"),
    ] {
        world.apply(news);
    }
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    let refused = "{metadata: {name: svc, namespace: ns, uid: uid-svc},
        spec: {scope: multiVpc, type: LoadBalancer, healthCheck: {udp: {}}, ports: [{name: http, port: 80}]},
        status: {conditions: [{type: Accepted, status: 'False', reason: Invalid, message: m, lastTransitionTime: 2026-01-01T00:00:00Z}]}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(refused)))));
    assert!(!plan(&world, &svc()).unwrap().writes());
    assert_eq!(concerned(&mut world, vpc_with("vpc2", "{}")), ["ns/svc"]);
    assert_eq!(backends(&plan(&world, &svc()).unwrap()), ["vpc2: "]);
    let news = News::Pod(Box::new(Change::Delete(gone("other", "q"))));
    assert_eq!(concerned(&mut world, news), ["ns/svc"]);
}

#[test]
fn pods_are_found_by_any_of_their_labels_and_by_name() {
    let mut world = World::default();
    let labels = |pod: &mut Pod, text: &str| pod.metadata.labels = Some(yaml(text));
    for (name, of) in [
        ("a", "{app: svc, tier: front}"),
        ("b", "{app: svc, tier: back}"),
        ("c", "{app: other, tier: front}"),
        ("d", "{}"),
    ] {
        let mut pod = pod(name, "x", true);
        labels(&mut pod, of);
        world.apply(pod_news(pod));
        world.apply(vnic(name, "{ip: 10.0.0.9, vpc: vpc1}"));
    }
    world.apply(vpc());
    let spec = |rest: &str| {
        let text = format!(
            "{{metadata: {{name: svc, namespace: ns, uid: uid-svc}}, spec: {{vpc: vpc1, ports: [{{port: 80}}], {rest}}}}}"
        );
        News::YusurService(Box::new(Change::Apply(yaml(&text))))
    };
    let cases = [
        ("selector: {app: svc, tier: front}", "a"),
        ("selector: {app: svc}", "a b"),
        ("selector: {tier: front}", "a c"),
        ("selector: {tier: none}", ""),
        (
            "selector: {tier: back}, backends: [{kind: Pod, name: d}]",
            "b d",
        ),
        (
            "backends: [{kind: Pod, selector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}]",
            "d",
        ),
        (
            "backends: [{kind: Pod, selector: {matchLabels: {tier: front}, matchExpressions: [{key: app, operator: In, values: [other]}]}}]",
            "c",
        ),
        ("backends: [{kind: Pod, selector: {}}]", "a b c d"),
    ];
    let found = |world: &World| {
        let lines = backends(&plan(world, &svc()).unwrap());
        let line = lines.first().map_or("", String::as_str);
        line.strip_prefix("vpc1: ").unwrap_or_default().to_owned()
    };
    for (rest, names) in cases {
        world.apply(spec(rest));
        assert_eq!(found(&world), names, "{rest}");
    }
    // A label that changes, and a Pod that goes.
    let mut moved = pod("a", "x", true);
    labels(&mut moved, "{tier: back}");
    world.apply(pod_news(moved));
    world.apply(spec("selector: {tier: front}"));
    assert_eq!(found(&world), "c");
    world.apply(News::Pod(Box::new(Change::Delete(gone("ns", "c")))));
    assert_eq!(found(&world), "");
    world.apply(spec("selector: {tier: back}"));
    assert_eq!(found(&world), "a b");
}

#[test]
fn a_pod_on_the_nodes_network_keeps_its_nodes_address() {
    let mut world = World::default();
    let text = "{metadata: {name: svc, namespace: ns, uid: uid-svc}, spec: {scope: cluster, selector: {app: svc}, ports: [{port: 80}]}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(text)))));
    let default = vpc_with("ovn-cluster", "{}");
    assert_eq!(concerned(&mut world, default), ["ns/svc"]);
    let mut on_node = pod("p", "svc", true);
    on_node.spec.as_mut().unwrap().host_network = Some(true);
    let status = on_node.status.as_mut().unwrap();
    status.pod_ip = None;
    assert_eq!(concerned(&mut world, pod_news(on_node.clone())), ["ns/svc"]);
    assert!(plan(&world, &svc()).unwrap().slices.is_empty());
    on_node.status.as_mut().unwrap().pod_ip = Some("192.168.5.11".into());
    assert_eq!(concerned(&mut world, pod_news(on_node)), ["ns/svc"]);
    let slices = plan(&world, &svc()).unwrap().slices;
    assert_eq!(slices[0].endpoints[0].addresses, ["192.168.5.11"]);
}
