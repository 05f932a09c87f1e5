use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use ycloud_api::backend::BackendKind;
use ycloud_api::condition::{Verdict, reason};
use ycloud_api::kubevirt::VirtualMachineInstance;
use ycloud_api::made::SERVICE_NAME;
use ycloud_api::network_probe::{NetworkProbeStatus, ProbeState};
use ycloud_api::{Eip, NetworkProbe, VNic, Vpc, YusurService};

use super::*;

mod families;
mod health;
mod outside;
mod probes;
mod refusals;
mod scopes;
mod vmis;
mod vnics;

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The world around one YusurService; a Pod and its VNic together.
#[derive(Clone)]
struct World {
    vpcs: Vec<Vpc>,
    /// Those a Subnet of which names the namespace of the YusurService.
    named: Vec<&'static str>,
    eip: Option<Eip>,
    namespace: BTreeMap<String, String>,
    pods: Vec<(Pod, Option<VNic>)>,
    vnics: Vec<VNic>,
    /// None: KubeVirt is not installed.
    vmis: Option<Vec<VirtualMachineInstance>>,
    /// The NetworkProbes that exist. Those that a translation wants and are not here are there at once, and Healthy, unless
    /// `made` is false.
    probes: BTreeMap<String, Arc<NetworkProbe>>,
    made: bool,
    now: Time,
    service: Option<Service>,
    slices: Vec<EndpointSlice>,
}

impl World {
    fn new() -> Self {
        Self {
            vpcs: vec![vpc("vpc1", "{}")],
            named: Vec::new(),
            eip: None,
            namespace: BTreeMap::new(),
            pods: Vec::new(),
            vnics: Vec::new(),
            vmis: None,
            probes: BTreeMap::new(),
            made: true,
            now: time("2026-01-01T00:00:00Z"),
            service: None,
            slices: Vec::new(),
        }
    }

    /// A Pod at 10.0.x.y of vpc1, labelled app=web, whose container port `web` is 8080.
    fn pod(mut self, number: u16, ready: bool) -> Self {
        self.pods.push(pod(number, ready));
        self
    }

    /// Another Pod: `place` is "namespace/name vpc address", with the Vpc `node` for one on its node's network.
    fn other_pod(mut self, place: &str, app: &str) -> Self {
        self.pods.push(other_pod(place, app));
        self
    }

    fn translate(&self, ysvc: &YusurService) -> Translation {
        let mut probes = self.probes.clone();
        let first = self.translate_with(ysvc, &probes);
        let before = probes.len();
        for mut probe in first.probes.iter().filter(|_| self.made).cloned() {
            probe.status = Some(healthy());
            let name = probe.metadata.name.clone().unwrap_or_default();
            probes.entry(name).or_insert(Arc::new(probe));
        }
        match probes.len() == before {
            true => first,
            false => self.translate_with(ysvc, &probes),
        }
    }

    fn translate_with(
        &self,
        ysvc: &YusurService,
        probes: &BTreeMap<String, Arc<NetworkProbe>>,
    ) -> Translation {
        let pods: Vec<PodBackend> = self
            .pods
            .iter()
            .map(|(pod, vnic)| PodBackend {
                pod,
                vnic: vnic.as_ref(),
            })
            .collect();
        let vmis: Option<Vec<&VirtualMachineInstance>> =
            self.vmis.as_ref().map(|vmis| vmis.iter().collect());
        translate(
            ysvc,
            &TranslateInput {
                named: &self.named.iter().copied().collect(),
                vpcs: &self.vpcs().collect(),
                eip: self.eip.as_ref(),
                namespace_labels: &self.namespace,
                pods: &pods,
                vnics: &self.vnics.iter().collect::<Vec<_>>(),
                vmis: vmis.as_deref(),
                probes,
                own_probes: &probes.values().map(Arc::as_ref).collect::<Vec<_>>(),
                now: &self.now,
                service: self.service.as_ref(),
                slices: &self.slices.iter().collect::<Vec<_>>(),
            },
        )
    }

