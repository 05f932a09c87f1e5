use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use ycloud_api::condition;
use ycloud_api::vnic::pod_vnic_name;
use ycloud_api::{YusurServiceStatus, key};
use ycloud_compiler::ObjectKey;

use super::plan::{Plan, transitions};
use super::pods::reduce_pod;
use super::world::{News, World};
use crate::watch::{Change, Key};

mod families;
mod foreign;
mod health;
mod kubevirt;
mod outside;
mod selection;

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A client of an API server that is not there.
pub(super) fn no_client() -> kube::Client {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    kube::Client::try_from(config).unwrap()
}

fn now(second: u8) -> Time {
    yaml(&format!("2026-01-01T00:00:{second:02}Z"))
}

fn plan(world: &World, key: &ObjectKey) -> Option<Plan> {
    super::plan::plan(world, key, &now(0))
}

/// Makes the probes that the plan wants, and lets them be in this state.
fn probe(world: &mut World, plan: &Plan, state: &str) {
    for wanted in &plan.wanted_probes {
        let mut probe = wanted.clone();
        probe.status = Some(yaml(&format!(
            "{{state: {state}, since: 2026-01-01T00:00:00Z}}"
        )));
        world.apply(News::NetworkProbe(Box::new(Change::Apply(probe))));
    }
}

fn svc() -> ObjectKey {
    ObjectKey::new("ns", "svc")
}

/// The keys that a change concerns, as text.
fn concerned(world: &mut World, news: News) -> Vec<String> {
    let keys: BTreeSet<ObjectKey> = world.apply(news);
    keys.iter().map(ToString::to_string).collect()
}

fn ysvc(name: &str, rest: &str) -> News {
    News::YusurService(Box::new(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, generation: 1}},
           spec: {{vpc: vpc1, selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}{rest}}}"
    )))))
}

fn pod(name: &str, app: &str, ready: bool) -> Pod {
    let ready = if ready { "True" } else { "False" };
    yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, uid: uid-{name}, resourceVersion: '7', labels: {{app: {app}}},
             annotations: {{big: text}}}},
           spec: {{nodeName: node-1, containers: [{{name: c, image: i}}]}},
           status: {{phase: Running, podIP: 10.0.0.9, conditions: [{{type: Ready, status: '{ready}'}}, {{type: Initialized, status: 'True'}}]}}}}"
    ))
}

fn pod_news(mut pod: Pod) -> News {
    reduce_pod(&mut pod);
    News::Pod(Box::new(Change::Apply(pod)))
}

fn vnic(pod: &str, status: &str) -> News {
    let name = pod_vnic_name(pod, &format!("uid-{pod}"));
    News::VNic(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns}}, status: {status},
           spec: {{subnet: s, attachment: {{kind: Pod, name: {pod}, uid: uid-{pod}, chassis: node-1}}}}}}"
    ))))
}

fn vpc() -> News {
    News::Vpc(Change::Apply(yaml(
        "{metadata: {name: vpc1}, spec: {allowedNamespaces: {selector: {}}}}",
    )))
}

/// The change that says that an object is gone.
fn gone(namespace: &str, name: &str) -> Key {
    Key {
        namespace: Some(namespace.into()),
        name: name.into(),
    }
}

/// Takes what the plan writes into the world, as the watches would after an API server filled in an address; and what the
/// next one writes, once the probes said that their targets are healthy.
fn carry_out(world: &mut World, plan: &Plan) {
    take(world, plan);
    let key = ObjectKey::new("ns", plan.ysvc.metadata.name.clone().unwrap());
    if let Some(next) = self::plan(world, &key) {
        take(world, &next);
    }
}

fn take(world: &mut World, plan: &Plan) {
    probe(world, plan, "Healthy");
    for slice in &plan.slices {
        world.apply(News::EndpointSlice(Change::Apply(slice.clone())));
    }
    if let Some(service) = &plan.service {
        let mut service: Service = service.clone();
        service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.7".into());
        world.apply(News::Service(Change::Apply(service)));
    }
}

/// What ycloud-controller writes once the nodes have caught up.
fn program(world: &mut World) {
    let mut service = world.service(&svc()).unwrap().clone();
    let digest = ycloud_compiler::digest(&service, &world.slices(&svc()));
    let annotations = service.metadata.annotations.get_or_insert_default();
    annotations.insert(key::PROGRAMMED.into(), digest);
    world.apply(News::Service(Change::Apply(service)));
}

