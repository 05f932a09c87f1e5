//! EndpointSlices that somebody else wrote for a YusurService's Service.

use super::*;

/// A slice that names the Service, with these labels besides.
fn slice(name: &str, labels: &str) -> News {
    News::EndpointSlice(Change::Apply(yaml(&format!(
        "{{metadata: {{name: {name}, namespace: ns, labels: {{kubernetes.io/service-name: svc{labels}}},
             ownerReferences: [{{apiVersion: v1, kind: Endpoints, name: svc, uid: x, controller: true}}]}},
           addressType: IPv4, endpoints: [{{addresses: [10.9.9.9]}}], ports: [{{name: http, port: 80}}]}}"
    ))))
}

/// A world in which everything is written.
fn written() -> World {
    let mut world = World::default();
    world.apply(vpc());
    world.apply(pod_news(pod("a", "svc", true)));
    world.apply(vnic("a", "{ip: 10.0.0.5, vpc: vpc1}"));
    world.apply(ysvc("svc", ""));
    let first = plan(&world, &svc()).unwrap();
    carry_out(&mut world, &first);
    program(&mut world);
    world
}

fn said(plan: &Plan) -> Option<String> {
    let status = plan.status(None, None, &now(1));
    let mut all = status.conditions.into_iter();
    let found = all.find(|condition| condition.type_ == condition::FOREIGN_ENDPOINTS)?;
    Some(found.message)
}

#[test]
fn nobodys_slice_is_told_of_and_changes_nothing() {
    let mut world = written();
    let before = plan(&world, &svc()).unwrap();
    assert_eq!(said(&before), None);
    assert_eq!(concerned(&mut world, slice("mine", "")), ["ns/svc"]);
    let forged = ", endpointslice.kubernetes.io/managed-by: yusurservice-controller.iaas.yusur.io";
    world.apply(slice("forged", forged));
    let after = plan(&world, &svc()).unwrap();
    assert!(!after.writes(), "{after:?}");
    let message = said(&after).expect("it is told");
    for word in [
        "EndpointSlice forged and 1 more",
        "nobody is sent to its endpoints",
        "spec.backends",
    ] {
        assert!(message.contains(word), "{message}");
    }
    let old = before.status(None, None, &now(1));
    let new = after.status(None, Some(&old), &now(2));
    let ready = |status: &YusurServiceStatus| {
        let mut all = status.conditions.iter();
        all.find(|c| c.type_ == condition::READY).cloned()
    };
    assert_eq!(ready(&old), ready(&new), "the nodes have what they had");
    let events = transitions(Some(&old), &new);
    assert_eq!(events.len(), 1);
    assert!(events[0].warning && events[0].message == message);
    assert_eq!(transitions(Some(&new), &new), []);
    for name in ["mine", "forged"] {
        world.apply(News::EndpointSlice(Change::Delete(gone("ns", name))));
    }
    let at_last = plan(&world, &svc()).unwrap();
    let status = at_last.status(None, Some(&new), &now(3));
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.type_ != condition::FOREIGN_ENDPOINTS)
    );
}

#[test]
fn what_kubernetes_wrote_for_a_selector_goes_once_that_is_gone() {
    let mut world = written();
    let service = world.service(&svc()).unwrap().clone();
    let mut selecting = service.clone();
    selecting.spec.as_mut().unwrap().selector = Some([("app".to_owned(), "x".to_owned())].into());
    world.apply(News::Service(Change::Apply(selecting)));
    let kubernetes = ", endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io";
    world.apply(slice("svc-k8s", kubernetes));
    let plan_now = plan(&world, &svc()).unwrap();
    assert!(
        plan_now.service.is_some() && plan_now.surplus.is_empty(),
        "it would be written again"
    );
    world.apply(News::Service(Change::Apply(service)));
    let mirrored =
        ", endpointslice.kubernetes.io/managed-by: endpointslicemirroring-controller.k8s.io,
        endpoints.kubernetes.io/managed-by: endpoint-controller";
    world.apply(slice("svc-mirror", mirrored));
    let plan_now = plan(&world, &svc()).unwrap();
    assert_eq!(plan_now.surplus, ["svc-k8s"]);
    assert!(plan_now.surplus_endpoints && plan_now.writes());
    assert_eq!(said(&plan_now), None);
}

#[test]
fn what_a_yusurservice_left_behind_is_adopted_in_the_order_that_keeps_it_serving() {
    let mut world = written();
    let mut service = world.service(&svc()).unwrap().clone();
    service.metadata.uid = Some("uid-service".to_owned());
    service.metadata.owner_references = Some(vec![yaml(
        "{apiVersion: v1, kind: ConfigMap, name: somebody, uid: else}",
    )]);
    world.apply(News::Service(Change::Apply(service)));
    let mut left = world.slices(&svc())[0].clone();
    left.metadata.owner_references = None;
    world.apply(News::EndpointSlice(Change::Apply(left.clone())));
    let anew = "{metadata: {name: svc, namespace: ns, uid: uid-2, generation: 1},
        spec: {vpc: vpc1, selector: {app: svc}, ports: [{name: http, port: 80}]}}";
    world.apply(News::YusurService(Box::new(Change::Apply(yaml(anew)))));
    let adopts = plan(&world, &svc()).unwrap();
    assert!(!adopts.creates && adopts.slices.len() == 1);
    let patch = adopts.service_patch().unwrap();
    assert_eq!(patch["metadata"]["uid"], "uid-service");
    let owners = &patch["metadata"]["ownerReferences"];
    assert_eq!(
        (owners[0]["uid"].as_str(), owners[1]["uid"].as_str()),
        (Some("else"), Some("uid-2"))
    );
    assert_eq!(adopts.surplus, [left.metadata.name.unwrap()]);
    assert_eq!(
        adopts.slices[0].endpoints[0].conditions,
        left.endpoints[0].conditions
    );
    assert_eq!(said(&adopts), None);
    let told = adopts.status(None, None, &now(1));
    assert_eq!(told.cluster_ip.as_deref(), Some("10.96.0.7"));
}