    /// Lets the probes that `ysvc` wants be in this state since then, with these words.
    fn probed(&mut self, ysvc: &YusurService, state: ProbeState, since: &str, words: &str) {
        for mut probe in self.translate(ysvc).probes {
            probe.status = Some(yaml(&format!(
                "{{state: {state:?}, since: {since}, lastError: '{words}'}}"
            )));
            let name = probe.metadata.name.clone().unwrap_or_default();
            self.probes.insert(name, Arc::new(probe));
        }
    }

    /// A VNic of vpc1, labelled app=web: "namespace/name kind machine address", with `-` for no address.
    fn vnic(mut self, place: &str) -> Self {
        self.vnics.push(vnic(place));
        self
    }

    fn vpcs(&self) -> impl Iterator<Item = (&str, &Vpc)> {
        let named = |vpc| {
            let vpc: &Vpc = vpc;
            (vpc.metadata.name.as_deref().unwrap_or_default(), vpc)
        };
        self.vpcs.iter().map(named)
    }

    /// Carries the translation out, as an API server would; how many slices were written or deleted.
    fn settle(&mut self, ysvc: &YusurService) -> usize {
        let translation = self.translate(ysvc);
        for mut probe in translation.probes.into_iter().filter(|_| self.made) {
            probe.status = Some(healthy());
            let name = probe.metadata.name.clone().unwrap_or_default();
            self.probes.entry(name).or_insert(Arc::new(probe));
        }
        let objects = translation.objects.expect("accepted");
        let before: Vec<&EndpointSlice> = self.slices.iter().collect();
        let writes = objects.writes(self.service.as_ref(), &before);
        let count = writes.slices.len() + writes.surplus.len();
        let written: BTreeSet<Option<String>> = writes
            .slices
            .iter()
            .map(|s| s.metadata.name.clone())
            .collect();
        let gone = writes.surplus.clone();
        let mut slices = self.slices.clone();
        slices.retain(|slice| {
            let name = slice.metadata.name.as_ref();
            !written.contains(&slice.metadata.name) && !name.is_some_and(|n| gone.contains(n))
        });
        slices.extend(writes.slices.iter().map(|slice| (*slice).clone()));
        self.slices = slices;
        if let Some(service) = objects.service {
            self.service = Some(service);
        }
        count
    }
}

fn pod(number: u16, ready: bool) -> (Pod, Option<VNic>) {
    let (a, b) = (number / 200, number % 200 + 2);
    let pod = yaml(&format!(
        "{{metadata: {{name: p{number:04}, namespace: ns, uid: uid-{number}, labels: {{app: web}}}},
           spec: {{nodeName: node-1, containers: [{{name: c, ports: [{{name: web, containerPort: 8080}}]}}]}},
           status: {{phase: Running, conditions: [{{type: Ready, status: '{}'}}]}}}}",
        if ready { "True" } else { "False" }
    ));
    let vnic = yaml(&format!(
        "{{metadata: {{name: v}}, spec: {{subnet: s}}, status: {{ip: 10.0.{a}.{b}, vpc: vpc1}}}}"
    ));
    (pod, Some(vnic))
}

fn vnic(place: &str) -> VNic {
    let words: Vec<&str> = place.split([' ', '/']).collect();
    let [namespace, name, kind, machine, address] = words[..] else {
        panic!("{place}")
    };
    let status = match address {
        "-" => "{phase: Pending}".to_owned(),
        ip => format!("{{ip: {ip}, vpc: vpc1, chassis: c1, phase: Bound}}"),
    };
    yaml(&format!(
        "{{metadata: {{name: {name}, namespace: {namespace}, uid: uid-{name}, labels: {{app: web}}}},
           spec: {{subnet: s, attachment: {{kind: {kind}, name: {machine}}}}}, status: {status}}}"
    ))
}