fn state(status: &YusurServiceStatus) -> Vec<String> {
    let conditions = status.conditions.iter();
    conditions
        .map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
        .collect()
}

#[test]
fn a_change_concerns_those_who_depend_on_it() {
    let mut world = World::default();
    assert_eq!(concerned(&mut world, ysvc("svc", "")), ["ns/svc"]);
    assert_eq!(concerned(&mut world, ysvc("other", "")), ["ns/other"]);
    assert_eq!(concerned(&mut world, vpc()), ["ns/other", "ns/svc"]);
    assert_eq!(
        concerned(&mut world, vpc()),
        [""; 0],
        "the spec is the same"
    );
    let namespace = "{metadata: {name: ns, labels: {a: b}}}";
    let news = News::Namespace(Change::Apply(yaml(namespace)));
    assert_eq!(concerned(&mut world, news), ["ns/other", "ns/svc"]);

    assert_eq!(
        concerned(&mut world, pod_news(pod("p", "svc", true))),
        ["ns/svc"]
    );
    let mut touched = pod("p", "svc", true);
    touched.metadata.resource_version = Some("8".into());
    touched.metadata.annotations = None;
    assert_eq!(
        concerned(&mut world, pod_news(touched)),
        [""; 0],
        "nothing that matters"
    );
    assert_eq!(
        concerned(&mut world, pod_news(pod("p", "svc", false))),
        ["ns/svc"]
    );
    let moved = concerned(&mut world, pod_news(pod("p", "other", false)));
    assert_eq!(moved, ["ns/other", "ns/svc"], "the one that loses it, too");
    assert_eq!(
        concerned(&mut world, pod_news(pod("q", "nobody", true))),
        [""; 0]
    );

    assert_eq!(
        concerned(&mut world, vnic("p", "{phase: Pending}")),
        ["ns/other"]
    );
    assert_eq!(
        concerned(&mut world, vnic("p", "{ip: 10.0.0.9, vpc: vpc1}")),
        ["ns/other"]
    );
    let same = vnic("p", "{ip: 10.0.0.9, vpc: vpc1, phase: Up}");
    assert_eq!(
        concerned(&mut world, same),
        [""; 0],
        "the address is the same"
    );

    let slice = "{metadata: {name: s, namespace: ns, labels: {kubernetes.io/service-name: svc}}, addressType: IPv4, endpoints: []}";
    let slice: EndpointSlice = yaml(slice);
    let news = News::EndpointSlice(Change::Apply(slice.clone()));
    assert_eq!(concerned(&mut world, news), ["ns/svc"]);
    let gone = Key {
        namespace: Some("ns".into()),
        name: "s".into(),
    };
    assert_eq!(
        concerned(&mut world, News::EndpointSlice(Change::Delete(gone))),
        ["ns/svc"]
    );
    assert!(world.slices(&svc()).is_empty());
    let service = "{metadata: {name: stranger, namespace: ns}}";
    let news = News::Service(Change::Apply(yaml(service)));
    assert_eq!(concerned(&mut world, news), [""; 0]);
    let gone = Key {
        namespace: Some("ns".into()),
        name: "p".into(),
    };
    assert_eq!(
        concerned(&mut world, News::Pod(Box::new(Change::Delete(gone)))),
        ["ns/other"]
    );
}

#[test]
fn programmed_means_that_the_nodes_have_what_is_written() {
    let mut world = World::default();
    for news in [
        ysvc("svc", ""),
        vpc(),
        pod_news(pod("p", "svc", true)),
        vnic("p", "{ip: 10.0.0.9, vpc: vpc1}"),
    ] {
        world.apply(news);
    }
    let first = plan(&world, &svc()).unwrap();
    assert!(first.creates && first.service.is_some());
    assert_eq!(first.slices.len(), 1);
    let told = first.status(None, None, &now(1));
    assert_eq!(
        state(&told),
        [
            "Accepted=True Accepted",
            "BackendsResolved=True Resolved",
            "Programmed=False Pending",
            "Ready=False Pending"
        ]
    );

    carry_out(&mut world, &first);
    let second = plan(&world, &svc()).unwrap();
    assert!(!second.writes(), "a second look finds nothing to write");
    let told = second.status(None, Some(&told), &now(2));
    assert_eq!(state(&told)[2], "Programmed=False Pending");
    assert_eq!(told.cluster_ip.as_deref(), Some("10.96.0.7"));

    program(&mut world);
    let done = plan(&world, &svc())
        .unwrap()
        .status(None, Some(&told), &now(3));
    assert_eq!(
        state(&done)[2..],
        ["Programmed=True Programmed", "Ready=True Ready"]
    );
    let time =
        |status: &YusurServiceStatus, at: usize| status.conditions[at].last_transition_time.clone();
    assert_eq!((time(&done, 0), time(&done, 3)), (now(1), now(3)));
    let again = plan(&world, &svc())
        .unwrap()
        .status(None, Some(&done), &now(4));
    assert_eq!(again, done, "nothing new is told");

    world.apply(pod_news(pod("p", "svc", false)));
    let pending = plan(&world, &svc()).unwrap();
    assert_eq!(
        (pending.slices.len(), pending.service.is_some()),
        (1, false)
    );
    carry_out(&mut world, &pending);
    let behind = plan(&world, &svc())
        .unwrap()
        .status(None, Some(&done), &now(5));
    assert_eq!(
        state(&behind)[2],
        "Programmed=False Pending",
        "the nodes have the former endpoints"
    );
    program(&mut world);
    let none = plan(&world, &svc())
        .unwrap()
        .status(None, Some(&behind), &now(6));
    assert_eq!(
        state(&none)[2..],
        ["Programmed=True Programmed", "Ready=False NoBackends"]
    );
}

