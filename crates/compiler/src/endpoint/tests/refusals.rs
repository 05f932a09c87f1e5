//! What is refused, and in which words.

use super::*;

const PORTS: &str = "ports: [{name: http, port: 80}]";

/// `spec` without its ports; reason; words of the message.
type Refused = (&'static str, &'static str, &'static str);

const CASES: &[Refused] = &[
    (
        "vpc: vpc1, healthCheck: {udp: {}}",
        reason::INVALID,
        "spec.healthCheck.udp: no port of spec.ports is UDP",
    ),
    (
        "vpc: vpc1, healthCheck: {https: {caBundle: nothing}}",
        reason::INVALID,
        "spec.healthCheck.https.caBundle: not certificates in PEM: there is no certificate in it",
    ),
    (
        "vpc: vpc1, healthCheck: {https: {caBundle: '-----BEGIN CERTIFICATE-----'}}",
        reason::INVALID,
        "spec.healthCheck.https.caBundle: not certificates in PEM",
    ),
    (
        "scope: multiVpc, type: LoadBalancer, vpc: vpc1, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}",
        reason::NOT_SUPPORTED,
        "timeoutSeconds 60 with scope multiVpc: remove it",
    ),
    (
        "vpc: vpc1, backends: [{kind: VNicIP, ip: web}]",
        reason::INVALID,
        "spec.backends[0].ip web: not an address",
    ),
    (
        "vpc: vpc1, backends: [{kind: VM, name: a, ports: [{name: x, targetPort: 1}]}]",
        reason::INVALID,
        "spec.backends[0].ports[0].name x",
    ),
    ("scope: vpc", reason::INVALID, "spec.vpc: required"),
    (
        "vpc: vpc1, backends: [{kind: Pod, vpc: vpc2, name: a}]",
        reason::INVALID,
        "spec.backends[0].vpc vpc2: only with scope multiVpc",
    ),
    (
        "scope: cluster, vpc: vpc1",
        reason::INVALID,
        "spec.vpc vpc1: scope cluster is for the default Vpc ovn-cluster",
    ),
    (
        "scope: cluster, backends: [{kind: Pod, vpc: vpc1, name: a}]",
        reason::INVALID,
        "spec.backends[0].vpc vpc1: only with scope multiVpc; remove it, backends are in ovn-cluster",
    ),
    (
        "scope: cluster",
        reason::NOT_FOUND,
        "spec.scope cluster (Vpc ovn-cluster): there is no such Vpc",
    ),
    (
        "scope: multiVpc, backends: [{kind: Pod, vpc: vpc1, name: a}]",
        reason::INVALID,
        "spec.type ClusterIP: scope multiVpc needs type LoadBalancer",
    ),
    (
        "scope: multiVpc, type: LoadBalancer, backends: [{kind: Pod, vpc: vpc1, name: a}, {kind: Pod, name: b}]",
        reason::INVALID,
        "spec.backends[1].vpc: required with scope multiVpc",
    ),
    (
        "scope: multiVpc, type: LoadBalancer, selector: {app: web}",
        reason::INVALID,
        "spec.selector: with scope multiVpc it needs spec.vpc",
    ),
    (
        "scope: multiVpc, type: LoadBalancer, externalTrafficPolicy: Local, vpc: vpc1",
        reason::INVALID,
        "spec.externalTrafficPolicy Local: with scope multiVpc",
    ),
    (
        "scope: multiVpc, type: LoadBalancer, backends: [{kind: Pod, vpc: vpc1, name: a}, {kind: Pod, vpc: vpc9, name: b}]",
        reason::NOT_FOUND,
        "spec.backends[1].vpc vpc9: there is no such Vpc",
    ),
    (
        "vpc: vpc1, eip: web",
        reason::INVALID,
        "spec.eip: only with type LoadBalancer",
    ),
    (
        "vpc: vpc1, eipGateway: gw",
        reason::INVALID,
        "spec.eipGateway: only with type LoadBalancer",
    ),
    (
        "vpc: vpc1, loadBalancerSourceRanges: [10.0.0.0/8]",
        reason::INVALID,
        "spec.loadBalancerSourceRanges: only with type LoadBalancer",
    ),
    (
        "vpc: vpc1, externalTrafficPolicy: Local",
        reason::INVALID,
        "spec.externalTrafficPolicy Local: only with type LoadBalancer",
    ),
    (
        "vpc: vpc1, type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8, '2001:db8::/32']",
        reason::INVALID,
        "spec.loadBalancerSourceRanges[1] 2001:db8::/32: EIPs are IPv4",
    ),
    (
        "vpc: vpc1, type: LoadBalancer, eip: web",
        reason::NOT_FOUND,
        "spec.eip web: there is no Eip web in namespace ns",
    ),
    (
        "vpc: vpc1, backends: [{kind: Pod, name: a, ports: [{name: x, targetPort: 1}]}]",
        reason::INVALID,
        "spec.backends[0].ports[0].name x",
    ),
];

#[test]
fn refusals_name_field_value_and_cure() {
    for (spec, reason, words) in CASES {
        let translation = World::new().translate(&ysvc(&format!("{{{spec}, {PORTS}}}")));
        said(&translation.accepted, false, reason, words);
        let objects = translation.objects.expect("nobody else's Service");
        assert_eq!((objects.service, objects.slices), (None, vec![]), "{spec}");
    }
    for (given, kept) in [
        ("", 10_800),
        ("clientIP: {}", 10_800),
        ("clientIP: {timeoutSeconds: 60}", 60),
    ] {
        let sticky = ysvc(&format!(
            "{{vpc: vpc1, sessionAffinity: ClientIP, sessionAffinityConfig: {{{given}}}, {PORTS}}}"
        ));
        let translation = World::new().translate(&sticky);
        assert_eq!(translation.accepted.status, Some(true));
        let service = translation.objects.unwrap().service.unwrap();
        let config = service.spec.unwrap().session_affinity_config;
        let seconds = config.and_then(|config| config.client_ip?.timeout_seconds);
        assert_eq!(seconds, Some(kept), "{given}");
    }
}

#[test]
fn the_vpc_must_exist_and_permit_the_namespace() {
    let mut world = World::new();
    world.vpcs.clear();
    let translation = world.translate(&web());
    said(
        &translation.accepted,
        false,
        reason::NOT_FOUND,
        "spec.vpc vpc1: there is no such Vpc",
    );
    let allowed = "{allowedNamespaces: {names: [x], selector: {matchLabels: {team: a}}}}";
    world.vpcs = vec![vpc("vpc1", allowed)];
    let translation = world.translate(&web());
    said(
        &translation.accepted,
        false,
        reason::NOT_PERMITTED,
        "Vpc vpc1 does not permit namespace ns",
    );
    world.namespace = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    assert_eq!(world.translate(&web()).accepted.status, Some(true));
}

/// Who may have Pods of namespace `other` as backends: (allowedNamespaces of their Vpc, whether it is a grant).
const GRANTS: &[(&str, bool)] = &[
    ("{}", false),
    ("{allowedNamespaces: {selector: {}}}", false),
    ("{allowedNamespaces: {names: [ns]}}", true),
    ("{allowedNamespaces: {names: [other, ns]}}", true),
];

#[test]
fn backends_of_another_namespace_need_their_vpc_to_name_this_one() {
    let spec = "{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80}], backends: [{kind: Pod, namespace: other, selector: {matchLabels: {app: web}}}]}";
    for (allowed, granted) in GRANTS {
        let mut world = World::new()
            .pod(1, true)
            .other_pod("other/a vpc1 10.0.9.1", "web")
            .other_pod("third/b vpc1 10.0.9.2", "web");
        world.vpcs = vec![vpc("vpc1", allowed)];
        let translation = world.translate(&ysvc(spec));
        if *granted {
            assert_eq!(translation.accepted.status, Some(true), "{allowed}");
            assert_eq!(
                endpoints(&translation),
                ["http=80 10.0.0.3 rs", "http=80 10.0.9.1 rs"]
            );
            continue;
        }
        said(
            &translation.accepted,
            false,
            reason::NOT_PERMITTED,
            "spec.backends[0].namespace other: Vpc vpc1 does not name namespace ns",
        );
        said(
            &translation.accepted,
            false,
            reason::NOT_PERMITTED,
            "have ns added to the Vpc's spec.allowedNamespaces.names",
        );
    }
}

#[test]
fn a_grant_that_is_taken_back_takes_its_backends_out_and_leaves_the_others() {
    let spec = "{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80}], backends: [{kind: Pod, namespace: other, name: a}]}";
    let mut world = World::new()
        .pod(1, true)
        .other_pod("other/a vpc1 10.0.9.1", "web");
    world.vpcs = vec![vpc("vpc1", "{allowedNamespaces: {names: [ns]}}")];
    assert_eq!(world.settle(&ysvc(spec)), 1);
    world.vpcs = vec![vpc("vpc1", "{}")];
    assert_eq!(world.settle(&ysvc(spec)), 1);
    let translation = world.translate(&ysvc(spec));
    assert_eq!(endpoints(&translation), ["http=80 10.0.0.3 rs"]);
    assert_eq!(translation.accepted.reason, reason::NOT_PERMITTED);
}

#[test]
fn a_subnet_that_names_a_namespace_permits_it_and_lends_it_nobody_elses_pods() {
    let own = "{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80}]}";
    let mut world = World::new()
        .pod(1, true)
        .other_pod("other/a vpc1 10.0.9.1", "web");
    world.vpcs = vec![vpc("vpc1", "{allowedNamespaces: {}}")];
    let closed = world.translate(&ysvc(own));
    assert_eq!(closed.accepted.reason, reason::NOT_PERMITTED);
    world.named = vec!["vpc1"];
    let open = world.translate(&ysvc(own));
    assert_eq!(open.accepted.status, Some(true));
    assert_eq!(endpoints(&open), ["http=80 10.0.0.3 rs"]);
    let theirs = "{vpc: vpc1, ports: [{name: http, port: 80}], backends: [{kind: Pod, namespace: other, name: a}]}";
    let lent = world.translate(&ysvc(theirs));
    assert_eq!(lent.accepted.reason, reason::NOT_PERMITTED);
}

#[test]
fn a_vpc_that_is_being_deleted_takes_no_newcomers() {
    let mut world = World::new().pod(1, true);
    world.vpcs[0].metadata.deletion_timestamp = Some(time("2026-01-01T00:00:05Z"));
    let mut ysvc = web();
    for (made, accepted) in [
        ("2026-01-01T00:00:05Z", true),
        ("2026-01-01T00:00:06Z", false),
    ] {
        ysvc.metadata.creation_timestamp = Some(time(made));
        let translation = world.translate(&ysvc);
        let (reason, words) = match accepted {
            true => (reason::ACCEPTED, ""),
            false => (reason::DELETING, "spec.vpc vpc1: Vpc vpc1 is being deleted"),
        };
        said(&translation.accepted, accepted, reason, words);
    }
}