fn healthy() -> NetworkProbeStatus {
    NetworkProbeStatus {
        state: ProbeState::Healthy,
        ..NetworkProbeStatus::default()
    }
}

fn time(text: &str) -> Time {
    yaml(text)
}

/// With an empty spec it permits everybody.
fn vpc(name: &str, spec: &str) -> Vpc {
    let spec = match spec {
        "{}" => "{allowedNamespaces: {selector: {}}}",
        spec => spec,
    };
    yaml(&format!("{{metadata: {{name: {name}}}, spec: {spec}}}"))
}

fn other_pod(place: &str, app: &str) -> (Pod, Option<VNic>) {
    let words: Vec<&str> = place.split([' ', '/']).collect();
    let [namespace, name, vpc, address] = words[..] else {
        panic!("{place}")
    };
    let node = vpc == "node";
    let pod = yaml(&format!(
        "{{metadata: {{name: {name}, namespace: {namespace}, uid: uid-{namespace}-{name}, labels: {{app: {app}}}}},
           spec: {{nodeName: node-1, hostNetwork: {node}, containers: [{{name: c, ports: [{{name: web, containerPort: 8080}}]}}]}},
           status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: 'True'}}]}}}}"
    ));
    let vnic = yaml(&format!(
        "{{metadata: {{name: v}}, spec: {{subnet: s}}, status: {{ip: {address}, vpc: {vpc}}}}}"
    ));
    (pod, Some(vnic).filter(|_| !node))
}

fn ysvc(spec: &str) -> YusurService {
    yaml(&format!(
        "{{metadata: {{name: svc, namespace: ns, uid: uid-svc}}, spec: {spec}}}"
    ))
}

fn web() -> YusurService {
    ysvc("{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}")
}

/// Address and conditions of every endpoint, by its ports.
fn endpoints(translation: &Translation) -> Vec<String> {
    let mut lines = Vec::new();
    for slice in &translation.objects.as_ref().expect("accepted").slices {
        let ports = slice.ports.iter().flatten();
        let ports: Vec<String> = ports
            .map(|p| {
                format!(
                    "{}={}",
                    p.name.as_deref().unwrap_or_default(),
                    p.port.unwrap_or_default()
                )
            })
            .collect();
        for endpoint in &slice.endpoints {
            let c = endpoint.conditions.clone().unwrap_or_default();
            let word = |is: Option<bool>, word| if is == Some(true) { word } else { "" };
            lines.push(format!(
                "{} {} {}{}{}",
                ports.join(","),
                endpoint.addresses.join(","),
                word(c.ready, "r"),
                word(c.serving, "s"),
                word(c.terminating, "t")
            ));
        }
    }
    lines
}

fn said(verdict: &Verdict, status: bool, reason: &str, words: &str) {
    assert_eq!(
        (verdict.status, verdict.reason),
        (Some(status), reason),
        "{}",
        verdict.message
    );
    assert!(
        verdict.message.contains(words),
        "{:?} lacks {words:?}",
        verdict.message
    );
}

#[test]
fn pods_become_endpoints_by_readiness() {
    let mut world = World::new()
        .pod(1, true)
        .pod(2, false)
        .pod(3, true)
        .pod(4, false)
        .pod(5, true);
    let deleted = yaml("2026-01-01T00:00:00Z");
    world.pods[2].0.metadata.deletion_timestamp = Some(deleted);
    world.pods[3].1 = None;
    if let Some(status) = world.pods[4].0.status.as_mut() {
        status.phase = Some("Succeeded".into());
    }
    let translation = world.translate(&web());
    assert_eq!(
        endpoints(&translation),
        [
            "http=8080 10.0.0.3 rs",
            "http=8080 10.0.0.4 ",
            "http=8080 10.0.0.5 st"
        ]
    );
    assert_eq!(translation.counts.summary, "1/4");
    assert_eq!(
        (translation.counts.draining, translation.counts.total),
        (1, 4)
    );
    said(
        &translation.resolved,
        true,
        reason::RESOLVED,
        "4 found; 1 without an address yet",
    );

    let mut all = web();
    all.spec.publish_not_ready_addresses = true;
    assert_eq!(
        endpoints(&world.translate(&all)),
        [
            "http=8080 10.0.0.3 rs",
            "http=8080 10.0.0.4 r",
            "http=8080 10.0.0.5 rst"
        ]
    );
}