#[test]
fn a_service_that_ycloud_controller_refuses_is_not_programmed() {
    let mut world = World::default();
    world.apply(ysvc("svc", ""));
    world.apply(vpc());
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    let mut service = world.service(&svc()).unwrap().clone();
    service.status = Some(yaml(
        "{conditions: [{type: iaas.yusur.io/Accepted, status: 'False', reason: NotPermitted, message: no entry, lastTransitionTime: 2026-01-01T00:00:00Z}]}",
    ));
    world.apply(News::Service(Change::Apply(service)));
    let told = plan(&world, &svc()).unwrap().status(None, None, &now(1));
    let said = state(&told);
    assert_eq!(said[0], "Accepted=False NotPermitted");
    assert_eq!(
        said[2..],
        ["Programmed=False NotPermitted", "Ready=False NotPermitted"]
    );
    assert_eq!(
        told.conditions[0].message,
        "ycloud-controller refuses the Service: no entry"
    );
}

#[test]
fn what_the_api_server_refuses_is_told_and_kept_until_it_changes() {
    let mut world = World::default();
    world.apply(ysvc("svc", ""));
    world.apply(vpc());
    let first = plan(&world, &svc()).unwrap();
    let told = first.status(Some("the address is taken"), None, &now(1));
    assert_eq!(state(&told)[0], "Accepted=False Refused");
    assert_eq!(told.conditions[0].message, "the address is taken");
    assert_eq!(told.cluster_ip, None);
    assert_eq!(
        state(&told)[2..],
        ["Programmed=False Pending", "Ready=False Refused"]
    );

    // An edit that is refused: what stands is told of as what it is.
    carry_out(&mut world, &first);
    program(&mut world);
    let edit = "{metadata: {name: svc, namespace: ns, uid: uid-svc, generation: 2},
        spec: {vpc: vpc1, ports: [{name: http, port: 81}]}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(edit)))));
    let edited = plan(&world, &svc()).unwrap();
    let told = edited.status(Some("no"), None, &now(2));
    assert_eq!(state(&told)[2], "Programmed=False Refused");
    assert_eq!(told.cluster_ip.as_deref(), Some("10.96.0.7"));
}

#[test]
fn what_somebody_edits_in_the_service_is_taken_back_whole() {
    let mut world = World::default();
    world.apply(ysvc("svc", ""));
    world.apply(vpc());
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    let right = world.service(&svc()).unwrap().clone();
    let edits: [fn(&mut Service); 4] = [
        // As kubectl edit does it: another number under the same name.
        |s| s.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 81,
        |s| {
            let ports = s.spec.as_mut().unwrap().ports.as_mut().unwrap();
            ports.push(yaml(
                "{name: more, port: 82, protocol: UDP, targetPort: 82}",
            ));
        },
        |s| s.spec.as_mut().unwrap().selector = Some(yaml("{app: other}")),
        |s| s.metadata.labels = None,
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut edited = right.clone();
        edit(&mut edited);
        world.apply(News::Service(Change::Apply(edited.clone())));
        let patch = plan(&world, &svc()).unwrap().service_patch();
        let mut value = serde_json::to_value(&edited).unwrap();
        crate::mergepatch::tests::apply(&mut value, &patch.unwrap());
        let restored: Service = serde_json::from_value(value).unwrap();
        assert_eq!(restored, right, "edit {index}");
        world.apply(News::Service(Change::Apply(restored)));
        assert_eq!(plan(&world, &svc()).unwrap().service_patch(), None);
    }
}