#[test]
fn pods_of_other_vpcs_and_of_the_node_are_left_out_by_name() {
    let mut world = World::new().pod(1, true).pod(2, true).pod(3, true);
    if let Some(status) = world.pods[1].1.as_mut().and_then(|v| v.status.as_mut()) {
        status.vpc = Some("vpc2".into());
    }
    world.pods[2].1 = None;
    world.pods[2].0.spec.as_mut().unwrap().host_network = Some(true);
    let translation = world.translate(&web());
    assert_eq!(endpoints(&translation), ["http=8080 10.0.0.3 rs"]);
    assert_eq!(translation.counts.summary, "1/1");
    said(
        &translation.resolved,
        true,
        reason::RESOLVED,
        "1 found; 2 selected but not in Vpc vpc1: p0002 (in vpc2), p0003 (on the node's network)",
    );
    world.pods.remove(0);
    let none = world.translate(&web());
    said(
        &none.resolved,
        false,
        reason::NO_BACKENDS,
        "no backend: 2 selected but not in Vpc vpc1",
    );
}

#[test]
fn named_ports_are_looked_up_in_each_pod() {
    let mut world = World::new().pod(1, true).pod(2, true).pod(3, true);
    let ports = |pod: &mut Pod, text: &str| {
        pod.spec.as_mut().unwrap().containers = yaml(text);
    };
    ports(
        &mut world.pods[1].0,
        "[{name: a}, {name: b, ports: [{name: web, containerPort: 9090}]}]",
    );
    // A port of this name, but of another protocol.
    ports(
        &mut world.pods[2].0,
        "[{name: a, ports: [{name: web, containerPort: 53, protocol: UDP}]}]",
    );
    let named = ysvc("{vpc: vpc1, selector: {app: web}, ports: [{port: 80, targetPort: web}]}");
    let translation = world.translate(&named);
    let mut lines = endpoints(&translation);
    lines.sort();
    assert_eq!(lines, ["=8080 10.0.0.3 rs", "=9090 10.0.0.4 rs"]);
    assert_eq!(translation.counts.summary, "2/3");

    let missing = ysvc("{vpc: vpc1, selector: {app: web}, ports: [{port: 80, targetPort: nope}]}");
    let translation = world.translate(&missing);
    said(
        &translation.resolved,
        false,
        reason::NOT_FOUND,
        "no selected Pod has a container port named nope (TCP)",
    );
    assert_eq!(endpoints(&translation), [""; 0]);
    assert_eq!(translation.accepted.status, Some(true));
}

#[test]
fn a_pod_without_one_of_the_ports_is_an_endpoint_of_the_others() {
    let mut world = World::new().pod(1, true).pod(2, true);
    world.pods[1].0.spec.as_mut().unwrap().containers = yaml("[{name: a}]");
    let both = ysvc(
        "{vpc: vpc1, selector: {app: web}, ports: [{name: a, port: 80, targetPort: web}, {name: b, port: 81}]}",
    );
    let mut lines = endpoints(&world.translate(&both));
    lines.sort();
    assert_eq!(lines, ["a=8080,b=81 10.0.0.3 rs", "b=81 10.0.0.4 rs"]);
}

#[test]
fn backends_add_pods_by_label_or_name_with_ports_of_their_own() {
    let mut world = World::new().pod(1, true).pod(2, true).pod(3, true);
    for (index, app) in [(1, "db"), (2, "other")] {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        world.pods[index].0.metadata.labels = Some(labels);
    }
    let more = ysvc(
        "{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}], backends: [
          {kind: Pod, selector: {matchExpressions: [{key: app, operator: In, values: [db, web]}]}, ports: [{name: http, targetPort: 5432}]},
          {kind: Pod, vpc: vpc1, namespace: ns, name: p0003}]}",
    );
    let mut lines = endpoints(&world.translate(&more));
    lines.sort();
    assert_eq!(
        lines,
        [
            "http=5432 10.0.0.4 rs",
            "http=8080 10.0.0.3 rs",
            "http=8080 10.0.0.5 rs"
        ]
    );
}

#[test]
fn a_foreign_service_is_left_alone() {
    let mut world = World::new();
    world.service = Some(yaml(
        "{metadata: {name: svc}, spec: {clusterIP: 10.96.0.7}}",
    ));
    let translation = world.translate(&web());
    said(
        &translation.accepted,
        false,
        reason::CONFLICT,
        "Service svc of this namespace exists and was made by somebody else",
    );
    assert!(translation.objects.is_none());
    world.service = Some(yaml(
        "{metadata: {name: svc, ownerReferences: [{apiVersion: v1, kind: Release, name: r, uid: u, controller: true}]}}",
    ));
    said(
        &world.translate(&web()).accepted,
        false,
        reason::CONFLICT,
        "belongs to Release r",
    );
}

#[test]
fn an_address_that_changed_is_refused_while_all_else_follows() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    let spec = world
        .service
        .as_mut()
        .and_then(|service| service.spec.as_mut());
    spec.unwrap().cluster_ip = Some("10.96.0.7".into());
    let mut same = web();
    same.spec.cluster_ip = Some("10.96.0.7".into());
    assert_eq!(world.translate(&same).accepted.status, Some(true));
    let mut other = web();
    other.spec.cluster_ip = Some("10.96.0.8".into());
    other.spec.ports[0].port = 8000;
    let translation = world.translate(&other);
    said(
        &translation.accepted,
        false,
        reason::REFUSED,
        "spec.clusterIP 10.96.0.8: the Service already has 10.96.0.7",
    );
    said(
        &translation.accepted,
        false,
        reason::REFUSED,
        "delete and recreate the YusurService",
    );
    let spec = translation.objects.unwrap().service.unwrap().spec.unwrap();
    assert_eq!(spec.cluster_ip, None);
    assert_eq!(spec.ports.unwrap()[0].port, 8000);
}

#[test]
fn a_refused_edit_leaves_the_service_serving_without_pods_that_go() {
    let mut world = World::new().pod(1, true).pod(2, true).pod(3, true);
    world.settle(&web());
    let mut refused = web();
    refused.spec.health_check = Some(yaml("{udp: {}}"));
    refused.spec.selector.clear();
    refused.spec.ports[0].port = 81;
    assert_eq!(world.settle(&refused), 0, "nothing changed but the spec");
    world.pods[1] = pod(2, false);
    world.pods.remove(0);
    world = world.pod(4, true);
    assert_eq!(world.settle(&refused), 1);
    assert_eq!(
        endpoints(&world.translate(&refused)),
        ["http=8080 10.0.0.4 ", "http=8080 10.0.0.5 rs"]
    );
    let spec = world
        .service
        .as_ref()
        .and_then(|service| service.spec.as_ref());
    assert_eq!(spec.unwrap().ports.as_ref().unwrap()[0].port, 80);
}

#[test]
fn while_the_api_server_refuses_an_edit_pods_that_go_are_taken_out() {
    let mut world = World::new().pod(1, true).pod(2, true);
    world.settle(&web());
    world.pods.remove(0);
    let mut edited = web();
    edited.spec.ports[0].target_port = Some(yaml("other"));
    let objects = world.translate(&edited).objects.unwrap();
    let present: Vec<&EndpointSlice> = world.slices.iter().collect();
    let writes = objects.writes(world.service.as_ref(), &present);
    assert!(writes.service.is_some());
    let kept: Vec<_> = writes.if_refused.iter().map(|s| &s.endpoints).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].len(), 1, "the Pod that stayed");
    assert_eq!(kept[0][0].addresses, ["10.0.0.4"]);
    let settled = world.translate(&web()).objects.unwrap();
    let writes = settled.writes(world.service.as_ref(), &present);
    assert!(writes.if_refused.is_empty(), "the Service does not change");
}