#[test]
fn what_is_being_deleted_is_left_to_the_garbage_collector() {
    let mut world = World::default();
    let deleted = "{metadata: {name: svc, namespace: ns, deletionTimestamp: 2026-01-01T00:00:00Z},
        spec: {vpc: vpc1, ports: [{port: 80}]}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(deleted)))));
    assert!(plan(&world, &svc()).is_none());
    assert!(plan(&world, &ObjectKey::new("ns", "nobody")).is_none());
}

#[test]
fn a_former_endpoint_of_a_refused_spec_still_counts() {
    let mut world = World::default();
    for news in [
        ysvc("svc", ""),
        vpc(),
        pod_news(pod("p", "svc", true)),
        vnic("p", "{ip: 10.0.0.9, vpc: vpc1}"),
    ] {
        world.apply(news);
    }
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    let refused = "{metadata: {name: svc, namespace: ns, uid: uid-svc},
        spec: {vpc: vpc1, healthCheck: {udp: {}}, selector: {app: x}, ports: [{name: http, port: 80}]},
        status: {conditions: [{type: Accepted, status: 'False', reason: Invalid, message: m, lastTransitionTime: 2026-01-01T00:00:00Z}]}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(refused)))));
    assert!(!plan(&world, &svc()).unwrap().writes());
    let gone = Key {
        namespace: Some("ns".into()),
        name: "p".into(),
    };
    assert_eq!(
        concerned(&mut world, News::Pod(Box::new(Change::Delete(gone)))),
        ["ns/svc"]
    );
    let refreshed = plan(&world, &svc()).unwrap();
    assert!(refreshed.service.is_none());
    assert_eq!(refreshed.slices.len(), 1);
    assert!(refreshed.slices[0].endpoints.is_empty());
    let told = refreshed.status(None, None, &now(1));
    let message = &told.conditions[0].message;
    assert!(
        message.ends_with("the Service serves by the spec that was accepted before"),
        "{message}"
    );
}

#[test]
fn events_tell_transitions_once() {
    let status = |accepted: &str, reason: &str, message: &str, ready: &str| -> YusurServiceStatus {
        yaml(&format!(
            "{{conditions: [
               {{type: Accepted, status: '{accepted}', reason: {reason}, message: {message}, lastTransitionTime: 2026-01-01T00:00:00Z}},
               {{type: Programmed, status: '{ready}', reason: P, message: p, lastTransitionTime: 2026-01-01T00:00:00Z}},
               {{type: Ready, status: '{ready}', reason: R, message: r, lastTransitionTime: 2026-01-01T00:00:00Z}}]}}"
        ))
    };
    let said = |old: Option<&YusurServiceStatus>, new: &YusurServiceStatus| -> Vec<String> {
        let all = transitions(old, new).into_iter();
        all.map(|t| {
            format!(
                "{} {} {}",
                if t.warning { "Warning" } else { "Normal" },
                t.action,
                t.reason
            )
        })
        .collect()
    };
    let pending = status("True", "Accepted", "ok", "False");
    let ready = status("True", "Accepted", "ok", "True");
    let refused = status("False", "Refused", "one", "False");
    let differently = status("False", "Refused", "two", "False");
    assert_eq!(
        said(None, &pending),
        ["Normal Accepted Accepted"],
        "not ready yet is no news"
    );
    assert_eq!(said(Some(&pending), &pending), [""; 0]);
    assert_eq!(said(Some(&pending), &ready), ["Normal Ready R"]);
    assert_eq!(said(Some(&ready), &pending), ["Warning Ready R"]);
    let mut waits = pending.clone();
    waits.conditions[2].reason = condition::reason::PENDING.into();
    assert_eq!(said(Some(&ready), &waits), ["Normal Ready Pending"]);
    let mut counted = ready.clone();
    counted.conditions[2].message = "1/12 backends are healthy".into();
    let text = &transitions(Some(&pending), &counted)[0].message;
    assert!(!text.contains("12"), "figures change: {text}");
    assert_eq!(said(None, &refused), ["Warning Accepted Refused"]);
    assert_eq!(
        said(Some(&refused), &differently),
        ["Warning Accepted Refused"]
    );
    assert!(condition::is_true(&ready.conditions, condition::READY));
}