#[test]
fn a_service_that_somebody_deleted_comes_back_under_its_address() {
    let mut world = World::new().pod(1, true);
    let mut known = web();
    known.status = Some(yaml("{clusterIP: 10.96.0.7, conditions: []}"));
    let address = |world: &World, ysvc: &YusurService| {
        let service = world.translate(ysvc).objects.unwrap().service.unwrap();
        service.spec.unwrap().cluster_ip
    };
    assert_eq!(address(&world, &known).as_deref(), Some("10.96.0.7"));
    known.spec.cluster_ip = Some("10.96.0.8".into());
    assert_eq!(address(&world, &known).as_deref(), Some("10.96.0.8"));
    // The API server may refuse what is remembered: then what the spec asks for is left.
    let afresh = |world: &World, ysvc: &YusurService| {
        let afresh = world.translate(ysvc).objects.unwrap().afresh;
        afresh.map(|service| service.spec.unwrap().cluster_ip)
    };
    assert_eq!(afresh(&world, &known), None, "the spec says which");
    assert_eq!(afresh(&world, &web()), None, "nothing is remembered");
    known.spec.cluster_ip = None;
    assert_eq!(afresh(&world, &known), Some(None));
    world.settle(&web());
    assert_eq!(address(&world, &known), None, "it has one");
    assert_eq!(afresh(&world, &known), None);
}

#[test]
fn a_service_that_was_left_behind_is_taken() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    let left = |service: &mut Option<Service>| {
        let meta = &mut service.as_mut().unwrap().metadata;
        meta.owner_references = None;
    };
    left(&mut world.service);
    let mut anew = web();
    anew.metadata.uid = Some("uid-2".into());
    let translation = world.translate(&anew);
    said(&translation.accepted, true, reason::ACCEPTED, "");
    let objects = translation.objects.unwrap();
    let writes = objects.writes(world.service.as_ref(), &[]);
    let owners = &writes.service.unwrap().metadata.owner_references;
    assert_eq!(owners.as_ref().unwrap()[0].uid, "uid-2");
    let mut other = world.clone();
    other.service.as_mut().unwrap().metadata.labels = None;
    said(
        &other.translate(&anew).accepted,
        false,
        reason::CONFLICT,
        "was made by somebody else",
    );
}

#[test]
fn what_the_api_server_fills_in_is_no_difference() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    let service = world.service.as_mut().unwrap();
    let mut annotations = service.metadata.annotations.clone().unwrap();
    annotations.insert("iaas.yusur.io/programmed".into(), "0".into());
    service.metadata.annotations = Some(annotations);
    let spec = service.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.96.0.7".into());
    spec.cluster_ips = Some(vec!["10.96.0.7".into()]);
    spec.internal_traffic_policy = Some("Cluster".into());
    assert_eq!(world.settle(&web()), 0);
    let present: Vec<&EndpointSlice> = world.slices.iter().collect();
    let objects = world.translate(&web()).objects.unwrap();
    assert!(objects.writes(world.service.as_ref(), &present).is_empty());
    // Edits by hand of what ycloud sets are differences.
    let edits: [fn(&mut Service); 6] = [
        |s| s.metadata.labels = None,
        |s| s.metadata.owner_references = None,
        |s| s.spec.as_mut().unwrap().session_affinity = Some("ClientIP".into()),
        |s| s.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 81,
        |s| s.spec.as_mut().unwrap().selector = Some(yaml("{app: other}")),
        |s| s.spec.as_mut().unwrap().external_ips = Some(vec!["203.0.113.9".into()]),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut service = world.service.clone().unwrap();
        edit(&mut service);
        let writes = objects.writes(Some(&service), &present);
        assert!(writes.service.is_some(), "edit {index}");
    }
}

#[test]
fn a_hundred_endpoints_fill_a_slice_and_one_change_rewrites_one() {
    let mut world = World::new();
    for number in 0..250 {
        world = world.pod(number, true);
    }
    assert_eq!(world.settle(&web()), 3);
    assert_eq!(world.settle(&web()), 0, "nothing to do the second time");
    world.pods[120] = pod(120, false);
    assert_eq!(world.settle(&web()), 1);
    world.pods.remove(7);
    assert_eq!(world.settle(&web()), 1);
    world = world.pod(999, true);
    assert_eq!(world.settle(&web()), 1);
    assert_eq!(world.settle(&web()), 0);
    let mut moved = web();
    moved.spec.ports[0].target_port = None;
    assert_eq!(world.settle(&moved), 3, "each slice is rewritten in place");
    assert!(
        world
            .slices
            .iter()
            .all(|slice| slice.ports.as_ref().unwrap()[0].port == Some(80))
    );
    world.pods.clear();
    assert_eq!(world.settle(&moved), 3);
    assert!(world.slices.is_empty());
}

#[test]
fn slices_of_others_are_neither_read_nor_deleted() {
    let mut world = World::new().pod(1, true);
    world.settle(&web());
    let mut foreign = world.slices[0].clone();
    foreign.metadata.name = Some("by-hand".into());
    foreign.metadata.labels = Some(BTreeMap::from([(
        SERVICE_NAME.to_owned(),
        "svc".to_owned(),
    )]));
    let mut former = world.slices[0].clone();
    former.metadata.name = Some("of-a-predecessor".into());
    former.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
    world.slices.extend([foreign, former]);
    assert_eq!(world.settle(&web()), 0);
}

#[test]
fn the_status_counts_ports_after_eight() {
    let ports: Vec<String> = (1..=10)
        .map(|n| format!("{{name: p{n}, port: {n}, protocol: UDP}}"))
        .collect();
    let many = ysvc(&format!("{{vpc: vpc1, ports: [{}]}}", ports.join(", ")));
    assert_eq!(
        World::new().translate(&many).ports,
        "1/UDP,2/UDP,3/UDP,4/UDP,5/UDP,6/UDP,7/UDP,8/UDP and 2 more"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the Pods: the slices hold exactly the Pods there are, each once, none has more than it may,
    /// and a second look finds nothing to do.
    #[test]
    fn slices_hold_each_pod_once(rounds in proptest::collection::vec(
        proptest::collection::btree_map(0u16..300, (any::<bool>(), any::<bool>()), 0..300), 1..5))
    {
        let named = ysvc("{vpc: vpc1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}");
        let mut world = World::new();
        for round in rounds {
            world.pods = round.iter().map(|(number, (ready, _))| pod(*number, *ready)).collect();
            for ((pod, _), (_, other)) in world.pods.iter_mut().zip(round.values()) {
                if *other {
                    pod.spec.as_mut().unwrap().containers =
                        yaml("[{name: c, ports: [{name: web, containerPort: 9090}]}]");
                }
            }
            world.settle(&named);
            let mut seen = Vec::new();
            for slice in &world.slices {
                prop_assert!((1..=MAX_ENDPOINTS).contains(&slice.endpoints.len()));
                let port = slice.ports.as_ref().unwrap()[0].port;
                for endpoint in &slice.endpoints {
                    seen.push((endpoint.target_ref.as_ref().unwrap().name.clone().unwrap(), port));
                }
            }
            seen.sort();
            let wanted: Vec<(String, Option<i32>)> = round
                .iter()
                .map(|(n, (_, other))| (format!("p{n:04}"), Some(if *other { 9090 } else { 8080 })))
                .collect();
            prop_assert_eq!(seen, wanted);
            world.pods.reverse();
            world.slices.reverse();
            prop_assert_eq!(world.settle(&named), 0);
        }
    }
}
